"""Neural factorization machine."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import BiInteraction
from tfrec.layers.linear import Linear
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class NFM(RankingModel):
    """z = w0 + Σ w_i x_i + MLP(Σ_{i<j} x_i v_i ∘ x_j v_j).

    Source: He & Chua 2017, Neural Factorization Machines for Sparse Predictive Analytics,
    equations 2 to 7.

    Args:
        features: of the data set.
        dim: length of the vectors (64 in the paper).
        hidden: widths of the MLP (one layer of 64 in the paper).
        activation: of the MLP.
        dropout: of the pooled vector, and after each layer of the MLP.
        batch_norm: of the pooled vector, and in the MLP.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (64,),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.interaction = BiInteraction()
        self.norm = keras.layers.BatchNormalization(synchronized=True) if batch_norm else None
        self.dropout = Dropout(dropout)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        pooled = self.interaction(self.embeddings(inputs))
        if self.norm:
            pooled = self.norm(pooled, training=training)
        pooled = self.dropout(pooled, training=training)
        deep = self.mlp(pooled, training=training)[:, 0]
        return self.linear(inputs) + tf.cast(deep, tf.float32)
