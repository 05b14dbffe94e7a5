"""What a model of all items has to know of the data set before it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec.catalogue import load
from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, load_transform, readable
from tfrec.features import Features
from tfrec.models.nextitem.base import NextItemModel
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.strict import UserError

BATCH_SIZE = 4096


def learn_items(model: RetrievalModel, config: TrainConfig, features: Features) -> int:
    """Tells a model the items' features, and how often each is a target of the training split.

    Args:
        model: without them.
        config: of the run.
        features: with the label that tells positive examples, if there is one.

    Returns:
        How many training examples are positive.

    Raises:
        UserError: none is, sequences that are learned whole have others in them, or the data set
            has no catalogue of its items.
    """
    directory = Path(config.data)
    catalogue = load(directory, features)
    counts, rows = _targets(model, directory, features)
    if not rows:
        label = features.labels[0].name
        raise UserError(f"data set {directory}: no training example has label {label!r} 1")
    sequences = features.counts["train"]
    if features.sequences and isinstance(model, NextItemModel) and rows < sequences:
        label = features.labels[0].name
        raise UserError(
            f"data set {directory}: {sequences - rows:,} of {sequences:,} sequences end in an "
            f"event whose label {label!r} is not 1, and others are in them; declare the history "
            f"with `where: {label}`, or train with labels=[] on all events"
        )
    if not counts.any():
        raise UserError(
            f"data set {directory}: none of {rows:,} training examples has an item to tell from "
            "others; sequences need two events or more in training"
        )
    inputs = catalogue.inputs(load_transform(directory)) if model.catalogue.fields else {}
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    model.catalogue.fill(arrays, counts, config.item_loss.exponent)
    return rows


def _targets(model: RetrievalModel, directory: Path, features: Features) -> tuple[np.ndarray, int]:
    """(items,) counts as targets, and the number of positive examples."""
    size = model.catalogue.size

    @tf.function(reduce_retracing=True)
    def count(inputs: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        ids = tf.reshape(model.target_ids(inputs), [tf.shape(inputs[model.item_id.name])[0], -1])
        positive = tf.ones_like(ids[:, 0], tf.bool)
        for label in features.labels:
            positive = labels[label.name] == 1
        ids = tf.reshape(tf.boolean_mask(ids, positive), [-1])
        known = tf.boolean_mask(ids, (ids > 0) & (ids <= size))
        found = tf.math.bincount(tf.cast(known, tf.int32), minlength=size + 1, dtype=tf.int64)
        return found, tf.math.count_nonzero(positive)

    totals, rows = np.zeros(size + 1, np.int64), 0
    for inputs, labels, *_ in readable(
        evaluation_batches(directory, features, "train", BATCH_SIZE), directory
    ):
        found, positive = count(inputs, labels)
        totals += found.numpy()
        rows += int(positive)
    return totals[1:], rows
