"""Deep & Cross Network."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.interactions import VectorCross
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class DCN(RankingModel):
    """z = wᵀ [cross, MLP] + b, both over x_0 = [v_1, …, v_n, numbers].

    A cross layer is x_{l+1} = x_0 (x_lᵀ w_l) + b_l + x_l.

    Source: Wang et al. 2017, Deep & Cross Network for Ad Click Predictions, equations 1 to 5.

    Args:
        features: of the data set.
        dim: length of the vectors.
        layers: number of cross layers (6 in the paper).
        hidden: widths of the MLP (1024, 1024 in the paper).
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = merge(
        SMALL_DATA,
        {"optimizers": {"embedding": {"learning_rate": 3e-4, "l2": 3e-3}}},
    )

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        layers: Width = 3,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.crosses = [VectorCross() for _ in range(layers)]
        self.mlp = MLP(hidden, activation, dropout, batch_norm)
        self.joined = keras.layers.Dense(1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        first = value = field_vectors(self.embeddings(inputs), inputs, self.features)
        for cross in self.crosses:
            value = cross(first, value)
        deep = self.mlp(first, training=training)
        return self.joined(tf.concat([value, deep], axis=1))[:, 0]
