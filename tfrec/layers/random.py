"""Randomness that is part of the state of a run."""

from __future__ import annotations

import random

import tensorflow as tf
import tf_keras as keras


class RandomLayer(keras.layers.Layer):
    """A layer that draws random numbers.

    What Keras draws from is a state that no checkpoint holds, so that a resumed run would see other
    numbers. Here they are a function of a seed, the number of draws so far (both in a variable)
    and the replica.
    """

    def build(self, input_shape) -> None:
        self.state = self.add_weight(  # seed and number of draws
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

    def next_seed(self, training: bool | None) -> tf.Tensor:
        """(2,) for TensorFlow's stateless functions, another one at every call in training."""
        if training:
            self.state.assign_add([0, 1])
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group if context else 0, tf.int64)
        return tf.convert_to_tensor(self.state) + tf.stack([replica * 2**32, 0])
