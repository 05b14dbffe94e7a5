"""Metrics of a model on a split, and of the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, readable
from tfrec.features import Features
from tfrec.metrics import Array, binary_metrics, regression_metrics
from tfrec.models.base import Model, input_shapes
from tfrec.models.registry import find
from tfrec.strict import NotFiniteError, UserError
from tfrec.validation import Metrics, Signed

if TYPE_CHECKING:
    from tfrec.top_k import TopKEvaluator

BATCH_SIZE = 4096
KEPT_BYTES = 256 * 2**20  # inputs of a split that stay in memory between validations
# What a better model of a task is judged by, and whether more of it is better: the first that
# exists, since there is no AUC where all labels are equal.
MONITORED: dict[str, Signed] = {
    "binary": (("auc", 1.0), ("log_loss", -1.0)),
    "regression": (("rmse", -1.0),),
}
SMOOTHING = 10.0  # ratings of the global mean that the item mean begins with


@dataclass(frozen=True)
class Split:
    """Labels and keys of a split, in stored order.

    Attributes:
        labels: by task, (n,).
        weights: (n,).
        users, items: (n,) raw keys as bytes.
    """

    labels: dict[str, Array]
    weights: Array
    users: Array
    items: Array


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

    def predict(self, model: Model) -> tuple[dict[str, Array], Split]:
        """Served values by task, (n,) each, and what they are measured against.

        Raises:
            UserError: a file is damaged, rows are missing, or a value is not finite.
        """
        function = self._predict.get(id(model))
        if function is None:
            function = tf.function(
                lambda inputs: model.probabilities(model(inputs, training=False)),
                reduce_retracing=True,
            )
            self._predict[id(model)] = function
        predicted: dict[str, list[Array]] = {label.name: [] for label in self.features.labels}
        truth = _Columns(self.features)
        for inputs, labels, weights, keys in readable(self.batches, self.directory):
            for name, values in function(inputs).items():
                if not np.isfinite(values).all():
                    raise NotFiniteError(
                        f"what the model says of {name} is not finite; train with a lower learning "
                        "rate or with clip_norm"
                    )
                predicted[name].append(values.numpy())
            truth.add(labels, weights, keys)
        self._check_rows(truth)
        return {name: np.concatenate(parts) for name, parts in predicted.items()}, truth.split()

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

    def _check_rows(self, truth: _Columns) -> None:
        rows = sum(len(part) for part in truth.others[0])
        expected = self.features.counts.get(self.split, rows)
        if not rows or rows != expected:
            raise UserError(
                f"split {self.split} of {self.directory} has {rows:,} examples, not the "
                f"{expected:,} that its features.json says; make the data set again"
            )

    def evaluate(self, model: Model) -> Metrics:
        """Metrics by task."""
        return self._measured(*self.predict(model))

    def _measured(self, predicted: dict[str, Array], split: Split) -> Metrics:
        return {
            label.name: measure(self.features, label.name, predicted[label.name], split)
            for label in self.features.labels
        }

    def compare(self, name: str, model: Model) -> dict[str, Metrics]:
        """Metrics of a model, by the name given, and of the baselines."""
        predicted, split = self.predict(model)
        others = baselines(self.directory, self.features, split)
        return {name: self._measured(predicted, split), **others}

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


class _Columns:
    """Gathers labels, weights and keys batch by batch."""

    def __init__(self, features: Features) -> None:
        self.labels: dict[str, list[Array]] = {label.name: [] for label in features.labels}
        self.others: tuple[list[Array], list[Array], list[Array]] = ([], [], [])

    def add(self, labels: dict[str, Any], weights: Any, keys: dict[str, Any]) -> None:
        for name, parts in self.labels.items():
            parts.append(labels[name].numpy())
        others = (weights, keys["user"], keys["item"])
        for parts, values in zip(self.others, others, strict=True):
            parts.append(values.numpy())

    def split(self) -> Split:
        labels = {name: np.concatenate(parts) for name, parts in self.labels.items()}
        return Split(labels, *(np.concatenate(parts) for parts in self.others))


def measure(features: Features, task: str, values: Array, split: Split) -> dict[str, float | None]:
    """Metrics of one task's served values."""
    label = next(label for label in features.labels if label.name == task)
    if label.task == "binary":
        users = split.users if features.user_key else None
        return binary_metrics(split.labels[task], values, users, split.weights)
    return regression_metrics(split.labels[task], values, split.weights)


def baselines(directory: str | Path, features: Features, split: Split) -> dict[str, Metrics]:
    """Metrics, by baseline and task, of what needs no model.

    `global mean`: the training split's mean label. `item mean`: the item's mean label there,
    smoothed by 10 labels of the global mean.

    Args:
        directory: of the data set.
        features: with the tasks to measure.
        split: to measure on.
    """
    train = _Columns(features)
    for _, labels, weights, keys in readable(
        evaluation_batches(directory, features, "train", BATCH_SIZE), directory
    ):
        train.add(labels, weights, keys)
    seen = train.split()
    result: dict[str, Metrics] = {"global mean": {}}
    if features.item_key:
        result["item mean"] = {}
    for label in features.labels:
        known = np.isfinite(seen.labels[label.name])
        values, weights = seen.labels[label.name][known], seen.weights[known]
        mean = float(np.average(values, weights=weights)) if weights.sum() else 0.0
        constant = np.full(len(split.weights), mean)
        result["global mean"][label.name] = measure(features, label.name, constant, split)
        if features.item_key:
            items, index = np.unique(seen.items[known], return_inverse=True)
            counts = np.bincount(index, weights, len(items))
            sums = np.bincount(index, values * weights, len(items))
            means = dict(zip(items, (sums + SMOOTHING * mean) / (counts + SMOOTHING), strict=True))
            served = np.array([means.get(item, mean) for item in split.items])
            result["item mean"][label.name] = measure(features, label.name, served, split)
    return result


def table(rows: dict[str, Metrics]) -> str:
    """Metrics as aligned text: rows by name, then task, then metric."""
    lines = []
    tasks = list(next(iter(rows.values())))
    for task in tasks:
        metrics = list(next(iter(rows.values()))[task])
        width = max(len(name) for name in (*rows, task))
        lines.append(f"{task:<{width}}  " + "  ".join(f"{m:>11}" for m in metrics))
        for name, by_task in rows.items():
            cells = [by_task[task][metric] for metric in metrics]
            shown = ("—" if cell is None else f"{cell:.4f}" for cell in cells)
            lines.append(f"{name:<{width}}  " + "  ".join(f"{cell:>11}" for cell in shown))
    return "\n".join(lines)
