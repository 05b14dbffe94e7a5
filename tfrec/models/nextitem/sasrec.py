"""Self-attentive sequential recommendation."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Share, Width
from tfrec.features import Features
from tfrec.layers.dropout import Dropout
from tfrec.layers.recurrent import last_state
from tfrec.layers.transformer import Positions, TransformerBlock, attended_in_last
from tfrec.models.base import Inputs
from tfrec.models.nextitem.base import SEQUENCES, NextItemModel


@keras.utils.register_keras_serializable("tfrec")
class SASRec(NextItemModel):
    """s = ⟨h_t, v⟩, h_t of causal Transformer blocks over √d v_{i_t} + p_t, and a last norm.

    Positions count from the start of the sequence: a state is the same whether or not more follows.

    Source: Kang & McAuley 2018, Self-Attentive Sequential Recommendation, section III; √d as in
    Vaswani et al. 2017, Attention Is All You Need, section 3.4. The paper's loss is
    `item_loss.kind=bce` with one negative; see Petrov & Macdonald 2023, gSASRec, and Klenitskiy &
    Vasilev 2023, Turning Dross Into Gold Loss, for better ones.

    Args:
        features: of the data set, with a history of items.
        dim: length of the item vectors.
        blocks: number of Transformer blocks.
        heads: of the attention.
        dropout: of the vectors and in the blocks.
        stddev: of the initial item vectors.
        pre_norm: blocks normalise their inputs, as in the paper, and not their outputs.

    Call: dict of inputs → {"score": (batch,)}. Memory: batch × heads × events².
    """

    defaults: ClassVar[dict[str, Any]] = SEQUENCES

    def __init__(
        self,
        features: Features,
        dim: Width = 64,
        blocks: Width = 2,
        heads: Width = 1,
        dropout: Share = 0.5,
        stddev: float = 0.01,
        pre_norm: bool = True,
    ) -> None:
        super().__init__(features, dim, stddev)
        self.positions = Positions(self.history.length - 1, dim)
        self.dropout = Dropout(dropout)
        self.blocks = [
            TransformerBlock(heads, dim, dropout, "relu", causal=True, pre_norm=pre_norm)
            for _ in range(blocks)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6) if pre_norm else None

    def states(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        value = self.dropout(self._placed(ids), training=training)
        for block in self.blocks:
            value = block(value, ids != 0, training=training)
        return self.norm(value) if self.norm else value

    def _placed(self, ids: tf.Tensor) -> tf.Tensor:
        vectors = self.embedding(ids)
        return vectors * vectors.shape[-1] ** 0.5 + self.positions(tf.range(tf.shape(ids)[1]))

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What the newest event attends to in the last block, (batch, events), 0 at padding."""
        ids = inputs[self.history.mask_feature.name]
        weights = attended_in_last(self.blocks, self._placed(ids), ids != 0)
        return {f"attention_{self.history.name}": last_state(weights, ids != 0)}
