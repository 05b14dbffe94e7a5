"""Deep Interest Evolution Network."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras
from pydantic import NonNegativeFloat

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features, History
from tfrec.layers.attention import BilinearAttention
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.layers.next_event import NextEvent
from tfrec.layers.recurrent import Evolution, InterestEvolution, recurrent_layer
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DIEN(RankingModel):
    """z = MLP([fields, h'_T, v]): a GRU extracts interests, a second one follows the relevant ones.

    h_t = GRU(e_t); a_t = softmax over time of h_tᵀ W v; h'_T is the last state of a GRU over h with
    attentional update gates a. The auxiliary loss tells the next event from one that was drawn, by
    ⟨h_t, e⟩.

    Source: Zhou et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction,
    section "Deep Interest Evolution Network", equations 2 to 15.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        evolution: `augru`, `agru` or `aigru`.
        auxiliary_weight: α of the auxiliary loss (1 in the authors' code).
        hidden: widths of the MLP (200, 80 in the authors' code).
        activation: of the MLP.
        dropout: after each layer of the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_HISTORIES
    auxiliary: ClassVar[tuple[str, ...]] = ("next_event",)

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        evolution: Evolution = "augru",
        auxiliary_weight: NonNegativeFloat = 1.0,
        hidden: Widths = (128, 64),
        activation: Activation = "dice",
        dropout: Share = 0.3,
    ) -> None:
        super().__init__(features)
        self.auxiliary_weight = auxiliary_weight
        self.embeddings = Embeddings(features, dim, features.histories)
        widths = {
            history.name: sum(dim if f.kind == "category" else 1 for f in history.features)
            for history in features.histories
        }
        # The states are compared with events, so that they are as wide.
        self.interests = {n: recurrent_layer("gru", w, sequences=True) for n, w in widths.items()}
        self.attention = {name: BilinearAttention() for name in widths}
        self.evolution = {name: InterestEvolution(w, evolution) for name, w in widths.items()}
        self.next_event = {name: NextEvent() for name in widths}
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            states, weights = self._weights(events, candidate, mask, history)
            parts += [self.evolution[history.name](states, weights, mask), candidate]
            losses = partial(self._next_events, history, states, events, mask, training)
            self.add_auxiliary("next_event", losses, self.auxiliary_weight)
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]

    def _weights(
        self, events: tf.Tensor, candidate: tf.Tensor, mask: tf.Tensor, history: History
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """States of the extractor, and their weights for the candidate."""
        states = self.interests[history.name](events, mask=mask)
        return states, self.attention[history.name](states, candidate, mask)

    def _next_events(
        self,
        history: History,
        states: tf.Tensor,
        events: tf.Tensor,
        mask: tf.Tensor,
        training: bool | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Losses of the next event at every step, and their weights."""
        return self.next_event[history.name](states, events, mask, training=training)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Weights of every history's events, (batch, events), 0 at padding."""
        vectors = self.embeddings(inputs)
        return {
            f"attention_{history.name}": self._weights(
                *history_vectors(vectors, inputs, history), history
            )[1]
            for history in self.features.histories
        }
