"""Transformer with next-item prediction."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras
from pydantic import NonNegativeFloat, NonNegativeInt

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features, History
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.layers.next_event import NextItem
from tfrec.layers.recurrent import last_state
from tfrec.layers.transformer import Positions, TransformerBlock, attended_in_last, distances
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class TransformerJoint(RankingModel):
    """z = MLP([fields, mean encoded event, v]), with a decoder that predicts the history.

    The encoder sees all events, for the click. The decoder, over the same embeddings, sees at every
    step that step and those before it, and predicts the item after it: the auxiliary loss.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3; jointly as in Zhou et al.
    2019, Deep Interest Evolution Network, equation 7.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings, and of the distances'.
        blocks: number of Transformer blocks of the encoder, and of the decoder.
        heads: of the attention.
        auxiliary_weight: of the auxiliary loss.
        negatives: ids that the next one is told from; 0 for all.
        hidden: widths of the MLP.
        activation: of the MLP.
        dropout: in the blocks and after each layer of the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: batch × heads × events².
    """

    # The blocks normalise every step: where they are wide, the MLP learns users by heart.
    defaults: ClassVar[dict[str, Any]] = merge(
        SMALL_HISTORIES,
        {
            "optimizers": {
                "embedding": {"learning_rate": 1e-2, "l2": 1e-4},
                "dense": {"learning_rate": 1e-4},
            },
        },
    )
    auxiliary: ClassVar[tuple[str, ...]] = ("next_item",)

    def __init__(
        self,
        features: Features,
        dim: Width = 8,
        blocks: Width = 1,
        heads: Width = 2,
        auxiliary_weight: NonNegativeFloat = 0.01,
        negatives: NonNegativeInt = 100,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.5,
    ) -> None:
        super().__init__(features)
        histories = features.histories
        self.auxiliary_weight = auxiliary_weight
        self.embeddings = Embeddings(features, dim, histories)
        self.distances = {h.name: Positions(h.length, dim) for h in histories}

        def stacks(causal: bool) -> dict[str, list[TransformerBlock]]:
            return {
                history.name: [
                    TransformerBlock(heads, 4 * dim, dropout, causal=causal) for _ in range(blocks)
                ]
                for history in histories
            }

        self.encoder, self.decoder = stacks(causal=False), stacks(causal=True)
        self.next_item = {history.name: NextItem(dim, negatives) for history in histories}
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            events, candidate, mask = history_vectors(vectors, inputs, history)
            steps = self._placed(events, mask, history)
            encoded = steps
            for block in self.encoder[history.name]:
                encoded = block(encoded, mask, training=training)
            real = tf.cast(mask, encoded.dtype)
            mean = tf.einsum("be,bew->bw", real, encoded)
            mean /= tf.maximum(tf.reduce_sum(real, axis=1, keepdims=True), 1)
            parts += [mean, candidate]
            losses = partial(self._next_items, history, steps, mask, inputs, training)
            self.add_auxiliary("next_item", losses, self.auxiliary_weight)
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]

    def _placed(self, events: tf.Tensor, mask: tf.Tensor, history: History) -> tf.Tensor:
        places = tf.cast(self.distances[history.name](distances(mask)), events.dtype)
        return tf.concat([events, places], axis=2)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What the newest event attends to in the encoder's last block, 0 at padding.

        Of every history, (batch, events).
        """
        vectors, found = self.embeddings(inputs), {}
        for history in self.features.histories:
            events, _, mask = history_vectors(vectors, inputs, history)
            steps = self._placed(events, mask, history)
            weights = attended_in_last(self.encoder[history.name], steps, mask)
            found[f"attention_{history.name}"] = last_state(weights, mask)
        return found

    def _next_items(
        self,
        history: History,
        steps: tf.Tensor,
        mask: tf.Tensor,
        inputs: Inputs,
        training: bool | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Losses of the decoder, and their weights."""
        for block in self.decoder[history.name]:
            steps = block(steps, mask, training=training)
        ids = inputs[history.mask_feature.name]
        table = self.embeddings.tables[str(history.mask_feature.table)]
        return self.next_item[history.name](steps, ids, table, training=training)
