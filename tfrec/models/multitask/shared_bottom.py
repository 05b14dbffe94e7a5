"""Shared bottom."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings, field_vectors
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, MultiTaskModel


@keras.utils.register_keras_serializable("tfrec")
class SharedBottom(MultiTaskModel):
    """z_k = h_k(f(x)): one MLP f below, a tower h_k for every task k above.

    x is the embeddings of the categories beside the numbers.

    Source: Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, section 3.1, equation 1; after Caruana 1997, Multitask Learning.

    Args:
        features: of the data set; at least two labels.
        dim: length of the embeddings.
        hidden: widths of the shared MLP.
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
        hidden: Widths = (128, 64),
        tower: Widths = (32,),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.embeddings = Embeddings(features, dim)
        self.bottom = MLP(hidden, activation, dropout, batch_norm)
        self.towers = {
            label.name: MLP(tower, activation, dropout, batch_norm, output=1)
            for label in features.labels
        }

    @property
    def last_shared(self) -> list[tf.Variable]:
        dense = self.bottom.last_dense
        return dense.trainable_weights if dense else []

    def logits(self, inputs: Inputs, training: bool | None) -> dict[str, tf.Tensor]:
        fields = field_vectors(self.embeddings(inputs), inputs, self.features)
        shared = self.bottom(fields, training=training)
        return {task: tower(shared, training=training)[:, 0] for task, tower in self.towers.items()}
