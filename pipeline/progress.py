"""A line with rows and rate while the pipeline runs, where the output is a terminal."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from types import TracebackType

from apache_beam.metrics import Metrics
from rich.console import Console
from rich.status import Status

# FnApiRunner works in this process, so its DoFns count here for the live line. Every runner
# also has the same counts as Beam counters.
_tally: Counter[str] = Counter()


def advance(what: str, rows: int) -> None:
    """Counts rows that one step of the pipeline has done."""
    Metrics.counter("pipeline", what).inc(rows)
    _tally[what] += rows


class Progress(AbstractContextManager):
    """Shows the counts and the rate, twice a second.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stop = threading.Event()
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def __enter__(self) -> Progress:
        _tally.clear()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)
        if self.console.is_terminal:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        with Status("starting", console=self.console) as status:
            while not self._stop.wait(0.5):
                counts = ", ".join(f"{count:,} {what}" for what, count in list(_tally.items()))
                rate = max(_tally.values(), default=0) / self.seconds
                status.update(f"{counts or 'starting'} · {rate:,.0f} rows/s")
