"""Attentional factorization machine."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Share, Width
from tfrec.features import Features
from tfrec.layers.attention import PairAttention
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import pair_products
from tfrec.layers.linear import Linear
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class AFM(RankingModel):
    """z = w0 + Σ w_i x_i + pᵀ Σ_{i<j} a_ij (v_i ∘ v_j) x_i x_j.

    The attention a is a softmax over all pairs of hᵀ relu(W (v_i ∘ v_j) x_i x_j + b).

    Source: Xiao et al. 2017, Attentional Factorization Machines, equations 3 to 6.

    Args:
        features: of the data set.
        dim: length of the vectors (256 in the paper).
        attention: rows of W.
        dropout: of the pooled vector.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: the pairs take batch × fields² / 2 × dim numbers.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        attention: Width = 16,
        dropout: Share = 0.3,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.attention = PairAttention(attention)
        self.dropout = Dropout(dropout)
        self.projection = keras.layers.Dense(1, use_bias=False)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        pairs = pair_products(self.embeddings(inputs))
        pooled = tf.einsum("bp,bpk->bk", self.attention(pairs), pairs)
        pooled = self.dropout(pooled, training=training)
        return self.linear(inputs) + tf.cast(self.projection(pooled)[:, 0], tf.float32)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Weights of the pairs of fields, (batch, pairs): (1, 2), (1, 3), …, categories first."""
        return {"attention": self.attention(pair_products(self.embeddings(inputs)))}
