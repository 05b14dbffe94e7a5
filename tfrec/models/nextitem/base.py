"""What models of sequences have in common."""

from __future__ import annotations

import tensorflow as tf

from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.layers.recurrent import last_state
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import RetrievalModel


class NextItemModel(RetrievalModel):
    """A model that tells the item after each event of a history: subclasses give `states`.

    The score of an item is ⟨h, v⟩ of a state h and the item's vector v in the table that the events
    are looked up in. Where training examples are whole sequences, one per user, it learns from
    every event of them; where each event is an example, from that event alone.

    Args:
        features: of the data set; the first feature of a history repeats the item's id.
        dim: length of the item vectors.

    Raises:
        ValueError: there is no such history.
    """

    def __init__(self, features: Features, dim: int) -> None:
        super().__init__(features)
        found = [h for h in features.histories if h.mask_feature.mirrors == features.item_id]
        if not found:
            raise ValueError("needs a history whose first feature is the item's id")
        self.history = found[0]
        self.embedding = Embedding(features.table(self.item_id.table).size, dim)

    def states(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        """(batch, events, dim) states after each event.

        Args:
            ids: (batch, events) items, oldest first, 0 behind the last one.
            training: whether dropout and the like take part.
        """
        raise NotImplementedError

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        ids = inputs[self.history.mask_feature.name]
        return last_state(self.states(ids, training), ids != 0)

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.embedding(inputs[self.item_id.name])

    def target_ids(self, inputs: Inputs) -> tf.Tensor:
        """(batch, events): the item after each event, where it is to be told."""
        ids = inputs[self.history.mask_feature.name]
        following = tf.concat([ids[:, 1:], tf.zeros_like(ids[:, :1])], axis=1)
        count = tf.reduce_sum(tf.cast(ids != 0, tf.int32), axis=1, keepdims=True)
        last = tf.range(tf.shape(ids)[1]) == count - 1
        if not self.features.sequences:
            following = tf.zeros_like(following)
        return tf.where(last, inputs[self.item_id.name][:, tf.newaxis], following)

    def targets(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        ids = self.target_ids(inputs)
        states = self.states(inputs[self.history.mask_feature.name], training=True)
        places = tf.where(ids != 0)
        return tf.gather_nd(states, places), tf.gather_nd(ids, places), places[:, 0]
