"""Wide & Deep."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.linear import HashedPairs, Linear
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class WideDeep(RankingModel):
    """z = w_wide · [x, φ(x)] + w_deep · a + b, trained jointly.

    The wide part sees every field as it is and the cross-product transformations φ that the data
    set declares, under FTRL with L1; a is the last layer of an MLP over embeddings, under Adam.
    The logits are added, so that one loss trains both.

    Source: Cheng et al. 2016, Wide & Deep Learning for Recommender Systems, section 3, equation 3.

    Args:
        features: of the data set.
        dim: length of the embeddings (32 in the paper).
        hidden: widths of the MLP (1024, 512, 256 in the paper).
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.
        wide: the cross-products: the declared `crosses`, hashed pairs of all fields (`poly2`), or
            `both`.
        buckets: rows of the table of hashed pairs.

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
        wide: Literal["crosses", "poly2", "both"] = "crosses",
        buckets: Width = 1_000_000,
    ) -> None:
        super().__init__(features)
        self.wide = Linear(features, crosses=wide != "poly2")
        self.pairs = HashedPairs(features, buckets) if wide != "crosses" else None
        self.embeddings = Embeddings(features, dim)
        self.deep = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = field_vectors(self.embeddings(inputs), inputs, self.features)
        deep = self.deep(fields, training=training)[:, 0]
        logits = self.wide(inputs) + tf.cast(deep, tf.float32)
        return logits + self.pairs(inputs) if self.pairs else logits
