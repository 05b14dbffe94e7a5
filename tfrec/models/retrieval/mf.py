"""Matrix factorization."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf
import tf_keras as keras

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import OF_UNIT_VECTORS, RetrievalModel
from tfrec.overrides import merge


@keras.utils.register_keras_serializable("tfrec")
class MF(RetrievalModel):
    """s = ⟨p_u, q_i⟩ + b_u + b_i: a vector and a bias for every user and every item.

    Source: Koren, Bell & Volinsky 2009, Matrix Factorization Techniques for Recommender Systems,
    equation 4, without the global mean, which orders nothing.

    Args:
        features: of the data set, with ids of the user and of the item.
        dim: length of p_u and q_i.
        biases: whether there are biases; b_u matters to losses of single scores alone.
        normalise: divide p_u and q_i by their lengths.
        stddev: of the initial vectors.

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: the features have no id of the user.
    """

    # The temperature is by validation, with biases.
    defaults: ClassVar[dict[str, Any]] = merge(
        OF_UNIT_VECTORS, {"item_loss": {"temperature": 0.12}}
    )

    def __init__(
        self,
        features: Features,
        dim: Width = 128,
        biases: bool = True,
        normalise: bool = True,
        stddev: float = 0.1,
    ) -> None:
        super().__init__(features)
        tables = self.id_tables
        self.vectors = {name: Embedding(t.size, dim, stddev, t.oov) for name, t in tables.items()}
        self.biases = {name: Embedding(t.size, 1, 0.0) for name, t in tables.items() if biases}
        self.normalise = normalise

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        vectors, *bias = self._side("user", inputs[self.user_id])
        return tf.concat([vectors, *bias, *map(tf.ones_like, bias)], axis=1)

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        vectors, *bias = self._side("item", inputs[self.item_id.name])
        return tf.concat([vectors, *map(tf.ones_like, bias), *bias], axis=1)

    def _side(self, side: str, ids: tf.Tensor) -> list[tf.Tensor]:
        """Vectors, and biases (n, 1) where there are some."""
        parts = [self.scaled(self.vectors[side](ids))]
        return [*parts, tf.cast(self.biases[side](ids), parts[0].dtype)] if self.biases else parts
