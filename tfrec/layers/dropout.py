"""Dropout whose masks are part of the state of a run."""

from __future__ import annotations

import random

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("tfrec")
class Dropout(keras.layers.Layer):
    """Sets a share of the values to 0 in training, and scales the others up.

    Keras' own layer draws from a state that no checkpoint holds, so that a resumed run would see
    other masks. Here a mask is a function of a seed, the number of calls so far (both in a
    variable) and the replica.

    Source: Srivastava et al. 2014, Dropout, section 4.

    Args:
        rate: share of the values that are dropped.

    Call: any shape → same shape.
    """

    def __init__(self, rate: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.rate = rate

    def build(self, input_shape) -> None:
        self.state = self.add_weight(  # seed and number of calls
            name="state",
            shape=(2,),
            dtype=tf.int64,
            initializer=keras.initializers.Constant([random.getrandbits(31), 0]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        self.state.assign_add([0, 1])
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group if context else 0, tf.int64)
        seed = tf.convert_to_tensor(self.state) + tf.stack([replica * 2**32, 0])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate}
