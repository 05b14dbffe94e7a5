"""Where requests wait their turn: bounded in number, in threads, batched or not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from serving.batching import Batcher, BatchingParameters
from serving.deadline import Deadline
from serving.errors import Code, ServingError, late
from serving.inference import Arrays
from serving.monitoring import Metrics
from serving.servable import Servable

_CONVERTERS = 2  # one that is long leaves a thread to the others; Python runs one at a time

# Up to here the event loop converts in less time, about a millisecond, than a thread's turn takes.
SMALL_REQUEST = 2**14  # bytes
SMALL_REPLY = 2**11  # values

T = TypeVar("T")


def values_of(arrays: Iterable[np.ndarray[Any, Any]]) -> int:
    """How much there is to convert: values, and bytes of strings as eight a value."""
    count = 0
    for array in arrays:
        count += array.size
        if array.dtype == object and count <= SMALL_REPLY:
            count += sum(map(len, array.flat)) // 8
    return count


class Runner:
    """Runs signatures for all requests of a server; used from one event loop.

    Args:
        metrics: to which run times are added.
        limit: of requests at a time, waiting ones included.
        batching: parameters, or None for requests one by one.
    """

    def __init__(
        self, metrics: Metrics, limit: int = 1_000, batching: BatchingParameters | None = None
    ) -> None:
        self.metrics, self.limit = metrics, limit
        self.batcher = Batcher(batching) if batching else None
        self.threads = ThreadPoolExecutor(os.cpu_count(), "run")
        self.converters = ThreadPoolExecutor(_CONVERTERS, "convert")
        self._inside = 0

    async def run(
        self, servable: Servable, signature: str, inputs: Arrays, timeout: float | None, label: str
    ) -> Arrays:
        """Outputs of a signature.

        Args:
            servable: that has it.
            signature: its name.
            inputs: as `Servable.check` gives them.
            timeout: seconds until the client no longer waits; None for no end.
            label: of the model, for metrics.

        Raises:
            ServingError: DEADLINE_EXCEEDED; UNAVAILABLE, too many requests are waiting; or the
                model's own error.
        """
        self._enter()
        start, waiting = time.perf_counter(), [inputs]

        def run() -> Arrays:
            left = None if timeout is None else timeout - (time.perf_counter() - start)
            return servable.run(signature, waiting.pop(), left)

        by_row = signature in servable.batchable and all(map(len, inputs.values()))
        del inputs  # which errors would keep, that the thread's queue keeps
        try:
            if self.batcher and by_row:
                return await self.batcher.run(servable, signature, waiting.pop(), timeout)
            # The run ends a little after its client's patience, and only then frees a thread.
            work = asyncio.get_running_loop().run_in_executor(self.threads, run)
            return await asyncio.wait_for(work, timeout)
        except TimeoutError:
            raise late() from None
        finally:
            self._inside -= 1
            waiting.clear()  # what is given up waits on for its thread, and should take no memory
            self.metrics.ran(label, time.perf_counter() - start)

    async def convert(self, function: Callable[[], T], deadline: Deadline, small: bool) -> T:
        """What a function makes of a request's values, or of a reply's.

        Args:
            function: that looks at the deadline now and then.
            deadline: of the request.
            small: whether it is done sooner than a thread would have its turn.

        Raises:
            ServingError: DEADLINE_EXCEEDED; UNAVAILABLE, too many requests are waiting; or the
                function's own error.
        """
        if small:
            try:
                return function()
            except TimeoutError:
                raise late() from None
        # As a run counts only until it ends, the reply after it always finds its place free.
        self._enter()
        waiting = [function]
        try:
            async with asyncio.timeout(deadline.left()):
                return await asyncio.get_running_loop().run_in_executor(
                    self.converters, lambda: waiting.pop()()
                )
        except asyncio.CancelledError:
            deadline.give_up()
            raise
        except TimeoutError:
            deadline.give_up()
            raise late() from None
        finally:
            self._inside -= 1
            waiting.clear()

    def _enter(self) -> None:
        if self._inside >= self.limit:
            raise ServingError(
                Code.UNAVAILABLE, f"More than {self.limit} requests at a time; try again later"
            )
        self._inside += 1
