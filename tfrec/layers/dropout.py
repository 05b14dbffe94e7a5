"""Dropout whose masks are part of the state of a run."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.random import RandomLayer


@keras.utils.register_keras_serializable("tfrec")
class Dropout(RandomLayer):
    """Sets a share of the values to 0 in training, and scales the others up.

    Source: Srivastava et al. 2014, Dropout, section 4.

    Args:
        rate: share of the values that are dropped.

    Call: any shape → same shape.
    """

    def __init__(self, rate: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, self.next_seed(training))

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate}
