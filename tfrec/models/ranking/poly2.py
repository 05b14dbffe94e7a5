"""Degree-2 polynomial."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.linear import HashedPairs, Linear
from tfrec.models.base import Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class Poly2(RankingModel):
    """z = w0 + Σ w_i x_i + Σ_{i<j} w_{hash(i,j)} x_i x_j: a weight for every pair of values.

    Source: Chang et al. 2010, Training and Testing Low-degree Polynomial Data Mappings via Linear
    SVM, section 4; with hashed pairs as in Juan et al. 2016, Field-aware Factorization Machines for
    CTR Prediction, equation 2.

    Args:
        features: of the data set.
        buckets: rows of the table that the pairs are hashed to; a few per pair that occurs.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    def __init__(
        self, features: Features, buckets: Width = 1_000_000, crosses: bool = True
    ) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.pairs = HashedPairs(features, buckets)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        return self.linear(inputs) + self.pairs(inputs)
