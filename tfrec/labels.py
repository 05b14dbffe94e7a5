"""Labels that there is nothing of."""

from __future__ import annotations

import tensorflow as tf

from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, readable
from tfrec.features import Features
from tfrec.strict import UserError

_ROWS = 1024  # the first batch has an example of most labels


def check_labels(config: TrainConfig, features: Features) -> list[str]:
    """Checks that tasks can be learned, and that validations can be compared.

    Args:
        config: of the run, whose model scores examples.
        features: with the tasks to learn.

    Returns:
        What is wrong and does not stop the training.

    Raises:
        UserError: no training example has the label of some task, or no example of validation one
            that validations are compared by.
    """
    for name in _without_values(config.data, features, "train"):
        raise UserError(
            f"data set {config.data}: no training example has label {name!r}; name others in "
            "`labels`"
        )
    if "validation" not in features.counts:
        return []
    missing = _without_values(config.data, features, "validation")
    for name in missing:
        if name in (config.monitor or ()):
            raise UserError(f"monitor: no example of validation has label {name!r}; leave it out")
    if missing and len(missing) == len(features.labels):
        raise UserError(
            f"data set {config.data}: no example of validation has label {missing[0]!r}, and "
            "there is no other one to compare models by; declare another `split`"
        )
    return [
        f"no example of validation has label {name!r}: models are compared without it"
        for name in missing
        if not config.monitor
    ]


def _without_values(directory: str, features: Features, split: str) -> list[str]:
    """Labels that no example of a split has, which is read until all others were found."""
    missing = [label.name for label in features.labels]
    for _, labels, weights, _ in readable(
        evaluation_batches(directory, features, split, _ROWS), directory
    ):
        known = {name: ~tf.math.is_nan(labels[name]) & (weights > 0) for name in missing}
        missing = [name for name, rows in known.items() if not tf.reduce_any(rows)]
        if not missing:
            break
    return missing
