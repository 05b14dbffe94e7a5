"""BERT4Rec."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Share, Width
from tfrec.features import Features
from tfrec.layers.cloze import Cloze
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import Embedding
from tfrec.layers.recurrent import last_state
from tfrec.layers.transformer import Positions, TransformerBlock, attended_in_last
from tfrec.models.base import Inputs
from tfrec.models.nextitem.base import SEQUENCES, NextItemModel, followed_by


@keras.utils.register_keras_serializable("tfrec")
class BERT4Rec(NextItemModel):
    """s = ⟨LN(GELU(W h_t + b)), v⟩ + b_v, h_t of Transformer blocks over both sides of [MASK] at t.

    In training some items of a sequence are masked, and told from the others. To recommend, one
    [MASK] follows the history, and nothing else is masked.

    Source: Sun et al. 2019, BERT4Rec: Sequential Recommendation with Bidirectional Encoder
    Representations from Transformer, sections 3.3 to 3.6, with the initial weights of section 4.3.
    As in its authors' code there are a dropout of the attention's weights, and LN in equation 7.

    Args:
        features: of the data set, with a history of items.
        dim: length of the item vectors.
        blocks: number of Transformer blocks.
        heads: of the attention.
        dropout: of the vectors and in the blocks.
        attention_dropout: of the attention's weights.
        masked: share of a sequence's items that are masked in training.
        last_only: share of the sequences in which only the last item is.
        stddev: of the initial vectors and matrices.

    Call: dict of inputs → {"score": (batch,)}. Memory: batch × heads × events².
    """

    # Half of the events are told in an epoch: metrics rise slowly.
    defaults: ClassVar[dict[str, Any]] = {**SEQUENCES, "epochs": 100, "patience": 10}

    def __init__(
        self,
        features: Features,
        dim: Width = 64,
        blocks: Width = 2,
        heads: Width = 2,
        dropout: Share = 0.2,
        attention_dropout: Share = 0.2,
        masked: Share = 0.5,
        last_only: Share = 0.1,
        stddev: float = 0.02,
    ) -> None:
        super().__init__(features, dim, stddev, special=1)
        self.mask_id = self.embedding.size - 1
        self.biases = Embedding(self.embedding.size, 1, 0.0)
        self.positions = Positions(self.history.length, dim)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.dropout = Dropout(dropout)
        self.blocks = [
            TransformerBlock(
                heads,
                4 * dim,
                dropout,
                "gelu",
                attention_dropout=attention_dropout,
                stddev=stddev,
            )
            for _ in range(blocks)
        ]
        initializer = keras.initializers.TruncatedNormal(stddev=stddev)
        self.projection = keras.layers.Dense(dim, "gelu", kernel_initializer=initializer)
        self.projection_norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.cloze = Cloze(masked, last_only)
        self.cloze.build(())  # only training calls it

    def states(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        value = self.dropout(self._placed(ids), training=training)
        for block in self.blocks:
            value = block(value, ids != 0, training=training)
        return value

    def _placed(self, ids: tf.Tensor) -> tf.Tensor:
        return self.norm(self.embedding(ids) + self.positions(tf.range(tf.shape(ids)[1])))

    def _masked_next(self, history: tf.Tensor) -> tf.Tensor:
        return followed_by(history, tf.constant(self.mask_id, history.dtype))

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What [MASK] attends to in the last block, (batch, events), 0 at padding.

        Its own share is left out.
        """
        history = inputs[self.history.mask_feature.name]
        ids = self._masked_next(history)
        weights = last_state(attended_in_last(self.blocks, self._placed(ids), ids != 0), ids != 0)
        weights = weights[:, :-1] * tf.cast(history != 0, weights.dtype)
        return {f"attention_{self.history.name}": weights}

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        ids = self._masked_next(inputs[self.history.mask_feature.name])
        return self._projected(self.states_of(ids, training), ids == self.mask_id)

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        ids = inputs[self.item_id.name]
        return tf.concat([self.embedding(ids), self.biases(ids)], axis=-1)

    def target_ids(self, inputs: Inputs) -> tf.Tensor:
        """(batch, events + 1): items that may be masked, where they are to be told."""
        ids, told = self.sequences(inputs)
        return tf.where(told, ids, 0)

    def targets(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        ids, told = self.sequences(inputs)
        masked = self.cloze(told, training=True)
        states = self.states_of(
            tf.where(masked, tf.constant(self.mask_id, ids.dtype), ids), training=True
        )
        places = tf.where(masked)
        return self._projected(states, masked), tf.gather_nd(ids, places), places[:, 0]

    def _projected(self, states: tf.Tensor, masked: tf.Tensor) -> tf.Tensor:
        """(n, dim + 1) what the scores of items are products with, at masked steps."""
        value = self.projection_norm(self.projection(tf.boolean_mask(states, masked)))
        return tf.concat([value, tf.ones_like(value[:, :1])], axis=-1)
