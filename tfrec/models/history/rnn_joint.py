"""Recurrent user vector with next-item prediction."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras
from pydantic import NonNegativeFloat, NonNegativeInt

from tfrec.config import Width
from tfrec.features import Features, History
from tfrec.layers.embedding import Embeddings, history_vectors
from tfrec.layers.linear import Linear
from tfrec.layers.next_event import NextItem
from tfrec.layers.recurrent import Cell, last_state, recurrent_layer
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class RNNJoint(RankingModel):
    """`rnn_als`, trained jointly to predict the next item at every step of the history.

    z = w0 + Σ w_i x_i + ⟨h_T, W v⟩, and the auxiliary loss is the cross-entropy of item t + 1 given
    the state h_t, by one softmax over the items' ids.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks, for
    the next item; jointly as in Zhou et al. 2019, Deep Interest Evolution Network, equation 7.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        cell: `rnn`, `gru` or `lstm`.
        units: of the state, and of the candidate's vector.
        auxiliary_weight: of the auxiliary loss.
        negatives: ids that the next one is told from; 0 for all.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_HISTORIES
    auxiliary: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        cell: Cell = "gru",
        units: Width = 32,
        auxiliary_weight: NonNegativeFloat = 0.1,
        negatives: NonNegativeInt = 100,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        names = [history.name for history in features.histories]
        self.auxiliary_weight = auxiliary_weight
        self.linear = Linear(features, crosses)
        self.embeddings = Embeddings(features, dim, features.histories, features.candidates)
        self.recurrent = {name: recurrent_layer(cell, units, sequences=True) for name in names}
        self.candidates = {name: keras.layers.Dense(units) for name in names}
        self.next_item = {name: NextItem(dim, negatives) for name in names}

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        scores = [self.linear(inputs)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            states = self.recurrent[history.name](events, mask=mask)
            user = last_state(states, mask)
            product = tf.reduce_sum(user * self.candidates[history.name](candidate), axis=1)
            scores.append(tf.cast(product, tf.float32))
            losses = partial(self._next_items, history, states, inputs, training)
            self.add_auxiliary("next_item", losses, self.auxiliary_weight)
        return tf.add_n(scores)

    def _next_items(
        self, history: History, states: tf.Tensor, inputs: Inputs, training: bool | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Losses of the next item at every step, and their weights."""
        ids = inputs[history.mask_feature.name]
        table = self.embeddings.tables[str(history.mask_feature.table)]
        return self.next_item[history.name](states, ids, table, training=training)
