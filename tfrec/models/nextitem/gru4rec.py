"""GRU4Rec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import tensorflow as tf
import tf_keras as keras
from pydantic import Field, PositiveInt

from tfrec.config import Share, Width
from tfrec.features import Features
from tfrec.layers.dropout import Dropout
from tfrec.layers.recurrent import OneStepGRUCell, recurrent_layer
from tfrec.models.nextitem.base import SEQUENCES, NextItemModel


@keras.utils.register_keras_serializable("tfrec")
class GRU4Rec(NextItemModel):
    """s = ⟨W h_t, v⟩ with h_t = GRU(h_{t−1}, v_{i_t}): a recurrent network over the items taken.

    Items are scored by the vectors that they are read by (the constrained embeddings of 2018). W is
    there where the last layer's units are not as many as the vectors are long.

    Negatives are those of `item_loss`: `in_batch` with extra ones drawn by a power of the
    popularity (`exponent`), compared by `bpr_max`, `top1_max` or `sampled_softmax`, the papers'
    cross-entropy.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks,
    section 3; Hidasi & Karatzoglou 2018, Recurrent Neural Networks with Top-k Gains for
    Session-based Recommendations, sections 2 and 3.

    Args:
        features: of the data set, with a history of items.
        dim: length of the item vectors.
        units: of the GRU layers, one above the other; one at least.
        dropout: share of the inputs' units dropped.
        hidden_dropout: share of every layer's units dropped.
        stddev: of the initial item vectors.
        session_parallel: a step's gradients end at the state that it was given, as in
            session-parallel mini-batches, which take one event of every session at a time. Weights
            still change after whole sequences only.

    Call: dict of inputs → {"score": (batch,)}.
    """

    defaults: ClassVar[dict[str, Any]] = SEQUENCES

    def __init__(
        self,
        features: Features,
        dim: Width = 64,
        units: Annotated[Sequence[PositiveInt], Field(min_length=1)] = (128,),
        dropout: Share = 0.2,
        hidden_dropout: Share = 0.0,
        stddev: float = 0.1,
        session_parallel: bool = False,
    ) -> None:
        super().__init__(features, dim, stddev)
        self.dropout = Dropout(dropout)
        self.recurrent = [
            keras.layers.RNN(OneStepGRUCell(width), return_sequences=True)
            if session_parallel
            else recurrent_layer("gru", width, sequences=True)
            for width in units
        ]
        self.dropouts = [Dropout(hidden_dropout) for _ in units]
        self.map = keras.layers.Dense(dim, use_bias=False) if units[-1] != dim else None

    def states(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        value = self.dropout(self.embedding(ids), training=training)
        for layer, dropout in zip(self.recurrent, self.dropouts, strict=True):
            value = dropout(layer(value, mask=ids != 0), training=training)
        return self.map(value) if self.map else value
