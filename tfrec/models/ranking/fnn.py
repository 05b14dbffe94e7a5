"""Factorization-machine supported neural network."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.linear import FirstOrder
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, Model, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class FNN(RankingModel):
    """z = MLP([w_1, …, w_n, v_1, …, v_n]), begun from a factorization machine.

    Training has two steps: an `fm` of the same dim, under the same configuration, and then this
    model with its first-order weights and vectors.

    Source: Zhang, Du & Wang 2016, Deep Learning over Multi-field Categorical Data, section 3.1,
    equations 2 to 4.

    Args:
        features: of the data set.
        dim: length of the vectors (10 in the paper).
        hidden: widths of the MLP.
        activation: of the MLP (tanh in the paper).
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.
        frozen: keep what the factorization machine has found, and train the MLP only.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA
    pretrained: ClassVar[str | None] = "fm"

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (128, 64),
        activation: Activation = "tanh",
        dropout: Share = 0.3,
        batch_norm: bool = False,
        frozen: bool = False,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.first_order = FirstOrder(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.first_order.trainable = self.embeddings.trainable = not frozen
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = self.embeddings(inputs)
        flat = tf.reshape(fields, [-1, fields.shape[1] * fields.shape[2]])
        first_order = tf.cast(self.first_order(inputs), flat.dtype)
        return self.mlp(tf.concat([first_order, flat], axis=1), training=training)[:, 0]

    def begin_from(self, pretrained: Model) -> None:
        for layer, source in (
            (self.first_order, pretrained.linear.terms),
            (self.embeddings, pretrained.embeddings),
        ):
            for mine, its in zip(layer.variables, source.variables, strict=True):
                mine.assign(its)
