"""What models of sequences have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from tfrec.features import Features
from tfrec.layers.embedding import Embedding
from tfrec.layers.padding import short_and_long
from tfrec.layers.recurrent import last_state
from tfrec.models.base import Inputs
from tfrec.models.retrieval.base import RetrievalModel

# Training settings for some 10,000 sequences.
SEQUENCES: dict[str, Any] = {
    "batch_size": 256,
    "epochs": 60,
    "validations_per_epoch": 1,
    "patience": 5,
    "item_loss": {"negatives": 512},
}


class NextItemModel(RetrievalModel):
    """A model that tells the item after each event of a history: subclasses give `states`.

    The score of an item is ⟨h, v⟩ of a state h and the item's vector v in the table that the events
    are looked up in. Where training examples are whole sequences, one per user, it learns from
    every event of them; where each event is an example, from that event alone.

    Args:
        features: of the data set; the first feature of a history repeats the item's id.
        dim: length of the item vectors.
        stddev: of the initial ones.
        special: ids behind those of the table, which stand for no item.

    Raises:
        ValueError: there is no such history.
    """

    xla: ClassVar[bool] = False  # targets are as many as there are events

    def __init__(self, features: Features, dim: int, stddev: float, special: int = 0) -> None:
        super().__init__(features)
        found = [h for h in features.histories if h.mask_feature.mirrors == features.item_id]
        if not found:
            raise ValueError("needs a history whose first feature is the item's id")
        self.history = found[0]
        size = features.table(self.item_id.table).size + special
        self.embedding = Embedding(size, dim, stddev)

    def states(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        """(batch, steps, dim) states at each step.

        Args:
            ids: (batch, steps) items, oldest first, 0 behind the last one.
            training: whether dropout and the like take part.
        """
        raise NotImplementedError

    def states_of(self, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        """`states`, with little padding computed."""
        return short_and_long(lambda part: self.states(part, training), ids)

    def users(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        ids = inputs[self.history.mask_feature.name]
        return last_state(self.states_of(ids, training), ids != 0)

    def items(self, inputs: Inputs, training: bool | None = None) -> tf.Tensor:
        return self.embedding(inputs[self.item_id.name])

    def sequences(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        """Histories with the examples' own items behind them.

        Returns:
            (batch, events + 1) ids, and which of them are to be told.
        """
        history, item = inputs[self.history.mask_feature.name], inputs[self.item_id.name]
        ids = followed_by(history, item)
        told = ids != 0
        if not self.features.sequences:
            told &= tf.pad(history, [[0, 0], [0, 1]]) == 0
        return ids, told

    def target_ids(self, inputs: Inputs) -> tf.Tensor:
        """(batch, events): the item after each event, where it is to be told."""
        ids, told = self.sequences(inputs)
        return tf.where(told, ids, 0)[:, 1:]

    def targets(self, inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        ids = self.target_ids(inputs)
        states = self.states_of(inputs[self.history.mask_feature.name], training=True)
        places = tf.where(ids != 0)
        return tf.gather_nd(states, places), tf.gather_nd(ids, places), places[:, 0]


def followed_by(history: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    """Sequences with one more item.

    Args:
        history: (batch, events) ids, 0 behind the last one.
        item: (batch,) ids, or one for all.

    Returns:
        (batch, events + 1) ids.
    """
    events = tf.shape(history)[1]
    count = tf.math.count_nonzero(history, axis=1, dtype=tf.int32)
    last = tf.one_hot(count, events + 1, dtype=history.dtype)
    return tf.pad(history, [[0, 0], [0, 1]]) + last * tf.reshape(item, [-1, 1])
