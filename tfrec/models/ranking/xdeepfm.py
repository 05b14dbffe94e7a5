"""xDeepFM."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Activation, Share, Width, Widths
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import CIN
from tfrec.layers.linear import Linear
from tfrec.layers.mlp import MLP
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class XDeepFM(RankingModel):
    """z = w0 + Σ w_i x_i + wᵀ CIN(v) + MLP(v): explicit interactions of vectors, and implicit ones.

    Source: Lian et al. 2018, xDeepFM: Combining Explicit and Implicit Feature Interactions for
    Recommender Systems, section 3.3, equation 9.

    Args:
        features: of the data set.
        dim: length of the vectors (10 in the paper).
        maps: feature maps of every layer of the CIN (200 in the paper).
        split_half: only half of a layer's maps go on to the next layer.
        cin_activation: of the maps (identity in the paper).
        hidden: widths of the MLP (400, 400 in the paper).
        activation: of the MLP.
        dropout: after each layer of the MLP.
        batch_norm: in the MLP.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    Memory: see `CIN`.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(
        self,
        features: Features,
        dim: Width = 16,
        maps: Widths = (32, 32),
        split_half: bool = False,
        cin_activation: Activation = "linear",
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Share = 0.3,
        batch_norm: bool = False,
        crosses: bool = True,
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.cin = CIN(maps, split_half, cin_activation)
        self.cin_output = keras.layers.Dense(1, use_bias=False)
        self.mlp = MLP(hidden, activation, dropout, batch_norm, output=1)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        fields = self.embeddings(inputs)
        explicit = self.cin_output(self.cin(fields))[:, 0]
        flat = tf.reshape(fields, [-1, fields.shape[1] * fields.shape[2]])
        implicit = self.mlp(flat, training=training)[:, 0]
        return self.linear(inputs) + tf.cast(explicit + implicit, tf.float32)
