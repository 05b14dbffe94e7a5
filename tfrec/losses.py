"""Losses, all from logits, masked where a label is missing."""

from __future__ import annotations

import tensorflow as tf

from tfrec.features import Label


def task_loss(
    label: Label, values: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loss of every example, and its weight: 0 where the label is missing (NaN).

    Args:
        label: the task; binary cross-entropy from logits, or squared error for a regression.
        values: (batch,) labels.
        logits: (batch,) float32.
        weights: (batch,) weights of the examples.

    Returns:
        (batch,) losses and (batch,) weights.
    """
    known = tf.math.is_finite(values)
    values = tf.where(known, values, tf.zeros_like(values))
    if label.task == "binary":
        losses = tf.nn.sigmoid_cross_entropy_with_logits(values, logits)
    else:
        losses = tf.math.squared_difference(values, logits)
    return losses, tf.where(known, weights, tf.zeros_like(weights))


def global_mean(losses: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """This replica's share of the weighted mean over the batches of all replicas.

    The shares add up to the mean, as their gradients do, however unequal the replicas' batches.
    """
    total = tf.reduce_sum(weights)
    context = tf.distribute.get_replica_context()
    if context and context.num_replicas_in_sync > 1:
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, total)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total)
