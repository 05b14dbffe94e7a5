"""Deep Crossing."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.mlp import ResidualUnit
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DeepCrossing(RankingModel):
    """z = scoring of residual units over the stacked features.

    Stacking puts the categories' vectors and the numbers side by side; a residual unit is
    relu(x + W_1 relu(W_0 x + b_0) + b_1); scoring is one linear layer.

    Source: Shan et al. 2016, Deep Crossing: Web-Scale Modeling without Manually Crafted
    Combinatorial Features, section 4, equation 3.

    Args:
        features: of the data set.
        dim: length of the vectors.
        hidden: inner widths of the residual units (512, 512, 256, 128, 64 in the paper).
        dropout: after each unit (none in the paper).

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (128, 64),
        dropout: Share = 0.3,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.units = [ResidualUnit(width) for width in hidden]
        self.dropout = [Dropout(dropout) for _ in hidden]
        self.scoring = keras.layers.Dense(1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        value = field_vectors(self.embeddings(inputs), inputs, self.features)
        for unit, dropout in zip(self.units, self.dropout, strict=True):
            value = dropout(unit(value), training=training)
        return self.scoring(value)[:, 0]
