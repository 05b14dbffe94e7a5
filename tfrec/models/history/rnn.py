"""Recurrent network over the history."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.layers.recurrent import Cell, recurrent_layer
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class RNN(RankingModel):
    """z = MLP([fields, h]), h the last state of an RNN over the events and then the candidate.

    Every history of the data set has a layer of its own.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks, for
    the recurrent layer; the scoring of a candidate as in Embedding & MLP.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        cell: `rnn`, `gru` or `lstm`.
        units: of the state.
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
        cell: Cell = "gru",
        units: Width = 32,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim, features.histories)
        self.recurrent = {
            history.name: recurrent_layer(cell, units) for history in features.histories
        }
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            steps = tf.concat([events, candidate[:, tf.newaxis]], axis=1)
            mask = tf.concat([mask, tf.ones_like(mask[:, :1])], axis=1)  # padding is stepped over
            parts.append(self.recurrent[history.name](steps, mask=mask))
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]
