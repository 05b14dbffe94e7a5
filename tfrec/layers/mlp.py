"""The multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.activations import activation_layer
from tfrec.layers.dropout import Dropout


class MLP(keras.layers.Layer):
    """Dense layers, each with batch norm (an option), activation and dropout.

    Args:
        hidden: widths.
        activation: `relu`, `dice`, `prelu` or another Keras name.
        dropout: share of the units dropped after each layer.
        batch_norm: normalise before each activation.
        output: width of a last layer without activation; None for no such layer.

    Call: (…, width) → (…, output or hidden[-1]).
    """

    def __init__(
        self,
        hidden: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        output: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.stack: list[keras.layers.Layer] = []
        for width in hidden:
            self.stack.append(keras.layers.Dense(width, kernel_initializer="he_normal"))
            self.stack += after_dense(activation, dropout, batch_norm)
        if output is not None:
            self.stack.append(keras.layers.Dense(output))

    @property
    def last_dense(self) -> keras.layers.Dense | None:
        """The last dense layer; None where there is none."""
        dense = [layer for layer in self.stack if isinstance(layer, keras.layers.Dense)]
        return dense[-1] if dense else None

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        value = inputs
        for layer in self.stack:
            value = layer(value, training=training)
        return value


def after_dense(activation: str, dropout: float, batch_norm: bool) -> list[keras.layers.Layer]:
    """What follows a dense layer, with the arguments of `MLP`."""
    layers: list[keras.layers.Layer] = []
    if batch_norm:
        layers.append(keras.layers.BatchNormalization(synchronized=True))
    layers.append(activation_layer(activation))
    if dropout:
        layers.append(Dropout(dropout))
    return layers


class ResidualUnit(keras.layers.Layer):
    """relu(x + W_1 relu(W_0 x + b_0) + b_1).

    Source: Shan et al. 2016, Deep Crossing, section 4.3, equation 3.

    Args:
        width: of the inner layer.

    Call: (batch, width of x) → same shape.
    """

    def __init__(self, width: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(width, "relu", kernel_initializer="he_normal")

    def build(self, input_shape) -> None:
        self.outer = keras.layers.Dense(input_shape[-1])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(inputs + self.outer(self.inner(inputs)))
