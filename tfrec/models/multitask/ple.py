"""Progressive layered extraction."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.experts import Extraction
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, MultiTaskModel


@keras.utils.register_keras_serializable("tfrec")
class PLE(MultiTaskModel):
    """z_k = h_k(v_k of the last level): levels of experts of every task, shared experts and gates.

    At each level the gate of task k mixes k's own experts and the shared ones, by what k had from
    the level before, and the shared gate mixes all; the first level begins with x, the embeddings
    of the categories beside the numbers. With one level it is customised gate control (CGC).

    Source: Tang et al. 2020, Progressive Layered Extraction (PLE): A Novel Multi-Task Learning
    Model for Personalized Recommendations, sections 4.1 and 4.2, equations 1 to 6.

    Args:
        features: of the data set; at least two labels.
        dim: length of the embeddings.
        levels: how many.
        task_experts: of each task, at each level.
        shared_experts: of all tasks, at each level.
        hidden: widths of each expert's layers.
        tower: widths of each task's tower.
        activation: of all MLPs.
        dropout: after each of their layers.
        batch_norm: in all MLPs.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        levels: Width = 2,
        task_experts: Width = 2,
        shared_experts: Width = 2,
        hidden: Widths = (64,),
        tower: Widths = (32,),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.levels = [
            Extraction(
                len(features.labels),
                task_experts,
                shared_experts,
                hidden,
                activation,
                dropout,
                batch_norm,
                last=level == levels - 1,
            )
            for level in range(levels)
        ]
        self.towers = {
            label.name: MLP(tower, activation, dropout, batch_norm, output=1)
            for label in features.labels
        }

    @property
    def last_shared(self) -> list[tf.Variable]:
        return self.levels[-1].shared.dense[-1].trainable_weights

    def logits(self, inputs: Inputs, training: bool | None) -> dict[str, tf.Tensor]:
        value = field_vectors(self.embeddings(inputs), inputs, self.features)
        for level in self.levels:
            value = level(value, training=training)
        return {
            label.name: self.towers[label.name](value[:, task], training=training)[:, 0]
            for task, label in enumerate(self.features.labels)
        }

    def gates(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """By `<level>/<task>` and `<level>/shared`: of the tasks' experts, then of shared ones."""
        names = [*(label.name for label in self.features.labels), "shared"]
        value = field_vectors(self.embeddings(inputs), inputs, self.features)
        found: dict[str, tf.Tensor] = {}
        for number, level in enumerate(self.levels, start=1):
            found |= {
                f"{number}/{name}": shares
                for name, shares in zip(names, level.shares(value), strict=False)
            }
            value = level(value, training=False)
        return found
