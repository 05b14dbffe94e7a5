"""Metrics of a model on a split, and of the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfrec.baselines import BATCH_SIZE, Scorer
from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, readable
from tfrec.features import Features
from tfrec.figures import REPLICATES, Report
from tfrec.measuring import Measuring
from tfrec.metrics import Array
from tfrec.models.base import Model, input_shapes
from tfrec.models.registry import find
from tfrec.strict import NotFiniteError
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


class Evaluator(Measuring):
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
        super().__init__(directory, features, split)
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
            inputs = {
                name: tf.TensorSpec([None, *shape], dtype)
                for name, (dtype, shape) in input_shapes(self.features).items()
            }
            function = tf.function(
                lambda inputs: model.probabilities(model(inputs, training=False)), [inputs]
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

    def read(self) -> Iterator[Any]:
        """Batches of inputs, labels, weights and keys, in stored order."""
        return readable(self.batches, self.directory)

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
        by_task = self.tallies(self.rows({"model": self.scorer(model)}))["model", None]
        return {task: found.figures() for task, found in by_task.items()}

    def compare(self, name: str, model: Model) -> dict[str, Metrics]:
        """Metrics of a model, by the name given, and of the baselines."""
        return self.report(name, model, replicates=0).figures()

    def report(
        self, name: str, model: Model, wanted: Sequence[str] = (), replicates: int = REPLICATES
    ) -> Report:
        """All that is measured of a model, and the whole of the baselines.

        Args:
            name: of the model.
            model: to measure.
            wanted: slices to measure the model on, too, see `tfrec.slices`.
            replicates: resamplings for intervals.
        """
        return self.measured(name, self.scorer(model), wanted, replicates)


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
