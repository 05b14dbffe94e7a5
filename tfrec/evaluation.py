"""Metrics of a model on a split, and of the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfrec.baselines import BATCH_SIZE, Scorer, baselines
from tfrec.bootstrap import draws
from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, readable
from tfrec.features import Features
from tfrec.metrics import Array
from tfrec.models.base import Model, input_shapes
from tfrec.models.registry import find
from tfrec.report import REPLICATES, Report
from tfrec.rows import Rows
from tfrec.slices import Slices
from tfrec.strict import NotFiniteError, UserError
from tfrec.tallies import Tally, tally
from tfrec.validation import Metrics, Signed

if TYPE_CHECKING:
    from tfrec.top_k import TopKEvaluator

KEPT_BYTES = 256 * 2**20  # inputs of a split that stay in memory between validations
# What a better model of a task is judged by, and whether more of it is better: the first that
# exists, since there is no AUC where all labels are equal.
MONITORED: dict[str, Signed] = {
    "binary": (("auc", 1.0), ("log_loss", -1.0)),
    "regression": (("rmse", -1.0),),
}


class Evaluator:
    """Measures models of tasks on one split.

    A small split is read and parsed once, and stays in memory.

    Args:
        directory: of the data set.
        features: with the tasks to measure.
        split: to measure on.
        monitor: tasks that models are compared by; all unless given.

    Raises:
        UserError: the data set has no such split, or is not the one of the features.
    """

    def __init__(
        self,
        directory: str | Path,
        features: Features,
        split: str,
        monitor: Sequence[str] | None = None,
    ) -> None:
        features.check_same_ids(Features.load(directory), str(directory))
        self.directory, self.features, self.split = directory, features, split
        batches = evaluation_batches(directory, features, split, BATCH_SIZE)
        self.batches = batches.cache() if self._bytes() <= KEPT_BYTES else batches
        self.monitored: dict[str, Signed] = {
            label.name: MONITORED[label.task]
            for label in features.labels
            if monitor is None or label.name in monitor
        }
        self._predict: dict[int, Any] = {}

    def scorer(self, model: Model) -> Scorer:
        """What gives a model's served values by task.

        Raises:
            UserError: when it is called, a value is not finite.
        """
        function = self._predict.get(id(model))
        if function is None:
            function = tf.function(
                lambda inputs: model.probabilities(model(inputs, training=False)),
                reduce_retracing=True,
            )
            self._predict[id(model)] = function

        def score(inputs: dict[str, Any], keys: dict[str, Any]) -> dict[str, Array]:
            served = {name: values.numpy() for name, values in function(inputs).items()}
            for name, values in served.items():
                if not np.isfinite(values).all():
                    raise NotFiniteError(
                        f"what the model says of {name} is not finite; train with a lower learning "
                        "rate or with clip_norm"
                    )
            return served

        return score

    def rows(self, scorers: Mapping[str, Scorer], slices: Slices | None = None) -> Rows:
        """What is measured, read once.

        Args:
            scorers: by name of what they are.
            slices: to tell for every example.

        Raises:
            UserError: a file is damaged, or rows are missing.
        """
        tasks = [label.name for label in self.features.labels]
        expected = self.expected()
        rows = Rows(tasks, list(scorers), len(slices.names) if slices else 0, expected or 0)
        for inputs, labels, weights, keys in self.read():
            if self.features.user_key:
                users = tf.strings.to_hash_bucket_fast(keys["user"], 2**63 - 1).numpy()
            else:  # every example stands for itself
                users = np.arange(rows.count, rows.count + len(weights))
            scores = [score(inputs, keys) for score in scorers.values()]
            member = slices.member(inputs, keys) if slices else None
            rows.add(users, weights.numpy(), labels, scores, member)
        if not rows.count or (expected is not None and rows.count != expected):
            raise UserError(
                f"split {self.split} of {self.directory} has {rows.count:,} examples, not the "
                f"{expected or 1:,} that its features.json says; make the data set again"
            )
        return rows

    def read(self) -> Iterator[Any]:
        """Batches of inputs, labels, weights and keys, in stored order."""
        return readable(self.batches, self.directory)

    def expected(self) -> int | None:
        """Number of examples, as far as the data set says it."""
        return self.features.counts.get(self.split)

    def gates(self, model: Model) -> dict[str, list[float]]:
        """Mean share of every expert, by gate; empty where the model has none.

        Of the first examples of the split, which is stored in random order.
        """
        if type(model).gates is Model.gates:
            return {}
        inputs = next(iter(self.batches))[0]
        return {name: np.mean(s, axis=0).tolist() for name, s in model.gates(inputs).items()}

    def _bytes(self) -> float:
        """What the inputs of the whole split take."""
        shapes = input_shapes(self.features).values()
        row = sum(dtype.size * math.prod(shape) for dtype, shape in shapes)
        return row * self.features.counts.get(self.split, math.inf)

    def evaluate(self, model: Model) -> Metrics:
        """Metrics by task."""
        rows = self.rows({"model": self.scorer(model)})
        by_task = self._tallies(rows, None, 0)["model", None]
        return {task: found.figures() for task, found in by_task.items()}

    def compare(self, name: str, model: Model) -> dict[str, Metrics]:
        """Metrics of a model, by the name given, and of the baselines."""
        return self.report(name, model, replicates=0).figures()

    def report(
        self,
        name: str,
        model: Model,
        wanted: Sequence[str] = (),
        replicates: int = REPLICATES,
    ) -> Report:
        """All that is measured of a model, and the whole of the baselines.

        Args:
            name: of the model.
            model: to measure.
            wanted: slices to measure the model on, too, see `tfrec.slices`.
            replicates: resamplings for intervals.
        """
        slices = self.slices(wanted)
        scorers = {name: self.scorer(model), **baselines(self.directory, self.features)}
        rows = self.rows(scorers, slices)
        records = [
            {"name": name, "task": task, "slice": part, **found.record()}
            for (name, part), by_task in self._tallies(rows, slices, replicates).items()
            for task, found in by_task.items()
            if found.examples or part is None
        ]
        return Report(name, self.split, self.about(), rows.digest, replicates, records)

    def slices(self, wanted: Sequence[str]) -> Slices | None:
        """Parts of the split; None where none is wanted."""
        if not wanted:
            return None
        first = next(self.read())[0]
        return Slices(wanted, self.directory, self.features, first)

    def _tallies(
        self, rows: Rows, slices: Slices | None, replicates: int
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
            drawn = draws(part["user"], replicates)
            for key, place in places.items():
                chosen = slice(None) if place < 0 else part["slices"][:, place]
                some, of_users, model = part[chosen], drawn[chosen], rows.models.index(key[0])
                for task, found in enumerate(tallies[key].values()):
                    labels, scores = some["labels"][:, task], some["scores"][:, model, task]
                    found.add(labels, scores, some["weight"], some["user"], of_users)
        return tallies

    def about(self) -> str:
        """What is measured."""
        return f"{self.split}, {self.features.counts[self.split]:,} examples"


def evaluator(
    config: TrainConfig, features: Features, split: str, limited: bool = False
) -> Evaluator | TopKEvaluator:
    """What measures the model of a configuration.

    Args:
        config: of the run.
        features: with the tasks to measure.
        split: to measure on.
        limited: to as much as `top_k.users` says.
    """
    if not find(config.model.id).scores_items:
        return Evaluator(config.data, features, split, config.monitor)
    from tfrec.top_k import TopKEvaluator

    return TopKEvaluator(config.data, features, split, config.top_k, limited)
