"""Labels and scores of a split, handed out in parts of bounded size that hold whole users."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
        self._digest = 0
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
    ) -> None:
        """Adds a batch.

        Args:
            users: (n,) int64 hashes of keys.
            weights: (n,).
            labels: by task, (n,).
            scores: by model and task, (n,).
            slices: (n, slices) which each is in.
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
        self._digest = (self._digest + _digest(rows)) % 2**64
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
    def digest(self) -> str:
        """Of users, weights and labels, in any order: equal where the same has been measured."""
        return f"{self.count}-{self._digest:016x}"


def _digest(rows: Array) -> int:
    hashes = mixed(rows["user"])
    for values in (rows["weight"], *rows["labels"].T):
        bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
        hashes = mixed(hashes + bits + np.uint64(1))
    return int(np.sum(hashes, dtype=np.uint64))
