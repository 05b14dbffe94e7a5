"""Attention of a candidate over a history."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.mlp import MLP


class LocalActivationUnit(keras.layers.Layer):
    """Weights a_j = MLP[e_j, v, e_j − v, e_j ∘ v] of the events e_j for the candidate v.

    Source: Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction, section 4.3,
    equation 3 and figure 2. As in the paper the weights are not normalised, so that their sum
    measures the strength of the interest; `softmax` normalises them over the real events.

    Args:
        hidden: widths of the MLP.
        activation: of the MLP.
        softmax: normalise the weights.

    Call: history (batch, events, width), candidate (batch, width), mask (batch, events)
    → weights (batch, events), 0 at padding.
    """

    def __init__(
        self, hidden: Sequence[int], activation: str = "dice", softmax: bool = False, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.mlp = MLP(hidden, activation, output=1)
        self.softmax = softmax

    def call(
        self,
        history: tf.Tensor,
        candidate: tf.Tensor,
        mask: tf.Tensor,
        training: bool | None = None,
    ) -> tf.Tensor:
        # Only real events go through the MLP, so that padding has no part in batch statistics.
        places = tf.where(mask)
        events = tf.gather_nd(history, places)
        candidates = tf.gather(candidate, places[:, 0])
        pairs = [events, candidates, events - candidates, events * candidates]
        scores = self.mlp(tf.concat(pairs, axis=-1), training=training)[:, 0]
        weights = tf.scatter_nd(places, scores, tf.shape(mask, out_type=places.dtype))
        if self.softmax:
            lowest = tf.constant(weights.dtype.min, weights.dtype)
            weights = tf.nn.softmax(tf.where(mask, weights, lowest), axis=-1)
            weights = tf.where(mask, weights, tf.zeros_like(weights))
        return weights
