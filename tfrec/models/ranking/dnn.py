"""Embedding & MLP."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.mlp import MLP
from tfrec.models.base import Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DNN(RankingModel):
    """z = MLP([v_1, …, v_n, x]): embeddings of the categories beside the numbers.

    The base model of the deep catalogue, as Zhou et al. 2018 (Deep Interest Network, section 4.2)
    describe it.

    Args:
        features: of the data set.
        dim: length of the embeddings.
        hidden: widths of the MLP.
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "optimizers": {
            "embedding": {"learning_rate": 3e-4, "l2": 1e-3},
            "dense": {"learning_rate": 3e-4},
        }
    }

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
        self.embeddings = Embeddings(features, dim)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = field_vectors(self.embeddings(inputs), inputs, self.features)
        return self.mlp(fields, training=training)[:, 0]
