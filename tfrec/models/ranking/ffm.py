"""Field-aware factorization machine."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import FieldAwareEmbeddings
from tfrec.layers.interactions import field_aware_products
from tfrec.layers.linear import Linear
from tfrec.models.base import SMALL_DATA, Inputs, RankingModel


@keras.utils.register_keras_serializable("tfrec")
class FFM(RankingModel):
    """z = w0 + Σ w_i x_i + Σ_{i<j} ⟨v_{i,F(j)}, v_{j,F(i)}⟩ x_i x_j: a vector per other field.

    Source: Juan et al. 2016, Field-aware Factorization Machines for CTR Prediction, equation 4;
    the first-order terms as in the authors' remark on linear terms.

    Args:
        features: of the data set.
        dim: length of the vectors (4 in the paper); a row of a table has fields × dim numbers.
        crosses: whether the declared crosses are first-order terms too.

    Call: dict of inputs → {task: (batch,) logits}.
    """

    defaults: ClassVar[dict[str, Any]] = SMALL_DATA

    def __init__(self, features: Features, dim: Width = 4, crosses: bool = True) -> None:
        super().__init__(features)
        self.linear = Linear(features, crosses)
        self.embeddings = FieldAwareEmbeddings(features, dim)

    def logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        vectors = self.embeddings(inputs)
        pairs = tf.reduce_sum(field_aware_products(vectors), axis=1)
        return self.linear(inputs) + tf.cast(pairs, tf.float32)
