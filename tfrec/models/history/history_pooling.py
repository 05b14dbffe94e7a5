"""Pooled history."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class HistoryPooling(RankingModel):
    """z = MLP([fields, pool_j e_j, v]): the sum or the mean of the history beside the candidate.

    e_j are the events of a history, v the candidate in the same features and the same tables;
    every history of the data set is pooled.

    Source: the base model of Zhou et al. 2018, Deep Interest Network for Click-Through Rate
    Prediction, section 4.2.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        pooling: `mean` over the real events, or `sum`.
        hidden: widths of the MLP.
        activation: of the MLP.
        dropout: after each layer of the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_HISTORIES

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        pooling: Literal["mean", "sum"] = "mean",
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
    ) -> None:
        super().__init__(features)
        self.pooling = pooling
        self.embeddings = Embeddings(features, dim, features.histories)
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            real = tf.cast(mask, events.dtype)
            pooled = tf.einsum("be,bew->bw", real, events)
            if self.pooling == "mean":
                pooled /= tf.maximum(tf.reduce_sum(real, axis=1, keepdims=True), 1)
            parts += [pooled, candidate]
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]
