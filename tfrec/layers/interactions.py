"""Interactions between the vectors of the fields."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras


class BiInteraction(keras.layers.Layer):
    """Σ_{i<j} (x_i v_i) ∘ (x_j v_j) as one vector, in time linear in the number of fields.

    By ½ [(Σ x_i v_i)² − Σ (x_i v_i)²], element by element. Its sum over the dimensions is the
    second-order term of a factorization machine.

    Source: Rendle 2010, Factorization Machines, lemma 3.1; He & Chua 2017, Neural Factorization
    Machines, equation 3.

    Call: (batch, fields, dim) → (batch, dim). Memory: batch × fields × dim.
    """

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        square_of_sum = tf.square(tf.reduce_sum(fields, axis=1))
        sum_of_squares = tf.reduce_sum(tf.square(fields), axis=1)
        return 0.5 * (square_of_sum - sum_of_squares)
