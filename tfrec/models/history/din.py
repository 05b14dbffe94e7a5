"""Deep Interest Network."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features, History
from tfrec.layers.attention import LocalActivationUnit
from tfrec.layers.embedding import (
    Embeddings,
    candidate_vectors,
    field_vectors,
    history_mask,
    history_vectors,
)
from tfrec.layers.mlp import MLP
from tfrec.models.base import Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class DIN(RankingModel):
    """z = MLP([fields, Σ_j a(e_j, v) e_j]): the history pooled by its relevance to the candidate.

    e_j are the events of a history, v the candidate in the same features and the same tables;
    every history of the data set is pooled.

    Source: Zhou et al. 2018, Deep Interest Network for Click-Through Rate Prediction, section 4.3.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings.
        attention_hidden: widths of the local activation unit's MLP (36 in the paper's figure).
        hidden: widths of the MLP (200, 80 in the paper's figure).
        activation: `dice`, `prelu` or another, of both.
        dropout: after each layer of the MLP.
        softmax: normalise the attention weights; the paper does not.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "optimizers": {"embedding": {"l2": 3e-3}, "dense": {"learning_rate": 3e-4}}
    }

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        attention_hidden: Widths = (36,),
        hidden: Widths = (128, 64),
        activation: Activation = "dice",
        dropout: Share = 0.3,
        softmax: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim, features.histories)
        self.units = {
            history.name: LocalActivationUnit(attention_hidden, activation, softmax)
            for history in features.histories
        }
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            weights = self._weights(vectors, inputs, history, training)
            events = history_vectors(vectors, inputs, history)
            parts.append(tf.einsum("be,bew->bw", weights, events))
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]

    def _weights(
        self, vectors: Inputs, inputs: Inputs, history: History, training: bool | None
    ) -> tf.Tensor:
        events = history_vectors(vectors, inputs, history)
        candidate = candidate_vectors(vectors, inputs, history)
        mask = history_mask(inputs, history)
        return self.units[history.name](events, candidate, mask, training=training)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Weights of every history's events, (batch, events), 0 at padding."""
        vectors = self.embeddings(inputs)
        return {
            f"attention_{history.name}": self._weights(vectors, inputs, history, training=False)
            for history in self.features.histories
        }
