"""Auxiliary losses: what comes next in a history."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.embedding import Embedding
from tfrec.layers.random import RandomLayer


class NextItem(RandomLayer):
    """Cross-entropy of the next event's id at every step, by a softmax over the ids.

    The logit of id i is ⟨W h_t, e_i⟩ with e_i the row of the embedding table. With n negatives the
    sum over all ids is estimated: the true id stands for itself, and ids drawn for the whole batch
    by the log-uniform distribution q (ids are sorted by count), corrected by −log(n q), for all
    others; drawn ids that are the true one are left out.

    Source: Hidasi et al. 2016, Session-based Recommendations with Recurrent Neural Networks,
    section 3; Bengio & Senécal 2008, Adaptive Importance Sampling, for the estimate.

    Args:
        dim: of the table.
        negatives: how many; 0 for the softmax over all ids.

    Call: states (batch, events, units), ids (batch, events), table → losses (batch, events − 1)
    and weights of that shape, 1 where there is a next event.
    """

    def __init__(self, dim: int, negatives: int = 100, **kwargs) -> None:
        super().__init__(**kwargs)
        self.negatives = negatives
        self.map = keras.layers.Dense(dim, use_bias=False)

    def call(
        self, states: tf.Tensor, ids: tf.Tensor, table: Embedding, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        mapped = tf.cast(self.map(states[:, :-1]), tf.float32)
        targets = ids[:, 1:]
        if not self.negatives:
            logits = tf.matmul(mapped, table.table[1:], transpose_b=True)
            places = tf.maximum(targets - 1, 0)
        else:
            logits = self._sampled(mapped, targets, table, self.next_seed(training))
            places = tf.zeros_like(targets)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(places, logits)
        return losses, tf.cast(targets != 0, tf.float32)

    def _sampled(
        self, mapped: tf.Tensor, targets: tf.Tensor, table: Embedding, seed: tf.Tensor
    ) -> tf.Tensor:
        top = float(table.size)
        uniform = tf.random.stateless_uniform([self.negatives], seed, dtype=tf.float32)
        drawn = tf.cast(tf.exp(uniform * tf.math.log(top)), tf.int64)  # 1 … size − 1
        drawn = tf.clip_by_value(drawn, 1, table.size - 1)

        positive = tf.reduce_sum(mapped * tf.cast(table(targets), tf.float32), axis=-1)
        negative = tf.einsum("btd,nd->btn", mapped, tf.cast(table(drawn), tf.float32))
        expected = tf.math.log1p(1 / tf.cast(drawn, tf.float32)) / tf.math.log(top)  # q
        negative -= tf.math.log(self.negatives * expected)
        hit = targets[..., tf.newaxis] == drawn
        negative = tf.where(hit, tf.float32.min, negative)
        return tf.concat([positive[..., tf.newaxis], negative], axis=-1)


class NextEvent(RandomLayer):
    """−log σ(⟨h_t, e_{t+1}⟩) − log(1 − σ(⟨h_t, ê⟩)): the next event against one that was drawn.

    ê is an event of any history in the batch, so that it has all features of an event.

    Source: Zhou et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction,
    equation 6.

    Call: states (batch, events, width), events (batch, events, width), mask (batch, events)
    → losses (batch, events − 1) and weights of that shape, 1 where there is a next event.
    """

    def call(
        self, states: tf.Tensor, events: tf.Tensor, mask: tf.Tensor, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        states = tf.cast(states[:, :-1], tf.float32)
        following, real = tf.cast(events[:, 1:], tf.float32), mask[:, 1:]
        places = tf.where(mask)
        count = tf.maximum(tf.shape(places)[0], 1)
        draws = tf.random.stateless_uniform(
            tf.shape(real), self.next_seed(training), 0, count, dtype=tf.int32
        )
        places = tf.concat([places, tf.zeros([1, 2], places.dtype)], axis=0)  # none may be real
        drawn = tf.cast(tf.gather_nd(events, tf.gather(places, draws)), tf.float32)
        positive = tf.reduce_sum(states * following, axis=-1)
        negative = tf.reduce_sum(states * drawn, axis=-1)
        return tf.nn.softplus(-positive) + tf.nn.softplus(negative), tf.cast(real, tf.float32)
