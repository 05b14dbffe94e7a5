"""Which items of a sequence are masked, to be told from the others."""

from __future__ import annotations

import tensorflow as tf

from tfrec.layers.random import RandomLayer


class Cloze(RandomLayer):
    """Chooses steps at random; the last one where chance chooses none.

    Source: Sun et al. 2019, BERT4Rec, section 3.6.

    Args:
        share: of the steps that are chosen.
        last_only: share of the sequences in which only the last step is.

    Call: (batch, steps) bool, True where a step may be chosen → the same, True where it is.
    """

    def __init__(self, share: float, last_only: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.share, self.last_only = share, last_only

    def call(self, steps: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        batch, length = tf.unstack(tf.shape(steps))
        draws = tf.random.stateless_uniform([batch, length + 1], self.next_seed(training))
        chosen = steps & (draws[:, 1:] < self.share) & (draws[:, :1] >= self.last_only)
        last = steps & (tf.cumsum(tf.cast(steps, tf.int32), axis=1, reverse=True) == 1)
        return tf.where(tf.reduce_any(chosen, axis=1, keepdims=True), chosen, last)
