"""First-order terms."""

from __future__ import annotations

import itertools

import tensorflow as tf
import tf_keras as keras

from tfrec.features import Features
from tfrec.layers.embedding import mean_of_rows, rows


class FirstOrder(keras.layers.Layer):
    """The terms w_i x_i of all fields, and of the crosses that the data set declares.

    x_i is 1 for a category, the share of each value where there may be many, and the number
    itself for a number.

    Args:
        features: of the data set.
        crosses: whether the crosses take part.

    Call: dict of inputs → (batch, terms) float32, categories, then crosses, then numbers.
    """

    optimizer_group = "linear"

    def __init__(self, features: Features, crosses: bool = True, **kwargs) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.features = features
        self.one_hot = features.categories + (features.crosses if crosses else ())

    def build(self, input_shape) -> None:
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
            weights = self.one_hot_weights[feature.name]
            terms.append((mean_of_rows if feature.length else rows)(weights, inputs[feature.name]))
        if self.features.numbers:
            numbers = tf.stack([inputs[f.name] for f in self.features.numbers], axis=-1)
            terms.append(numbers * self.number_weights[:, 0])
        return tf.concat(terms, axis=1)


class Linear(keras.layers.Layer):
    """w0 + Σ w_i x_i: the terms of `FirstOrder` and a bias.

    Args:
        features: of the data set.
        crosses: whether the crosses take part.

    Call: dict of inputs → (batch,) float32.
    """

    optimizer_group = "linear"

    def __init__(self, features: Features, crosses: bool = True, **kwargs) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.terms = FirstOrder(features, crosses)

    def build(self, input_shape) -> None:
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(self.terms(inputs), axis=1) + self.bias


class HashedPairs(keras.layers.Layer):
    """Σ_{i<j} w_{hash(i,j)} x_i x_j over the values of all pairs of fields.

    Values of different fields make a pair: (field, id) and (field, id). Where a field may have
    many values, each counts by its share.

    Source: Chang et al. 2010, Training and Testing Low-degree Polynomial Data Mappings via Linear
    SVM, section 4; hashed as in Juan et al. 2016, Field-aware Factorization Machines for CTR
    Prediction, equation 2.

    Args:
        features: of the data set.
        buckets: rows of the weight table, which all pairs share.

    Call: dict of inputs → (batch,) float32. Memory: 24 bytes × batch × pairs of values.
    """

    optimizer_group = "linear"

    def __init__(self, features: Features, buckets: int, **kwargs) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.features, self.buckets = features, buckets
        widths = [feature.length or 1 for feature in features.categories]
        widths += [1] * len(features.numbers)
        self.field_of_slot = [field for field, width in enumerate(widths) for _ in range(width)]
        pairs = itertools.combinations(range(len(self.field_of_slot)), 2)
        field = self.field_of_slot
        self.pairs = [(i, j) for i, j in pairs if field[i] != field[j]]

    def build(self, input_shape) -> None:
        self.table = self.add_weight(name="pairs", shape=(self.buckets, 1), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        ids, values = [], []
        for feature in self.features.categories:
            of_field = inputs[feature.name]
            of_field = of_field if feature.length else of_field[:, tf.newaxis]
            real = tf.cast(of_field != 0, tf.float32)
            count = tf.maximum(tf.reduce_sum(real, axis=1, keepdims=True), 1)
            ids.append(of_field)
            values.append(real / count)
        for feature in self.features.numbers:
            values.append(inputs[feature.name][:, tf.newaxis])
            ids.append(tf.zeros_like(values[-1], tf.int64))
        slots = _mixed(tf.concat(ids, axis=1) + 2**40 * tf.constant(self.field_of_slot, tf.int64))
        values = tf.concat(values, axis=1)
        first, second = [i for i, _ in self.pairs], [j for _, j in self.pairs]
        # Not symmetric, so that (a, b) and (b, a) of two fields with one id space differ.
        keys = _mixed(tf.gather(slots, first, axis=1) * 3 + tf.gather(slots, second, axis=1))
        weights = tf.nn.embedding_lookup(self.table, keys % self.buckets)[..., 0]
        products = tf.gather(values, first, axis=1) * tf.gather(values, second, axis=1)
        return tf.reduce_sum(weights * products, axis=1)


def _mixed(keys: tf.Tensor) -> tf.Tensor:
    """Well-spread int64 of int64, by multiplications that overflow and shifts."""
    for factor in (-0x61C8864680B583EB, -0x4B47D0C5A1A7C3D9):
        keys = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, 29)) * factor
    return tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, 32))
