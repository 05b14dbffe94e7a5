"""Some examples of a split, at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.baselines import BATCH_SIZE
from tfrec.evaluation import Evaluator
from tfrec.metrics import Array
from tfrec.models.base import Inputs, Model
from tfrec.report.importance import Change
from tfrec.tallies import tally
from tfrec.validation import Metrics

ROWS = 20_000


@dataclass(frozen=True)
class Sample:
    """The first examples of a split, which is stored in random order.

    Attributes:
        inputs: by name, (n, …).
        labels: by task, (n,).
        weights: (n,).
    """

    inputs: Inputs
    labels: dict[str, Array]
    weights: Array

    @classmethod
    def read(cls, evaluator: Evaluator) -> Sample:
        """Reads `ROWS` of them, or all."""
        batches = []
        for batch in evaluator.read():
            batches.append(batch)
            if sum(len(weights) for _, _, weights, _ in batches) >= ROWS:
                break

        def joined(values: list[tf.Tensor]) -> tf.Tensor:
            return tf.concat(values, axis=0)[:ROWS]

        inputs, labels = (
            {name: joined([batch[place][name] for batch in batches]) for name in batches[0][place]}
            for place in (0, 1)
        )
        known = {task: values.numpy() for task, values in labels.items()}
        return cls(inputs, known, joined([batch[2] for batch in batches]).numpy())

    def scores(self, evaluator: Evaluator, model: Model, change: Change | None) -> dict[str, Array]:
        """What a model says of the examples, by task, after a change of their inputs."""
        inputs, score = change(self.inputs) if change else self.inputs, evaluator.scorer(model)
        parts = [
            score({name: value[start : start + BATCH_SIZE] for name, value in inputs.items()}, {})
            for start in range(0, len(self.weights), BATCH_SIZE)
        ]
        return {task: np.concatenate([part[task] for part in parts]) for task in self.labels}

    def measure(self, evaluator: Evaluator, model: Model) -> Callable[[Change | None], Metrics]:
        """What gives a model's metrics by task after a change of the inputs."""

        def measured(change: Change | None) -> Metrics:
            scores, users = self.scores(evaluator, model, change), np.arange(len(self.weights))
            found: Metrics = {}
            for label in evaluator.features.labels:
                sums = tally(label, 0, users=False)
                drawn = np.zeros((len(users), 0), np.uint8)
                sums.add(self.labels[label.name], scores[label.name], self.weights, users, drawn)
                found[label.name] = sums.figures()
            return found

        return measured
