"""Deep learning recommendation model."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings
from tfrec.layers.interactions import inner_products
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DLRM(RankingModel):
    """z = MLP_top([d, ⟨e_i, e_j⟩ for i < j]), d = MLP_bottom(numbers) one of the vectors e.

    The products are those of all n + 1 vectors without the diagonal. A data set without numbers has
    no bottom MLP and no d.

    Source: Naumov et al. 2019, Deep Learning Recommendation Model for Personalization and
    Recommendation Systems, section 2.

    Args:
        features: of the data set.
        dim: length of the vectors (16 in the paper's Criteo runs).
        bottom: widths of the bottom MLP before its last layer of `dim` (512, 256, 64 in the paper).
        hidden: widths of the top MLP (512, 256 in the paper).
        activation: of both.
        dropout: after each layer of the top MLP.
        batch_norm: in both.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        bottom: Widths = (64,),
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.bottom = MLP([*bottom, dim], activation, batch_norm=batch_norm)
        self.top = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [vectors[feature.name] for feature in self.features.categories]
        dense = []
        if self.features.numbers:
            numbers = tf.stack([inputs[f.name] for f in self.features.numbers], axis=1)
            dense = [self.bottom(numbers, training=training)]
        products = inner_products(tf.stack(dense + parts, axis=1))
        return self.top(tf.concat([*dense, products], axis=1), training=training)[:, 0]
