"""First-order terms."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from tfrec.features import Features
from tfrec.layers.embedding import mean_of_values


class Linear(keras.layers.Layer):
    """w0 + Σ w_i x_i over all fields, and over the crosses that the data set declares.

    x_i is 1 for a category, the share of each value where there may be many, and the number
    itself for a number.

    Args:
        features: of the data set.
        crosses: whether the crosses take part.

    Call: dict of inputs → (batch,) float32.
    """

    optimizer_group = "linear"

    def __init__(self, features: Features, crosses: bool = True, **kwargs) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.features = features
        self.one_hot = features.categories + (features.crosses if crosses else ())

    def build(self, input_shape) -> None:
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        self.one_hot_weights = {
            feature.name: self.add_weight(
                name=f"weights_{feature.name}",
                shape=(self.features.table(feature.table).size, 1),
                initializer="zeros",
            )
            for feature in self.one_hot
        }
        if self.features.numbers:
            self.number_weights = self.add_weight(
                name="number_weights", shape=(len(self.features.numbers), 1), initializer="zeros"
            )
        super().build(input_shape)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        terms = []
        for feature in self.one_hot:
            ids = inputs[feature.name]
            weights = tf.nn.embedding_lookup(self.one_hot_weights[feature.name], ids)
            weights *= tf.cast(ids != 0, weights.dtype)[..., tf.newaxis]
            terms.append(mean_of_values(weights, ids) if feature.length else weights)
        if self.features.numbers:
            numbers = tf.stack([inputs[f.name] for f in self.features.numbers], axis=-1)
            terms.append(tf.matmul(numbers, self.number_weights))
        return tf.add_n(terms)[:, 0] + self.bias
