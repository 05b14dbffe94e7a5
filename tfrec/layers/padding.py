"""Sequences of many lengths in one batch."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def short_and_long(states: Callable[[tf.Tensor], tf.Tensor], ids: tf.Tensor) -> tf.Tensor:
    """What `states` gives, computed for short sequences and for long ones apart.

    Most sequences are far shorter than the longest of their batch, and a padded step costs what a
    real one costs. The two parts are cut so that there is as little padding as can be.

    Args:
        states: (n, steps) ids → (n, steps, width); no sequence has a part in another's.
        ids: (batch, steps), 0 behind the last one of each sequence.

    Returns:
        (batch, steps, width); zero at steps that were cut.
    """
    lengths = tf.math.count_nonzero(ids, axis=1, dtype=tf.int32)
    longest = tf.maximum(tf.reduce_max(lengths), 1)
    cuts = tf.range(1, longest + 1)
    short = tf.math.count_nonzero(lengths[:, tf.newaxis] <= cuts, axis=0, dtype=tf.int32)
    computed = short * cuts + (tf.size(lengths) - short) * longest
    cut = cuts[tf.argmin(computed)]
    rows, parts = [], []
    for chosen, length in ((lengths <= cut, cut), (lengths > cut, longest)):
        rows.append(tf.where(chosen)[:, 0])
        part = states(tf.gather(ids, rows[-1])[:, :length])
        parts.append(tf.pad(part, [[0, 0], [0, tf.shape(ids)[1] - length], [0, 0]]))
    return tf.dynamic_stitch([tf.cast(r, tf.int32) for r in rows], parts)
