"""Logistic regression."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.features import Features
from tfrec.layers.linear import Linear
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class LR(RankingModel):
    """z = w0 + Σ w_i x_i + crosses, trained by FTRL-Proximal with L1.

    Source: McMahan et al. 2013, Ad Click Prediction: a View from the Trenches, section 3.

    Args:
        features: of the data set.
        crosses: whether the declared crosses take part.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(self, features: Features, crosses: bool = True) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        return self.linear(inputs)
