"""Neural collaborative filtering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import tensorflow as tf
import tf_keras as keras
from pydantic import Field, PositiveInt

from tfrec.config import Width
from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.layers.mlp import MLP
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import RetrievalModel

PAIRS_AT_ONCE = 2**18


@keras.utils.register_keras_serializable("tfrec")
class NCF(RetrievalModel):
    """s = ⟨h, [MLP(p_u, q_i), p'_u ∘ q'_i]⟩: a product that is learned, beside one that is given.

    The MLP's first layer is W p_u + V q_i + b, so that the parts of it are made once for a user and
    once for an item, and not for every pair: `users` and `items` give those.

    Source: He et al. 2017, Neural Collaborative Filtering, equations 10 to 12, without the first
    training of the two parts by themselves.

    Args:
        features: of the data set, with ids of the user and of the item.
        dim: length of p_u and q_i, and of p'_u and q'_i.
        hidden: widths of the MLP, one at least.
        gmf: whether there is the second part (NeuMF).
        stddev: of the initial vectors.

    Call: dict of inputs → {"score": (batch,)}.

    Raises:
        ValueError: the features have no id of the user.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "validations_per_epoch": 1,
        "item_loss": {"kind": "bce", "negatives": 4},
    }

    def __init__(
        self,
        features: Features,
        dim: Width = 32,
        hidden: Annotated[Sequence[PositiveInt], Field(min_length=1)] = (64, 32, 16),
        gmf: bool = True,
        stddev: float = 0.05,
    ) -> None:
        super().__init__(features)
        first, *others = hidden
        parts = ("mlp", "gmf") if gmf else ("mlp",)
        self.vectors: dict[str, dict[str, Embedding]] = {
            side: {part: Embedding(t.size, dim, stddev, t.oov) for part in parts}
            for side, t in self.id_tables.items()
        }
        self.first = {
            "user": keras.layers.Dense(first, kernel_initializer="he_normal"),
            "item": keras.layers.Dense(first, use_bias=False, kernel_initializer="he_normal"),
        }
        self.mlp = MLP(others)
        self.scoring = keras.layers.Dense(1, use_bias=False)
        self.width = first

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        return self._side("user", inputs[self.user_id])

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        del training
        return self._side("item", inputs[self.item_id.name])

    def _side(self, side: str, ids: tf.Tensor) -> tf.Tensor:
        """(n, width): W p, and p' behind it."""
        vectors = self.vectors[side]
        parts = [self.first[side](vectors["mlp"](ids))]
        return tf.concat([*parts, *(vectors[p](ids) for p in vectors if p != "mlp")], axis=1)

    def scores(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        if items.shape.rank == 3:
            return self._pairs(users[:, tf.newaxis], items)
        # All pairs at once would take as many rows of the MLP's widths.
        count, of_items = tf.shape(users)[0], tf.shape(items)[0]
        at_once = PAIRS_AT_ONCE // tf.maximum(of_items, 1)
        at_once = tf.clip_by_value(at_once, 1, tf.maximum(count, 1))
        padded = tf.pad(users, [[0, -count % at_once], [0, 0]])
        parts = tf.reshape(padded, [-1, at_once, users.shape[1]])
        found = tf.map_fn(
            lambda part: self._pairs(part[:, tf.newaxis], items[tf.newaxis]),
            parts,
            fn_output_signature=tf.float32,
        )
        return tf.reshape(found, [-1, of_items])[:count]

    def _pairs(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Scores (a, b) of users (a, 1, width) and items (a or 1, b, width)."""
        user, item = users[..., : self.width], items[..., : self.width]
        hidden = self.mlp(tf.nn.relu(user + item))
        product = users[..., self.width :] * items[..., self.width :]
        joined = tf.concat([hidden, product], axis=-1)
        return tf.cast(self.scoring(joined)[..., 0], tf.float32)
