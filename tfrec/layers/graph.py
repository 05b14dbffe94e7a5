"""Graphs whose nodes are fields."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras


class GraphInteraction(keras.layers.Layer):
    """Selects edges between fields, then gathers the interactions along them.

    An edge has the weight p_ij = σ(w_2ᵀ relu(W_1 (e_i ∘ e_j) + b_1) + b_2); a field keeps its
    largest m edges. Each head gathers relu(Σ_j α_ij p_ij W (e_i ∘ e_j)) over the edges kept, with
    α_ij a softmax over them of leaky_relu(aᵀ W (e_i ∘ e_j)). The heads side by side are mapped to
    `dim` and added to the field's own vector.

    Source: Li et al. 2021, GraphFM, sections 3.3.1 and 3.3.2.

    Args:
        dim: length of the vectors.
        neighbours: edges m that a field keeps.
        heads: number of heads; they divide dim.

    Call: (batch, fields, dim) → same shape. Memory: batch × fields² × dim.

    Raises:
        ValueError: the heads do not divide dim.
    """

    def __init__(self, dim: int, neighbours: int, heads: int, **kwargs) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide dim {dim}")
        self.dim, self.neighbours, self.heads = dim, neighbours, heads
        self.selection = keras.layers.Dense(dim, "relu", kernel_initializer="he_normal")
        self.selected = keras.layers.Dense(1, "sigmoid")
        self.values = keras.layers.Dense(dim, use_bias=False)
        self.joined = keras.layers.Dense(dim, use_bias=False)

    def build(self, input_shape) -> None:
        shape = (self.heads, self.dim // self.heads)
        self.attention = self.add_weight(name="attention", shape=shape)
        super().build(input_shape)

    def call(self, fields: tf.Tensor) -> tf.Tensor:
        count = fields.shape[1]
        pairs = fields[:, :, tf.newaxis] * fields[:, tf.newaxis]
        weights = self.selected(self.selection(pairs))[..., 0]
        # Exactly m of them, also where many are equal, as where relu is 0 for all.
        strongest = tf.math.top_k(weights, min(self.neighbours, count))
        kept = tf.gather(pairs, strongest.indices, batch_dims=2)  # (batch, fields, m, dim)
        shape = [-1, count, kept.shape[2], self.heads, self.dim // self.heads]
        values = tf.reshape(self.values(kept), shape)
        scores = tf.nn.leaky_relu(tf.einsum("bimhd,hd->bimh", values, self.attention))
        shares = tf.nn.softmax(scores, axis=2) * strongest.values[..., tf.newaxis]
        gathered = tf.nn.relu(tf.einsum("bimh,bimhd->bihd", shares, values))
        return fields + self.joined(tf.reshape(gathered, [-1, count, self.dim]))
