"""Activations that are layers: they have weights."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("tfrec")
class Dice(keras.layers.Layer):
    """f(s) = p(s) s + (1 − p(s)) α s with p(s) = σ((s − E[s]) / √(Var[s] + ε)): data-adaptive.

    Mean and variance are per channel, of the whole batch over all replicas in training and moving
    ones otherwise; α is learned per channel and begins at 0. An empty batch changes nothing.

    Source: Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction, section 5.3,
    equation 5.

    Args:
        epsilon: added to the variance.
        momentum: of the moving mean and variance.

    Call: (…, channels) → same shape.
    """

    def __init__(self, epsilon: float = 1e-8, momentum: float = 0.99, **kwargs) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.momentum = epsilon, momentum

    def build(self, input_shape) -> None:
        channels = input_shape[-1:]
        moving = {
            "dtype": tf.float32,
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
            "experimental_autocast": False,
        }
        self.slope = self.add_weight(name="slope", shape=channels, initializer="zeros")
        self.mean = self.add_weight(name="mean", shape=channels, initializer="zeros", **moving)
        self.variance = self.add_weight(
            name="variance", shape=channels, initializer="ones", **moving
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        values = tf.cast(inputs, tf.float32)
        mean, variance = self._batch_moments(values) if training else (self.mean, self.variance)
        share = tf.sigmoid((values - mean) * tf.math.rsqrt(variance + self.epsilon))
        share = tf.cast(share, inputs.dtype)
        return inputs * (share + (1 - share) * self.slope)

    def _batch_moments(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(values, [-1, values.shape[-1]])
        count = tf.cast(tf.shape(rows)[0], tf.float32)
        sums = [count, tf.reduce_sum(rows, axis=0), tf.reduce_sum(tf.square(rows), axis=0)]
        context = tf.distribute.get_replica_context()
        if context and context.num_replicas_in_sync > 1:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        count, total, squares = sums
        mean = total / tf.maximum(count, 1)
        variance = tf.maximum(squares / tf.maximum(count, 1) - tf.square(mean), 0)
        rate = tf.where(count > 0, 1 - self.momentum, 0.0)
        self.mean.assign_add(rate * (mean - self.mean))
        self.variance.assign_add(rate * (variance - self.variance))
        return mean, variance

    def get_config(self) -> dict:
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum}


def activation_layer(name: str) -> keras.layers.Layer:
    """A new activation layer: `dice`, `prelu` (a slope per channel) or a Keras name."""
    if name == "dice":
        return Dice()
    if name == "prelu":
        return ChannelPReLU()
    return keras.layers.Activation(name)


@keras.utils.register_keras_serializable("tfrec")
class ChannelPReLU(keras.layers.Layer):
    """max(s, 0) + α min(s, 0) with a learned α per channel, shared by all other axes.

    Source: He et al. 2015, Delving Deep into Rectifiers, equation 1.

    Call: (…, channels) → same shape.
    """

    def build(self, input_shape) -> None:
        self.slope = self.add_weight(
            name="slope", shape=input_shape[-1:], initializer=keras.initializers.Constant(0.25)
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.maximum(inputs, 0) + self.slope * tf.minimum(inputs, 0)
