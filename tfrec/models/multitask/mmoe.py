"""Mixture of experts with a gate for every task."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.experts import Experts, Gate
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, MultiTaskModel


@keras.utils.register_keras_serializable("tfrec")
class MMoE(MultiTaskModel):
    """z_k = h_k(Σ_i g_k,i(x) f_i(x)) with g_k = softmax(W_k x): experts f_i that all tasks share.

    Every task k has a gate g_k and a tower h_k; x is the embeddings of the categories beside the
    numbers.

    Source: Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, section 4.2, equations 6 and 7.

    Args:
        features: of the data set; at least two labels.
        dim: length of the embeddings.
        experts: how many.
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
        experts: Width = 4,
        hidden: Widths = (64,),
        tower: Widths = (32,),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.experts = Experts(experts, hidden, activation, dropout, batch_norm)
        self.task_gates = {label.name: Gate(experts) for label in features.labels}
        self.towers = {
            label.name: MLP(tower, activation, dropout, batch_norm, output=1)
            for label in features.labels
        }

    @property
    def last_shared(self) -> list[tf.Variable]:
        return self.experts.dense[-1].trainable_weights

    def logits(self, inputs: Inputs, training: bool | None) -> dict[str, tf.Tensor]:
        fields = self._fields(inputs)
        experts = self.experts(fields, training=training)
        mixed = {task: gate(fields, experts) for task, gate in self.task_gates.items()}
        return {
            task: tower(mixed[task], training=training)[:, 0] for task, tower in self.towers.items()
        }

    def gates(self, inputs: Inputs) -> dict[str, tf.Tensor]:
        """Every task's shares."""
        fields = self._fields(inputs)
        return {task: gate.shares(fields) for task, gate in self.task_gates.items()}

    def _fields(self, inputs: Inputs) -> tf.Tensor:
        return field_vectors(self.embeddings(inputs), inputs, self.features)
