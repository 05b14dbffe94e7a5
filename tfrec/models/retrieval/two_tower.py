"""Two towers."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.mlp import MLP
from tfrec.layers.tower import Tower, embedding_tables
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import OF_UNIT_VECTORS, RetrievalModel


@keras.utils.register_keras_serializable("tfrec")
class TwoTower(RetrievalModel):
    """s = ⟨u(x), v(y)⟩ / (|u(x)| |v(y)|): a tower over the user and one over the item.

    x is the fields of the user and of the context, and the means of the histories; y is the fields
    of the item. Both look up the same vectors where they share a table. It learns to tell an
    example's item from the other items of the batch, by a softmax of s over a temperature, with
    log q, of how often an item is in a batch, taken from s: items that are often in batches would
    be held down otherwise. Where an item is in the batch several times, it is no negative of
    itself.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, sections 3 and 5; `item_loss.negatives` beside `in_batch` is Yang et al. 2020,
    Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations.

    Args:
        features: of the data set; at least the id of the item.
        dim: length of the embeddings.
        hidden: widths of each tower.
        output: length of u and v.
        activation: of both towers.
        dropout: after each layer of both.
        event_dropout: share of the events that training leaves out of the histories.
        normalise: divide u and v by their lengths.
        stddev: of the initial embeddings.

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: the features have neither fields of the user or the context nor a history.
    """

    defaults: ClassVar[dict[str, Any]] = {
        **OF_UNIT_VECTORS,
        "item_loss": {"in_batch": True, "negatives": 0, "temperature": 0.1},
    }
    xla: ClassVar[bool] = False

    def __init__(
        self,
        features: Features,
        dim: Width = 32,
        hidden: Widths = (128,),
        output: Width = 64,
        activation: Activation = "relu",
        dropout: Share = 0.0,
        event_dropout: Share = 0.0,
        normalise: bool = True,
        stddev: float = 0.1,
    ) -> None:
        of_item = features.of_role("item")
        super().__init__(features, of_item)
        of_user = (*features.of_role("user"), *features.of_role("context"))
        if not of_user and not features.histories:
            raise ValueError("needs features of the user or of the context, or a history")
        events = [f for history in features.histories for f in history.features]
        tables = embedding_tables(features, (*of_user, *of_item, *events), dim, stddev)
        mlps = [MLP(hidden, activation, dropout, output=output) for _ in range(2)]
        self.user = Tower(of_user, features.histories, tables, mlps[0], event_dropout)
        self.item = Tower(of_item, (), tables, mlps[1])
        self.normalise = normalise

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.scaled(self.user(inputs, training=training))

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.scaled(self.item(inputs, training=training))
