"""Graph factorization machine."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.graph import GraphInteraction
from tfrec.layers.linear import Linear
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class GraphFM(RankingModel):
    """z = w0 + Σ w_i x_i + Σ_k p_kᵀ mean_i(e_i^k): fields as nodes, edges selected layer by layer.

    Source: Li et al. 2021, GraphFM: Graph Factorization Machines for Feature Interaction Modeling,
    section 3 (interaction selection, interaction aggregation, scoring over the layers' nodes).

    Args:
        features: of the data set.
        dim: length of the vectors (16 in the paper).
        neighbours: edges that a field keeps, layer by layer; at most the number of fields.
        heads: attention heads of a layer, side by side.
        dropout: of the nodes after every layer.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: a layer's pairs take batch × fields² × dim numbers.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        neighbours: Widths = (20, 10),
        heads: Width = 2,
        dropout: Share = 0.1,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim, stddev=0.1)
        self.graph = [GraphInteraction(dim, most, heads) for most in neighbours]
        self.dropout = [Dropout(dropout) for _ in neighbours]
        self.scores = [keras.layers.Dense(1, use_bias=False) for _ in range(len(neighbours) + 1)]

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        nodes = self.embeddings(inputs)
        layers = [nodes]
        for graph, dropout in zip(self.graph, self.dropout, strict=True):
            nodes = dropout(graph(nodes), training=training)
            layers.append(nodes)
        terms = [
            score(tf.reduce_mean(nodes, axis=1))[:, 0]
            for score, nodes in zip(self.scores, layers, strict=True)
        ]
        return self.linear(inputs) + tf.cast(tf.add_n(terms), tf.float32)
