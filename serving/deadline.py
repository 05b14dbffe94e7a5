"""When a client no longer waits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

QUIET_SECONDS = 0.1  # without a request, after which none is on its way through the system
MOST_ROUNDS = 10  # of so long, for clients that ask again at once
TOGETHER = 2**14  # values that are converted before the deadline, and other threads, have a turn


class Deadline:
    """Of a request; what works for it in a thread looks at it now and then, and ends by itself.

    Args:
        seconds: that the client waits from now on; None for no end.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds; None for no end."""
        return None if self._end == math.inf else self._end - time.monotonic()

    def give_up(self) -> None:
        """Says that nobody waits any more."""
        self._end = -math.inf

    def check(self) -> None:
        """Does nothing in time.

        Raises:
            TimeoutError: nobody waits any more.
        """
        if time.monotonic() > self._end:
            raise TimeoutError


NEVER = Deadline()


async def until_quiet(asked: Callable[[], int]) -> None:
    """Waits until no more requests come, a second at most.

    Args:
        asked: how many have come.
    """
    for _ in range(MOST_ROUNDS):
        before = asked()
        await asyncio.sleep(QUIET_SECONDS)
        if asked() == before:
            return
