"""Operation-aware neural network."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldAwareEmbeddings
from tfrec.layers.interactions import field_aware_products
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class ONN(RankingModel):
    """z = MLP([copies, inner products]), with a vector of its own for every operation on a field.

    The operations on field i are its copy, x_i v_{i,i}, and its inner product with every other
    field j, ⟨x_i v_{i,j}, x_j v_{j,i}⟩.

    Source: Yang et al. 2019, Operation-aware Neural Networks for User Response Prediction, section
    3 (also known as NFFM).

    Args:
        features: of the data set.
        dim: length of the vectors; a row of a table has fields × dim numbers.
        hidden: widths of the MLP.
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 4,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = FieldAwareEmbeddings(features, dim)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        _, count, _, dim = vectors.shape
        copies = tf.einsum("biik->bik", vectors)
        products = field_aware_products(vectors)
        signals = [tf.reshape(copies, [-1, count * dim]), products]
        return self.mlp(tf.concat(signals, axis=1), training=training)[:, 0]
