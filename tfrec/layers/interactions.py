"""Interactions between the vectors of fields."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("tfrec")
class BiInteraction(keras.layers.Layer):
    """Σ_{i<j} v_i ∘ v_j as ½ [(Σ v_i)² − Σ v_i²], in time linear in the number of fields.

    Source: Rendle 2010, Factorization Machines, lemma 3.1; as a vector: He & Chua 2017, Neural
    Factorization Machines for Sparse Predictive Analytics, equation 4.

    Call: (batch, fields, dim) → (batch, dim); its sum over dim is Σ_{i<j} ⟨v_i, v_j⟩. Memory: batch
    × fields × dim.
    """

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        return _bi_interaction(fields)


@tf.custom_gradient
def _bi_interaction(fields: tf.Tensor) -> tuple[tf.Tensor, Any]:
    total = tf.reduce_sum(fields, axis=1)
    pooled = 0.5 * (tf.square(total) - tf.reduce_sum(tf.square(fields), axis=1))

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # v_i has the gradient Σ_{j≠i} v_j. TensorFlow's own form of it tiles every sum, which takes
        # longer than all else in the step but the matrix products.
        return upstream[:, tf.newaxis] * (total[:, tf.newaxis] - fields)

    return pooled, gradient


def pair_places(fields: int) -> tuple[list[int], list[int]]:
    """The first and the second field of every pair i < j, in order."""
    pairs = list(itertools.combinations(range(fields), 2))
    return [i for i, _ in pairs], [j for _, j in pairs]


def pair_products(fields: tf.Tensor) -> tf.Tensor:
    """v_i ∘ v_j of every pair i < j: (batch, fields, dim) → (batch, pairs, dim)."""
    first, second = pair_places(fields.shape[1])
    return tf.gather(fields, first, axis=1) * tf.gather(fields, second, axis=1)


def upper_triangle(matrices: tf.Tensor) -> tf.Tensor:
    """The elements above the diagonal: (batch, fields, fields) → (batch, pairs)."""
    size = matrices.shape[1]
    places = [i * size + j for i, j in zip(*pair_places(size), strict=True)]
    return tf.gather(tf.reshape(matrices, [-1, size * size]), places, axis=1)


def inner_products(fields: tf.Tensor) -> tf.Tensor:
    """⟨v_i, v_j⟩ of every pair i < j: (batch, fields, dim) → (batch, pairs).

    By one matrix product; memory: batch × fields².
    """
    return upper_triangle(tf.matmul(fields, fields, transpose_b=True))


def field_aware_products(vectors: tf.Tensor) -> tf.Tensor:
    """⟨v_{i,j}, v_{j,i}⟩ of every pair i < j: (batch, fields, fields, dim) → (batch, pairs).

    Memory: batch × fields² × dim.
    """
    return upper_triangle(_mutual_products(vectors))


@tf.custom_gradient
def _mutual_products(vectors: tf.Tensor) -> tuple[tf.Tensor, Any]:
    products = tf.reduce_sum(vectors * tf.transpose(vectors, [0, 2, 1, 3]), axis=3)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # TensorFlow's own form passes over batch × fields² × dim numbers three times as often.
        both = upstream + tf.transpose(upstream, [0, 2, 1])
        return both[..., tf.newaxis] * tf.transpose(vectors, [0, 2, 1, 3])

    return products, gradient


class CIN(keras.layers.Layer):
    """Compressed interaction network: X^k_h = Σ_ij W^{k,h}_ij (X^{k−1}_i ∘ X^0_j).

    Source: Lian et al. 2018, xDeepFM, section 3.2, equations 6 and 8.

    Args:
        maps: feature maps H_k of every layer.
        split_half: half of a layer's maps go to the next layer and the others to the output; all
            go to both without it.
        activation: of the maps.

    Call: X^0 (batch, fields, dim) → the maps of all layers, each summed over dim: (batch, maps).
    Memory: a layer's products take batch × H_{k−1} × fields × dim numbers, in training twice.
    """

    def __init__(
        self, maps: Sequence[int], split_half: bool = True, activation: str = "linear", **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.maps, self.split_half = list(maps), split_half
        self.activation = keras.activations.get(activation)

    def build(self, input_shape) -> None:
        fields = before = input_shape[1]
        self.kernels = []
        for index, maps in enumerate(self.maps):
            kernel = self.add_weight(name=f"kernel_{index}", shape=(before * fields, maps))
            self.kernels.append(kernel)
            before = maps - maps // 2 if self.split_half and index < len(self.maps) - 1 else maps
        super().build(input_shape)

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        first = before = tf.transpose(fields, [0, 2, 1])  # (batch, dim, fields)
        outputs = []
        for index, kernel in enumerate(self.kernels):
            products = before[..., tf.newaxis] * first[:, :, tf.newaxis]
            products = tf.reshape(products, [-1, first.shape[1], kernel.shape[0]])
            maps = self.activation(tf.matmul(products, kernel))
            before = output = maps
            if self.split_half and index < len(self.kernels) - 1:
                half = kernel.shape[1] // 2
                output, before = maps[..., :half], maps[..., half:]
            outputs.append(tf.reduce_sum(output, axis=1))
        return tf.concat(outputs, axis=1)


class VectorCross(keras.layers.Layer):
    """One cross layer of a vector: x_{l+1} = x_0 (x_lᵀ w) + b + x_l.

    Source: Wang et al. 2017, Deep & Cross Network for Ad Click Predictions, equation 3.

    Call: x_0 and x_l, (batch, width) each → (batch, width).
    """

    def build(self, input_shape) -> None:
        width = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(width, 1))
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        super().build(input_shape)

    def call(self, first: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        return first * tf.matmul(value, self.kernel) + self.bias + value


class MatrixCross(keras.layers.Layer):
    """One cross layer of a matrix: x_{l+1} = x_0 ∘ (W x_l + b) + x_l.

    With a rank, W is U Vᵀ. With several experts, x_{l+1} = Σ_i G_i(x_l) x_0 ∘ (U_i g(C_i g(V_iᵀ
    x_l)) + b) + x_l, where the gates G are a softmax of a linear map and g is tanh.

    Source: Wang et al. 2021, DCN V2, equations 1 to 4.

    Args:
        rank: of W; None for the full matrix.
        experts: low-rank matrices that are mixed; 1 for none of that.

    Call: x_0 and x_l, (batch, width) each → (batch, width).

    Raises:
        ValueError: experts without a rank.
    """

    def __init__(self, rank: int | None = None, experts: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        if experts > 1 and rank is None:
            raise ValueError("several experts need a rank")
        self.rank, self.experts = rank, experts

    def build(self, input_shape) -> None:
        width, rank, experts = input_shape[-1], self.rank, self.experts
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        if rank is None:
            self.kernel = self.add_weight(name="kernel", shape=(width, width))
        else:
            self.v = self.add_weight(name="v", shape=(experts, width, rank))
            self.u = self.add_weight(name="u", shape=(experts, rank, width))
        if experts > 1:
            self.c = self.add_weight(name="c", shape=(experts, rank, rank))
            self.gate = self.add_weight(name="gate", shape=(width, experts))
        super().build(input_shape)

    def call(self, first: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        if self.rank is None:
            return first * (tf.matmul(value, self.kernel) + self.bias) + value
        inner = tf.einsum("bw,ewr->ebr", value, self.v)
        if self.experts > 1:
            inner = tf.tanh(tf.matmul(tf.tanh(inner), self.c))
        mapped = first * (tf.matmul(inner, self.u) + self.bias)  # (experts, batch, width)
        if self.experts == 1:
            return mapped[0] + value
        gates = tf.nn.softmax(tf.matmul(value, self.gate), axis=-1)
        return tf.einsum("be,ebw->bw", gates, mapped) + value
