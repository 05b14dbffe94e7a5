"""Transformer blocks over histories."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.dropout import Dropout


class Attention(keras.layers.MultiHeadAttention):
    """Keras' multi-head attention; what it drops of the weights is part of the state of a run."""

    def _build_attention(self, rank: int) -> None:
        super()._build_attention(rank)
        if self._dropout:
            self._dropout_layer = Dropout(self._dropout)


class TransformerBlock(keras.layers.Layer):
    """s = LN(x + MultiHead(x)), then LN(s + W_2 act(W_1 s + b_1) + b_2), with dropout on both sums.

    With `pre_norm` each part is normalised at its input: s = x + MultiHead(LN(x)), then
    s + W_2 act(W_1 LN(s) + b_1) + b_2.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3.1; as Chen et al. 2019,
    Behavior Sequence Transformer, equations 2 to 5 use it. `pre_norm`: Kang & McAuley 2018,
    Self-Attentive Sequential Recommendation, section III-C.

    Args:
        heads: of the attention.
        inner: width of W_1.
        dropout: of both parts.
        activation: of the inner layer.
        causal: a step sees no later one.
        pre_norm: normalise the inputs of the parts, not the sums.
        attention_dropout: of the weights of the attention.
        stddev: of the initial matrices, normal without values beyond two of it; of Glorot & Bengio
            2010 if None.

    Call: (batch, steps, width) and mask (batch, steps) → same shape. No step sees a padded one.
    Memory: batch × heads × steps².
    """

    def __init__(
        self,
        heads: int,
        inner: int,
        dropout: float = 0.0,
        activation: str = "leaky_relu",
        causal: bool = False,
        pre_norm: bool = False,
        attention_dropout: float = 0.0,
        stddev: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.causal, self.pre_norm = heads, causal, pre_norm
        self.attention_dropout, self.stddev = attention_dropout, stddev
        self.inner = keras.layers.Dense(inner, activation, kernel_initializer=self._initializer())
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self.dropouts = [Dropout(dropout) for _ in range(2)]

    def build(self, input_shape) -> None:
        width = input_shape[-1]
        self.attention = Attention(
            self.heads,
            max(width // self.heads, 1),
            dropout=self.attention_dropout,
            kernel_initializer=self._initializer(),
        )
        self.outer = keras.layers.Dense(width, kernel_initializer=self._initializer())
        super().build(input_shape)

    def _initializer(self) -> keras.initializers.Initializer:
        if self.stddev is None:
            return keras.initializers.GlorotUniform()
        return keras.initializers.TruncatedNormal(stddev=self.stddev)

    def call(self, inputs: tf.Tensor, mask: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        def attended(value: tf.Tensor) -> tf.Tensor:
            return self.attention(
                value,
                value,
                attention_mask=mask[:, tf.newaxis],
                use_causal_mask=self.causal,
                training=training,
            )

        def fed(value: tf.Tensor) -> tf.Tensor:
            return self.outer(self.inner(value))

        value = inputs
        for part, norm, dropout in zip((attended, fed), self.norms, self.dropouts, strict=True):
            if self.pre_norm:
                value += dropout(part(norm(value)), training=training)
            else:
                value = norm(value + dropout(part(value), training=training))
        return value

    def attended(self, value: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """(batch, steps, steps) float32: what each step attends to, means of the heads' weights."""
        value = self.norms[0](value) if self.pre_norm else value
        _, weights = self.attention(
            value,
            value,
            attention_mask=mask[:, tf.newaxis],
            use_causal_mask=self.causal,
            return_attention_scores=True,
        )
        weights = tf.reduce_mean(tf.cast(weights, tf.float32), axis=1)
        return weights * tf.cast(mask, tf.float32)[:, tf.newaxis]


def attended_in_last(
    blocks: Sequence[TransformerBlock], value: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """(batch, steps, steps) what each step attends to in the last block, 0 at padding.

    Args:
        blocks: one on the other.
        value: (batch, steps, width) what goes into the first one.
        mask: (batch, steps).
    """
    *others, last = blocks
    for block in others:
        value = block(value, mask, training=False)
    return last.attended(value, mask)


class Positions(keras.layers.Layer):
    """A learned vector for each place in a sequence.

    Args:
        length: last place; those behind it share its vector.
        dim: length of the vectors.

    Call: places (…,), from 0 → (…, dim).
    """

    def __init__(self, length: int, dim: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.length, self.dim = length, dim

    def build(self, input_shape) -> None:
        self.vectors = self.add_weight(
            name="vectors",
            shape=(self.length + 1, self.dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        super().build(input_shape)

    def call(self, places: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.vectors, tf.clip_by_value(places, 0, self.length))


def distances(mask: tf.Tensor) -> tf.Tensor:
    """How many events ago every event was, 1 for the newest; not above 0 at padding.

    Source: Chen et al. 2019, Behavior Sequence Transformer, section 2.1.1, with the order of the
    events in place of their times.

    Args:
        mask: (batch, events), real events first.

    Returns:
        (batch, events).
    """
    count = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1, keepdims=True)
    return count - tf.range(tf.shape(mask)[1])


def newest_first(values: tf.Tensor, mask: tf.Tensor, length: int) -> tf.Tensor:
    """The newest `length` events, newest first, zero where there are fewer.

    Args:
        values: (batch, events, width).
        mask: (batch, events), real events first.
        length: of the result.

    Returns:
        (batch, length, width).
    """
    counts = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    values *= tf.cast(mask, values.dtype)[..., tf.newaxis]
    turned = tf.reverse_sequence(values, counts, seq_axis=1)[:, :length]
    turned = tf.pad(turned, [[0, 0], [0, length - tf.shape(turned)[1]], [0, 0]])
    return tf.ensure_shape(turned, [None, length, values.shape[-1]])
