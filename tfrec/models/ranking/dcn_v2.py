"""DCN V2."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.interactions import MatrixCross
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DCNv2(RankingModel):
    """z = wᵀ [cross, MLP] + b (parallel) or wᵀ MLP(cross) + b (stacked), over x_0 = [v, numbers].

    A cross layer is x_{l+1} = x_0 ∘ (W_l x_l + b_l) + x_l, W_l full, of low rank, or a gated
    mixture of matrices of low rank.

    Source: Wang et al. 2021, DCN V2: Improved Deep & Cross Network and Practical Lessons for
    Web-scale Learning to Rank Systems, section 3, equations 1 to 5.

    Args:
        features: of the data set.
        dim: length of the vectors.
        layers: number of cross layers.
        rank: of the matrices; None for full ones.
        experts: matrices of low rank that are mixed.
        structure: `parallel` or `stacked`.
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
        layers: Width = 3,
        rank: Width | None = None,
        experts: Width = 1,
        structure: Literal["parallel", "stacked"] = "parallel",
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.structure = structure
        self.embeddings = Embeddings(features, dim)
        self.crosses = [MatrixCross(rank, experts) for _ in range(layers)]
        self.mlp = MLP(hidden, activation, dropout, batch_norm)
        self.joined = keras.layers.Dense(1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        first = value = field_vectors(self.embeddings(inputs), inputs, self.features)
        for cross in self.crosses:
            value = cross(first, value)
        if self.structure == "stacked":
            return self.joined(self.mlp(value, training=training))[:, 0]
        deep = self.mlp(first, training=training)
        return self.joined(tf.concat([value, deep], axis=1))[:, 0]
