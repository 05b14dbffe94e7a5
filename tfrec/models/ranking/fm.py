"""Factorization machine."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import FieldEmbeddings
from tfrec.layers.interactions import BiInteraction
from tfrec.layers.linear import Linear
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class FM(RankingModel):
    """z = w0 + Σ w_i x_i + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j.

    Source: Rendle 2010, Factorization Machines, equation 1, computed by lemma 3.1.

    Args:
        features: of the data set.
        dim: length of the vectors.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(self, features: Features, dim: Width = 16, crosses: bool = True) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldEmbeddings(features, dim)
        self.interaction = BiInteraction()

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        pairs = tf.reduce_sum(self.interaction(self.embeddings(inputs)), axis=-1)
        return self.linear(inputs) + tf.cast(pairs, tf.float32)
