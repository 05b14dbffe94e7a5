"""Cross-product transformations, the same in the transform and wherever else they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def crossed(parts: Sequence[Any], buckets: int) -> tf.RaggedTensor:
    """An id for every combination of one id of each part, by hash.

    Args:
        parts: ids (batch,), (batch, values) or (batch, events, values), dense or ragged; 0 is none.
        buckets: how many ids there are.

    Returns:
        (batch, combinations) ids 1 … buckets.
    """
    return 1 + tf.ragged.cross_hashed([_row_ids(part) for part in parts], buckets)


def _row_ids(value: Any) -> tf.RaggedTensor:
    """All ids of each example, (batch, values), without the missing ones."""
    if not isinstance(value, tf.RaggedTensor):
        rows = tf.reshape(value, [tf.shape(value)[0], -1])
        value = tf.RaggedTensor.from_tensor(rows, row_splits_dtype=tf.int64)
    while value.ragged_rank > 1:
        value = value.merge_dims(1, 2)
    return tf.ragged.boolean_mask(value, value > 0)
