"""A small data set's features, and batches of them, without a pipeline."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from click.testing import CliRunner, Result

from tfrec import train
from tfrec.features import Feature, Features, History, Label, Table
from tfrec.models.retrieval.base import RetrievalModel

EVENTS = 5
Arrays = dict[str, np.ndarray[Any, Any]]

FEATURES = Features(
    name="small",
    features=(
        Feature("user", "category", "user", "user"),
        Feature("item", "category", "item", "item"),
        Feature("tags", "category", "item", "tags", length=3),
        Feature("age", "number", "user"),
        Feature("price", "number", "item"),
    ),
    tables=(
        Table("user", 10, 2),
        Table("item", 12, 2),
        Table("tags", 6, 1),
        Table("user_x_tags", 40),
    ),
    labels=(Label("like"),),
    crosses=(Feature("user_x_tags", "category", "context", "user_x_tags", length=3),),
    histories=(
        History(
            "liked",
            EVENTS,
            (
                Feature("liked_item", "category", "user", "item", mirrors="item"),
                Feature("liked_tags", "category", "user", "tags", length=3, mirrors="tags"),
                Feature("liked_price", "number", "user", mirrors="price"),
            ),
        ),
    ),
    user_id="user",
    item_id="item",
)


# Two tasks of a kind each, and the two of a conversion.
TASKS = dataclasses.replace(FEATURES, labels=(Label("like"), Label("stars", "regression")))
CLICKS = dataclasses.replace(FEATURES, labels=(Label("click"), Label("buy")))


def batch(size: int, seed: int = 0, features: Features = FEATURES) -> Arrays:
    """Random inputs: ids of all kinds, lists and histories of all lengths, the empty one too."""
    rng = np.random.default_rng(seed)
    inputs: Arrays = {}
    for feature in (*features.features, *features.crosses):
        inputs[feature.name] = _values(feature, features, (size,), rng)
    for history in features.histories:
        lengths = rng.integers(0, history.length + 1, size)
        lengths[0] = 0
        real = np.arange(history.length) < lengths[:, np.newaxis]
        for feature in history.features:
            values = _values(feature, features, (size, history.length), rng)
            inputs[feature.name] = np.where(
                real.reshape(real.shape + (1,) * (values.ndim - 2)), values, 0
            ).astype(values.dtype)
    return inputs


def _values(feature: Feature, features: Features, shape: tuple[int, ...], rng: Any) -> Any:
    if feature.kind == "number":
        return rng.normal(size=shape).astype(np.float32)
    size = features.table(feature.table).size
    if not feature.length:
        return rng.integers(1, size, shape)
    ids = rng.integers(1, size, (*shape, feature.length))
    counts = rng.integers(0, feature.length + 1, shape)
    return np.where(np.arange(feature.length) < counts[..., np.newaxis], ids, 0)


def tensors(inputs: Arrays) -> dict[str, tf.Tensor]:
    """The same as tensors."""
    return {name: tf.constant(value) for name, value in inputs.items()}


def training_data(
    inputs: Arrays, labels: Any, weights: Any = None, features: Features = FEATURES
) -> tuple[Any, Any, Any]:
    """One element of training data for `Model.train_step`; labels (rows,) go to all tasks."""
    labels = np.asarray(labels, np.float32)
    weights = np.ones(len(labels)) if weights is None else weights
    columns = np.broadcast_to(labels.T, (len(features.labels), len(labels)))
    by_task = {
        label.name: tf.constant(column)
        for label, column in zip(features.labels, columns, strict=True)
    }
    return tensors(inputs), by_task, tf.constant(weights, tf.float32)


def randomise(model: Any, seed: int = 0, scale: float = 0.5) -> None:
    """Random weights, and random fields of items, so that no equation holds by zeros."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=scale, size=variable.shape))
    for variable in model.non_trainable_variables:
        if variable.dtype.is_floating:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    if isinstance(model, RetrievalModel):
        size = model.catalogue.size
        model.catalogue.fill(
            batch(size, seed, model.features), rng.integers(1, 50, size), exponent=0.5
        )


def start(*arguments: str) -> Result:
    """Runs `python -m tfrec.train`."""
    return CliRunner().invoke(train.main, arguments)
