"""Matrix factorization."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import RetrievalModel


@keras.utils.register_keras_serializable("tfrec")
class MF(RetrievalModel):
    """s = ⟨p_u, q_i⟩ + b_u + b_i: a vector and a bias for every user and every item.

    Source: Koren, Bell & Volinsky 2009, Matrix Factorization Techniques for Recommender Systems,
    equation 4, without the global mean, which orders nothing.

    Args:
        features: of the data set, with ids of the user and of the item.
        dim: length of p_u and q_i.
        biases: whether there are biases; b_u matters to losses of single scores alone.
        stddev: of the initial vectors.

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: the features have no id of the user.
    """

    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, features: Features, dim: Width = 64, biases: bool = True, stddev: float = 0.1, normalise: bool = False
    ) -> None:
        super().__init__(features)
        self.normalise = normalise
        if not features.user_id:
            raise ValueError("needs the user's id: a category of the column named in `user`")
        user, item = features.feature(features.user_id), self.item_id
        tables = {"user": features.table(user.table), "item": features.table(item.table)}
        self.vectors = {name: Embedding(t.size, dim, stddev) for name, t in tables.items()}
        self.biases = {name: Embedding(t.size, 1, 0.0) for name, t in tables.items() if biases}

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        ids = inputs[str(self.features.user_id)]
        vectors = self.vectors["user"](ids)
        if self.normalise:
            vectors = tf.math.l2_normalize(vectors, axis=1)
        if not self.biases:
            return vectors
        bias = self.biases["user"](ids)
        return tf.concat([vectors, bias, tf.ones_like(bias)], axis=1)

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        ids = inputs[self.item_id.name]
        vectors = self.vectors["item"](ids)
        if self.normalise:
            vectors = tf.math.l2_normalize(vectors, axis=1)
        if not self.biases:
            return vectors
        bias = self.biases["item"](ids)
        return tf.concat([vectors, tf.ones_like(bias), bias], axis=1)
