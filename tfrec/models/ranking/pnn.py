"""Product-based neural network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import inner_products
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class PNN(RankingModel):
    """z = MLP([l_z, l_p]): the vectors as they are, and their products, into one MLP.

    The linear signal l_z is [v_1, …, v_n]. The product signal is ⟨v_i, v_j⟩ of all pairs (inner),
    or the matrix Σ_ij v_i v_jᵀ = (Σ v_i)(Σ v_i)ᵀ (outer, by superposition). The MLP's first layer
    holds the weights W_z and W_p of both.

    Source: Qu et al. 2016, Product-based Neural Networks for User Response Prediction, section 3,
    equations 2 to 4, 8 and 14.

    Args:
        features: of the data set.
        dim: length of the vectors (10 in the paper).
        product: `inner` (IPNN), `outer` (OPNN) or `both` (PNN*).
        hidden: widths of the MLP.
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: the inner products take batch × fields² numbers.
    """

    defaults: ClassVar[dict[str, Any]] = merge(
        SMALL_DATA,
        {
            "optimizers": {
                "embedding": {"learning_rate": 3e-4, "l2": 1e-2},
                "dense": {"learning_rate": 3e-5},
            }
        },
    )

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        product: Literal["inner", "outer", "both"] = "inner",
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(features)
        self.product = product
        self.embeddings = FieldEmbeddings(features, dim)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = self.embeddings(inputs)
        _, count, dim = fields.shape
        signals = [tf.reshape(fields, [-1, count * dim])]
        if self.product != "outer":
            signals.append(inner_products(fields))
        if self.product != "inner":
            total = tf.reduce_sum(fields, axis=1)
            outer = total[:, :, tf.newaxis] * total[:, tf.newaxis]
            signals.append(tf.reshape(outer, [-1, dim * dim]))
        return self.mlp(tf.concat(signals, axis=1), training=training)[:, 0]
