"""Behavior Sequence Transformer."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features, History
from tfrec.layers.embedding import Embeddings, field_vectors, history_vectors
from tfrec.layers.mlp import MLP
from tfrec.layers.transformer import (
    Positions,
    TransformerBlock,
    attended_in_last,
    distances,
    newest_first,
)
from tfrec.models.base import SMALL_HISTORIES, Inputs, RankingModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class BST(RankingModel):
    """z = MLP([fields, Transformer([e_j, p_j], …, [v, p_0])]): attention over events and candidate.

    Every step has a vector p of its distance from now beside its own. The block's outputs, newest
    first, go into the MLP side by side.

    Source: Chen et al. 2019, Behavior Sequence Transformer for E-commerce Recommendation in
    Alibaba, section 2.

    Args:
        features: of the data set; at least one history.
        dim: length of the embeddings, and of the distances'.
        blocks: number of Transformer blocks (1 in the paper).
        heads: of the attention (8 in the paper).
        hidden: widths of the MLP (1024, 512, 256 in the paper).
        activation: of the MLP.
        dropout: in the blocks and after each layer of the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: batch × heads × events².
    """

    # The MLP reads all steps side by side, and would learn them by heart.
    defaults: ClassVar[dict[str, Any]] = merge(
        SMALL_HISTORIES,
        {
            "patience": 6,
            "optimizers": {
                "embedding": {"learning_rate": 1e-2, "l2": 3e-4},
                "dense": {"name": "row_sparse_adam", "weight_decay": 20.0},
            },
        },
    )

    def __init__(
        self,
        features: Features,
        dim: Width = 4,
        blocks: Width = 1,
        heads: Width = 2,
        hidden: Widths = (128, 64),
        activation: Activation = "leaky_relu",
        dropout: Share = 0.3,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim, features.histories)
        self.distances = {h.name: Positions(h.length, dim) for h in features.histories}
        self.blocks = {
            history.name: [TransformerBlock(heads, 4 * dim, dropout) for _ in range(blocks)]
            for history in features.histories
        }
        self.mlp = MLP(hidden, activation, dropout, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        parts = [field_vectors(vectors, inputs, self.features)]
        for history in self.features.histories:
            steps, mask = self._steps(vectors, inputs, history)
            for block in self.blocks[history.name]:
                steps = block(steps, mask, training=training)
            newest = newest_first(steps[:, 1:], mask[:, 1:], history.length)
            parts += [steps[:, 0], tf.reshape(newest, [-1, newest.shape[1] * newest.shape[2]])]
        return self.mlp(tf.concat(parts, axis=-1), training=training)[:, 0]

    def _steps(
        self, vectors: dict[str, tf.Tensor], inputs: Inputs, history: History
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What goes into the blocks, and which steps are real."""
        events, candidate, mask = history_vectors(vectors, inputs, history)
        # The candidate comes first, at distance 0: its place does not depend on the padding.
        steps = tf.concat([candidate[:, tf.newaxis], events], axis=1)
        ago = distances(mask)
        ago = tf.concat([tf.zeros_like(ago[:, :1]), ago], axis=1)
        places = self.distances[history.name](ago)
        steps = tf.concat([steps, tf.cast(places, steps.dtype)], axis=2)
        return steps, tf.concat([tf.ones_like(mask[:, :1]), mask], axis=1)

    def explain(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """What the candidate attends to in the last block, (batch, events), 0 at padding.

        Its own share is left out.
        """
        vectors, found = self.embeddings(inputs), {}
        for history in self.features.histories:
            steps, mask = self._steps(vectors, inputs, history)
            weights = attended_in_last(self.blocks[history.name], steps, mask)
            found[f"attention_{history.name}"] = weights[:, 0, 1:]
        return found
