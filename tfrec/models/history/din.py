"""Deep Interest Network."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.attention import LocalActivationUnit
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel


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

    defaults: ClassVar[dict[str, Any]] = SMALL_HISTORIES

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
            events, candidate, mask = history_vectors(vectors, inputs, history)
            weights = self.units[history.name](events, candidate, mask, training=training)
            parts.append(tf.einsum("be,bew->bw", weights, events))
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Weights of every history's events, (batch, events), 0 at padding."""
        vectors = self.embeddings(inputs)
        return {
            f"attention_{history.name}": self.units[history.name](
                *history_vectors(vectors, inputs, history), training=False
            )
            for history in self.features.histories
        }
