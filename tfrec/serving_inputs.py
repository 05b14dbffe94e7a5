"""Raw requests to the inputs of the transform graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.features import Column, Features
from tfrec.strict import UserError

MISSING: dict[str, Any] = {"string": "", "float32": float("nan")}


def signature_columns(features: Features) -> dict[str, tf.TensorSpec]:
    """Inputs of the `predict` signature.

    Raises:
        UserError: two columns would have one name there.
    """
    specs: dict[str, tf.TensorSpec] = {}
    for column in features.columns:
        name = request_name(column)
        if name in specs:
            raise UserError(f"two columns are called {name!r} in requests; rename {column.name!r}")
        shape = [None, None] if column.history else [None]
        specs[name] = tf.TensorSpec(shape, column.dtype, name)
    return specs


def request_name(column: Column) -> str:
    """A column's name in the `predict` signature: TensorFlow allows letters, digits and _."""
    name = re.sub(r"\W", "_", column.name, flags=re.ASCII)
    return f"arg_{name}" if name[0].isdigit() else name


def from_examples(features: Features, examples: tf.Tensor) -> dict[str, Any]:
    """Raw columns of serialized tf.Examples (batch,).

    A column that the training data always had is required; an absent history is empty.
    """
    raw = tf.io.parse_example(examples, example_spec(features))
    for history, columns in _by_history(features).items():
        lengths = [raw[column.name].row_lengths() for column in columns]
        for column, length in zip(columns[1:], lengths[1:], strict=True):
            checked = _checked(length, lengths[0], column, columns[0], history)
            with tf.control_dependencies([checked]):
                raw[column.name] = tf.identity(raw[column.name])
    return raw


def from_columns(features: Features, columns: dict[str, tf.Tensor]) -> dict[str, Any]:
    """Raw columns of the `predict` signature's tensors.

    Histories come as (batch, events); an event whose first column is "" is padding.
    """
    raw: dict[str, Any] = {
        column.name: columns[request_name(column)] for column in features.columns
    }
    for name, history in _by_history(features).items():
        real = raw[history[0].name] != ""
        for column in history:
            value = raw[column.name]
            checked = _checked(tf.shape(value), tf.shape(real), column, history[0], name)
            with tf.control_dependencies([checked]):
                raw[column.name] = tf.ragged.boolean_mask(tf.identity(value), real)
    return raw


def example_spec(features: Features) -> dict[str, Any]:
    """How a request's tf.Examples are parsed."""
    spec: dict[str, Any] = {}
    for column in features.columns:
        dtype = tf.dtypes.as_dtype(column.dtype)
        if column.history:
            spec[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        elif column.required:
            spec[column.name] = tf.io.FixedLenFeature([], dtype)
        else:
            spec[column.name] = tf.io.FixedLenFeature([], dtype, MISSING[column.dtype])
    return spec


def columns_of_examples(
    features: Features, examples: Sequence[bytes]
) -> dict[str, np.ndarray[Any, Any]]:
    """The same requests as arrays for the `predict` signature."""
    raw = tf.io.parse_example(tf.constant(list(examples)), example_spec(features))
    dense = {
        name: value.to_tensor() if isinstance(value, tf.RaggedTensor) else value
        for name, value in raw.items()
    }
    return {request_name(column): dense[column.name].numpy() for column in features.columns}


def _checked(size: Any, first: Any, column: Column, mask: Column, history: str) -> Any:
    message = f"{column.name} and {mask.name}: history {history!r} needs one of each"
    return tf.debugging.assert_equal(size, first, message)


def _by_history(features: Features) -> dict[str, list[Column]]:
    """Columns of every history, the one that tells events from padding first."""
    histories: dict[str, list[Column]] = {}
    for column in features.columns:
        if column.history:
            histories.setdefault(column.history, []).append(column)
    return histories
