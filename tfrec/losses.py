"""Losses, all from logits, masked where a label is missing."""

from __future__ import annotations

import tensorflow as tf

from tfrec.config import LossConfig
from tfrec.features import Label


def task_loss(
    label: Label,
    values: tf.Tensor,
    logits: tf.Tensor,
    weights: tf.Tensor,
    config: LossConfig | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loss of every example, and its weight: 0 where the label is missing (NaN).

    Args:
        label: the task; a regression has the squared error, a binary one what `config` says.
        values: (batch,) labels.
        logits: (batch,) float32.
        weights: (batch,) weights of the examples.
        config: of binary tasks; cross-entropy unless given.

    Returns:
        (batch,) losses and (batch,) weights.
    """
    config = config or LossConfig()
    known = ~tf.math.is_nan(values)
    values = tf.where(known, values, tf.zeros_like(values))
    if label.task == "regression":
        losses = tf.math.squared_difference(values, logits)
    elif config.kind == "focal":
        losses = focal(values, logits, config.gamma, config.alpha)
    else:
        # TensorFlow's weighted form has a wrong gradient at logits of exactly 0.
        losses = tf.nn.sigmoid_cross_entropy_with_logits(values, logits)
        losses *= 1 + (config.pos_weight - 1) * values
        if config.kind == "weighted_logistic":
            weights = tf.where(values > 0, weights, tf.cast(weights > 0, weights.dtype))
    return losses, tf.where(known, weights, tf.zeros_like(weights))


def focal(values: tf.Tensor, logits: tf.Tensor, gamma: float, alpha: float) -> tf.Tensor:
    """−[α (1 − p)^γ y log p + (1 − α) p^γ (1 − y) log(1 − p)], from logits of any size.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, equation 5.
    """
    minus_log_p, minus_log_q = tf.nn.softplus(-logits), tf.nn.softplus(logits)
    positive = alpha * tf.exp(-gamma * minus_log_q) * minus_log_p
    negative = (1 - alpha) * tf.exp(-gamma * minus_log_p) * minus_log_q
    return values * positive + (1 - values) * negative


def global_mean(losses: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """This replica's share of the weighted mean over the batches of all replicas.

    The shares add up to the mean, as their gradients do, however unequal the replicas' batches.

    Args:
        losses: of any shape.
        weights: of the same one.

    Returns:
        () the share, and () 1 where anything has weight; else both are 0, and there is no mean.
    """
    total = tf.reduce_sum(weights)
    context = tf.distribute.get_replica_context()
    if context and context.num_replicas_in_sync > 1:
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, total)
    share = tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total)
    return share, tf.cast(total > 0, share.dtype)
