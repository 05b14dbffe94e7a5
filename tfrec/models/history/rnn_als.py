"""Recurrent user vector."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, history_vectors
from tfrec.layers.linear import Linear
from tfrec.layers.recurrent import Cell, recurrent_layer
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class RNNALS(RankingModel):
    """z = w0 + Σ w_i x_i + ⟨h, W v⟩: the last state is the user's vector, W v the candidate's.

    The first-order terms are the biases of a matrix factorization. Every history of the data set
    has a layer, and a product, of its own.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks, with
    the product of Koren, Bell & Volinsky 2009, Matrix Factorization Techniques for Recommender
    Systems, equation 4.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        cell: `rnn`, `gru` or `lstm`.
        units: of the state, and of the candidate's vector.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_HISTORIES

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        cell: Cell = "gru",
        units: Width = 32,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        names = [history.name for history in features.histories]
        self.linear = Linear(features, crosses)
        self.embeddings = Embeddings(features, dim, features.histories, features.candidates)
        self.recurrent = {name: recurrent_layer(cell, units) for name in names}
        self.candidates = {name: keras.layers.Dense(units) for name in names}

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        scores = [self.linear(inputs)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            user = self.recurrent[history.name](events, mask=mask)
            product = tf.reduce_sum(user * self.candidates[history.name](candidate), axis=1)
            scores.append(tf.cast(product, tf.float32))
        return tf.add_n(scores)
