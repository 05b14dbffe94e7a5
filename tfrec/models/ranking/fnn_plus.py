"""FNN without a first step."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import BiInteraction
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class FNNPlus(RankingModel):
    """z = MLP((Σ x_i v_i)² − Σ (x_i v_i)²): an MLP over the interactions as a vector, end to end.

    No first-order term, and no factor ½ (which the MLP's first layer has).

    Source: the end-to-end form of Zhang, Du & Wang 2016, Deep Learning over Multi-field
    Categorical Data, with the interaction of Rendle 2010, lemma 3.1.

    Args:
        features: of the data set.
        dim: length of the vectors.
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
        dim: Width = 16,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = FieldEmbeddings(features, dim)
        self.interaction = BiInteraction()
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        pooled = 2 * self.interaction(self.embeddings(inputs))
        return self.mlp(pooled, training=training)[:, 0]
