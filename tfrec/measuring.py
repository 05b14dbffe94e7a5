"""From what scores examples to a report of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.baselines import Scorer, baselines
from tfrec.bootstrap import apart, draws, mixed
from tfrec.features import Features
from tfrec.figures import REPLICATES, Report
from tfrec.metrics import Array
from tfrec.models.base import Inputs, input_shapes
from tfrec.rows import Rows, hashed
from tfrec.slices import Slices
from tfrec.strict import UserError
from tfrec.tallies import Tally, tally


class Measuring:
    """Measures what gives values of tasks, on one split.

    Args:
        directory: of the data set.
        features: of the data set, with the tasks to measure.
        split: to measure on.
    """

    def __init__(self, directory: str | Path, features: Features, split: str) -> None:
        self.directory, self.features, self.split = directory, features, split

    def read(self) -> Iterator[Any]:
        """Batches of inputs, labels, weights and keys."""
        raise NotImplementedError

    def about(self) -> str:
        """What is measured."""
        return f"{self.split}, {self.features.counts[self.split]:,} examples"

    def rows(self, scorers: Mapping[str, Scorer], slices: Slices | None = None) -> Rows:
        """What is measured, read once.

        Args:
            scorers: by name of what they are.
            slices: to tell for every example.

        Raises:
            UserError: a file is damaged, or rows are missing.
        """
        tasks = [label.name for label in self.features.labels]
        expected = self.features.counts.get(self.split)
        rows = Rows(tasks, list(scorers), len(slices.names) if slices else 0, expected or 0)
        for inputs, labels, weights, keys in self.read():
            events = None
            if self.features.user_key:
                users = _hashed_keys(keys["user"])
            else:  # every example stands for itself, wherever it is read
                events = hashed([keys["time"].numpy()], mixed(_hashed_keys(keys["item"])))
                users = hashed(self._content(inputs, labels, weights), events).astype(np.int64)
            scores = [score(inputs, keys) for score in scorers.values()]
            member = slices.member(inputs, keys) if slices else None
            rows.add(users, weights.numpy(), labels, scores, member, events)
        if not rows.count or (expected is not None and rows.count != expected):
            raise UserError(
                f"split {self.split} of {self.directory} has {rows.count:,} examples, not the "
                f"{expected or 1:,} that its features.json says; make the data set again"
            )
        return rows

    def _content(self, inputs: Inputs, labels: Inputs, weights: tf.Tensor) -> Iterator[Array]:
        """What tells an example from others that have its keys."""
        yield from (inputs[name].numpy() for name in input_shapes(self.features))
        yield from (labels[label.name].numpy().astype(np.float32) for label in self.features.labels)
        if self.features.weighted:
            yield weights.numpy()

    def measured(
        self,
        name: str,
        scorer: Scorer,
        wanted: Sequence[str] = (),
        replicates: int = REPLICATES,
        alone: bool = False,
    ) -> Report:
        """All that is measured, and the whole of the baselines.

        Args:
            name: of what is measured.
            scorer: gives its values.
            wanted: slices to measure it on, too, see `tfrec.slices`.
            replicates: resamplings for intervals.
            alone: leaves the baselines out.
        """
        slices = self.slices(wanted) if wanted else None
        beside = {} if alone else baselines(self.directory, self.features)
        rows = self.rows({name: scorer, **beside}, slices)
        records = [
            {"name": whose, "task": task, "slice": part, **found.record()}
            for (whose, part), by_task in self.tallies(rows, slices, replicates).items()
            for task, found in by_task.items()
            if found.examples or part is None
        ]
        digests = rows.digests
        return Report(name, self.split, self.about(), digests, replicates, records, list(wanted))

    def slices(self, wanted: Sequence[str]) -> Slices:
        """Parts of the split."""
        return Slices(wanted, self.directory, self.features, self.split)

    def tallies(
        self, rows: Rows, slices: Slices | None = None, replicates: int = 0
    ) -> dict[tuple[str, str | None], dict[str, Tally]]:
        """Sums by task: of all that was scored, and of the first of it by slice."""
        places: dict[tuple[str, str | None], int] = {(name, None): -1 for name in rows.models}
        if slices:
            places |= {(rows.models[0], part): n for n, part in enumerate(slices.names)}
        users = self.features.user_key is not None
        tallies = {
            key: {label.name: tally(label, replicates, users) for label in self.features.labels}
            for key in places
        }
        for part in rows.parts():
            if not users:
                part["user"] = apart(part["user"])
            drawn = draws(part["user"], replicates)
            for key, place in places.items():
                chosen = slice(None) if place < 0 else part["slices"][:, place]
                some, of_users, model = part[chosen], drawn[chosen], rows.models.index(key[0])
                for task, found in enumerate(tallies[key].values()):
                    labels, scores = some["labels"][:, task], some["scores"][:, model, task]
                    found.add(labels, scores, some["weight"], some["user"], of_users)
        return tallies


def _hashed_keys(keys: tf.Tensor) -> Array:
    """(n,) int64."""
    return tf.strings.to_hash_bucket_fast(keys, 2**63 - 1).numpy()
