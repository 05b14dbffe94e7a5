"""Labels and scores of a split, handed out in parts of bounded size that hold whole users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfrec.bootstrap import mixed
from tfrec.metrics import Array

ROWS_OF_PART = 2**16  # on average: users are spread over the parts by the hash of their keys
ROWS_HELD = 2**22  # in memory; of more, all are in temporary files


class Rows:
    """What is measured, one row per example.

    Args:
        tasks: names of them.
        models: names of what is measured.
        slices: number of slices that rows may be in.
        expected: number of rows, as far as it is known.
    """

    def __init__(
        self, tasks: Sequence[str], models: Sequence[str], slices: int, expected: int
    ) -> None:
        self.tasks, self.models = tasks, models
        self.dtype = np.dtype(
            [
                ("user", np.int64),
                ("weight", np.float32),
                ("labels", np.float32, (len(tasks),)),
                ("scores", np.float32, (len(models), len(tasks))),
                ("slices", np.bool_, (slices,)),
            ]
        )
        self.count = 0
        self._digests = np.zeros(len(tasks), np.uint64)
        self._parts: list[list[Array]] = [[] for _ in range(1 + expected // ROWS_OF_PART)]
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(
        self,
        users: Array,
        weights: Array,
        labels: Mapping[str, Array],
        scores: Sequence[Mapping[str, Array]],
        slices: Array | None = None,
        events: Array | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            users: (n,) int64 hashes of keys.
            weights: (n,).
            labels: by task, (n,).
            scores: by model and task, (n,).
            slices: (n, slices) which each is in.
            events: (n,) hashes that tell the digests what was measured; users unless given.
        """
        rows = np.zeros(len(users), self.dtype)
        rows["user"], rows["weight"] = users, weights
        for i, task in enumerate(self.tasks):
            rows["labels"][:, i] = labels[task]
            for j, model in enumerate(scores):
                rows["scores"][:, j, i] = model[task]
        if slices is not None:
            rows["slices"] = slices
        self.count += len(rows)
        self._held += len(rows)
        self._digests += _digests(rows, rows["user"] if events is None else events)
        part = (mixed(rows["user"]) % np.uint64(len(self._parts))).astype(np.int64)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=len(self._parts)))[:-1]
        for held, more in zip(self._parts, np.split(rows[order], ends), strict=True):
            held.append(more)
        if self._held > ROWS_HELD:
            self._write()

    def _write(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tfrec-rows-")
        for index, held in enumerate(self._parts):
            with self._file(index).open("ab") as file:
                for rows in held:
                    rows.tofile(file)
            held.clear()
        self._held = 0

    def _file(self, index: int) -> Path:
        assert self._folder
        return Path(self._folder.name) / str(index)

    def parts(self) -> Iterator[Array]:
        """All rows, those of a user together; structured arrays."""
        for index, held in enumerate(self._parts):
            rows = held
            if self._folder:
                rows = [np.fromfile(self._file(index), self.dtype), *held]
            if rows:
                yield np.concatenate(rows)

    @property
    def digests(self) -> dict[str, str]:
        """Of users, weights and labels, in any order: equal where the same has been measured.

        By task, so that runs of some tasks can be compared with those of others.
        """
        found = zip(self.tasks, self._digests.tolist(), strict=True)
        return {task: f"{self.count}-{digest:016x}" for task, digest in found}


def _digests(rows: Array, events: Array) -> Array:
    """(tasks,) uint64 sums modulo 2^64."""
    of_events = hashed([rows["weight"]], mixed(events))
    return np.array(
        [np.sum(hashed([labels], of_events), dtype=np.uint64) for labels in rows["labels"].T],
        np.uint64,
    )


def hashed(columns: Iterable[Array], seeds: Array) -> Array:
    """Hashes (n,) uint64 of rows.

    Args:
        columns: (n, …) of numbers each.
        seeds: (n,) uint64 hashes to go on from.
    """
    for values in columns:
        wide = values.reshape(len(seeds), -1)
        bits = wide.view(np.uint32) if wide.dtype == np.float32 else wide
        for column in bits.T.astype(np.uint64):
            seeds = mixed(seeds + column + np.uint64(1))
    return seeds
