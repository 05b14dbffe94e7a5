"""Events in order, in memory that does not grow with their number."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROWS_IN_MEMORY = 100_000
_ROWS_AT_ONCE = 500  # of a run that are read from disk


class Ordered:
    """Events that can be gone through in order, as often as is wanted.

    The events of most users stay in memory. Of a user with more, sorted runs go to local disk and
    are merged when they are read.

    Args:
        events: gone through once.
        key: to sort by.
        most: events that stay in memory.
    """

    def __init__(
        self, events: Iterable[Any], key: Callable[[Any], Any], most: int = ROWS_IN_MEMORY
    ) -> None:
        self.key, self.count = key, 0
        self.runs: list[Path] = []
        self.rows: list[Any] = []
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        for event in events:
            self.rows.append(event)
            if len(self.rows) > most:
                self._spill()
        self.count += len(self.rows)
        self.rows.sort(key=key)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        if not self.runs:
            return iter(self.rows)
        return self._merged()

    def _merged(self) -> Iterator[Any]:
        """A generator, since it has to keep the folder."""
        yield from heapq.merge(*map(_read, self.runs), self.rows, key=self.key)

    def _spill(self) -> None:
        self.folder = self.folder or tempfile.TemporaryDirectory(prefix="events.")
        path = Path(self.folder.name) / str(len(self.runs))
        self.rows.sort(key=self.key)
        with path.open("wb") as file:
            for start in range(0, len(self.rows), _ROWS_AT_ONCE):
                pickle.dump(self.rows[start : start + _ROWS_AT_ONCE], file)
        self.runs.append(path)
        self.count += len(self.rows)
        self.rows = []


def _read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while True:
            try:
                rows = pickle.load(file)
            except EOFError:
                return
            yield from rows
