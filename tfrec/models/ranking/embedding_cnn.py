"""Convolution over embeddings."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class EmbeddingCNN(RankingModel):
    """z = MLP(convolutions of the fields × dim matrix along the embedding axis).

    The fields are the channels of a one-dimensional convolution, so that every filter sees a
    stretch of the embedding of all fields at once.

    Source: the convolution of LeCun et al. 1998, Gradient-based Learning Applied to Document
    Recognition, over the embeddings of Embedding & MLP.

    Args:
        features: of the data set.
        dim: length of the vectors.
        filters: of every convolution.
        kernel: elements of the embedding axis that a filter sees.
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
        filters: Widths = (32,),
        kernel: Width = 3,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = FieldEmbeddings(features, dim)
        self.convolutions = [
            keras.layers.Conv1D(width, kernel, padding="same", activation="relu")
            for width in filters
        ]
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        value = tf.transpose(self.embeddings(inputs), [0, 2, 1])  # fields are channels
        for convolution in self.convolutions:
            value = convolution(value)
        flat = tf.reshape(value, [-1, value.shape[1] * value.shape[2]])
        return self.mlp(flat, training=training)[:, 0]
