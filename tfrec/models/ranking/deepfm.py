"""DeepFM."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import BiInteraction
from tfrec.layers.linear import Linear
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class DeepFM(RankingModel):
    """z = y_FM + y_DNN: a factorization machine and an MLP over the same embeddings.

    y_FM = w0 + Σ w_i x_i + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j; y_DNN = MLP([x_1 v_1, …, x_n v_n]). The
    logits are added as they are: no layer above them, no sigmoid before the sum.

    Source: Guo et al. 2017, DeepFM: A Factorization-Machine based Neural Network for CTR
    Prediction, section 2.1, equations 1 to 4.

    Args:
        features: of the data set.
        dim: length of the embeddings (10 in the paper).
        hidden: widths of the MLP (400, 400, 400 in the paper).
        activation: of the MLP.
        dropout: after each layer of the MLP (0.5 in the paper).
        batch_norm: in the MLP.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = merge(
        SMALL_DATA,
        {"optimizers": {"embedding": {"learning_rate": 3e-5}, "dense": {"learning_rate": 3e-5}}},
    )

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.interaction = BiInteraction()
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = self.embeddings(inputs)
        second_order = tf.reduce_sum(self.interaction(fields), axis=-1)
        flat = tf.reshape(fields, [-1, fields.shape[1] * fields.shape[2]])
        deep = self.mlp(flat, training=training)[:, 0]
        return self.linear(inputs) + tf.cast(second_order + deep, tf.float32)
