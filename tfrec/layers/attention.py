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
        return masked_softmax(weights, mask) if self.softmax else weights


class BilinearAttention(keras.layers.Layer):
    """Weights a_t = softmax over time of h_tᵀ W v: states h_t for the candidate v.

    Source: Zhou et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction,
    equation 9.

    Call: states (batch, events, units), candidate (batch, width), mask (batch, events)
    → weights (batch, events), 0 at padding.
    """

    def build(self, input_shape) -> None:
        self.map = keras.layers.Dense(input_shape[-1], use_bias=False)
        super().build(input_shape)

    def call(self, states: tf.Tensor, candidate: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return masked_softmax(tf.einsum("btu,bu->bt", states, self.map(candidate)), mask)


class PairAttention(keras.layers.Layer):
    """Weights of pairs p: a softmax over all pairs of hᵀ relu(W p + b).

    Source: Xiao et al. 2017, Attentional Factorization Machines, equation 4.

    Args:
        width: rows of W.

    Call: (batch, pairs, dim) → (batch, pairs).
    """

    def __init__(self, width: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(width, "relu", kernel_initializer="he_normal")
        self.score = keras.layers.Dense(1, use_bias=False)

    def call(self, pairs: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(self.score(self.inner(pairs))[..., 0], axis=1)


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Softmax over the last axis where the mask is True; 0 elsewhere, and 0 where it never is."""
    lowest = tf.constant(scores.dtype.min, scores.dtype)
    weights = tf.nn.softmax(tf.where(mask, scores, lowest), axis=-1)
    return tf.where(mask, weights, tf.zeros_like(weights))
