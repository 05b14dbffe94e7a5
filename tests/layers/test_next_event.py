from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.models.history_reference import next_item_losses
from tfrec.layers.embedding import Embedding
from tfrec.layers.next_event import NextEvent, NextItem

IDS = np.array([[3, 1, 7, 2, 3], [4, 9, 1, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
SIZE, DIM, UNITS = 10, 4, 3


def states(shape: tuple[int, ...] = (*IDS.shape, UNITS)) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def table() -> Embedding:
    layer = Embedding(SIZE, DIM)
    layer(tf.constant([1]))
    layer.table.assign(np.random.default_rng(1).normal(size=(SIZE, DIM)))
    return layer


def called(layer: NextItem, embedding: Embedding, ids: Any = IDS, **arguments: Any) -> Any:
    losses, weights = layer(tf.constant(states()), tf.constant(ids), embedding, **arguments)
    return losses.numpy(), weights.numpy()


def test_softmax_over_all_ids_of_the_next_one() -> None:
    layer, embedding = NextItem(DIM, negatives=0), table()
    losses, _ = called(layer, embedding)
    for row, ids in enumerate(IDS):
        real = ids[ids != 0]
        expected = next_item_losses(
            layer, embedding.table.numpy(), states()[row, : len(real)], real
        )
        np.testing.assert_allclose(losses[row][: len(expected)], expected, rtol=1e-5)


@pytest.mark.parametrize("negatives", [0, 20])
def test_only_steps_with_a_next_event_count(negatives: int) -> None:
    losses, weights = called(NextItem(DIM, negatives), table())
    assert losses.shape == weights.shape == (4, 4)
    np.testing.assert_array_equal(weights, IDS[:, 1:] != 0)
    assert np.isfinite(losses).all()


def mean_losses(layer: NextItem, embedding: Embedding, ids: Any, draws: int) -> Any:
    return np.mean([called(layer, embedding, ids, training=True)[0] for _ in range(draws)], axis=0)


def test_many_draws_give_the_softmax_over_all_ids() -> None:
    """Only with −log q: small ids are drawn much more often than large ones."""
    keras.utils.set_random_seed(2)
    layer, full, embedding = NextItem(DIM, 20_000), NextItem(DIM, 0), table()
    called(layer, embedding)
    called(full, embedding)
    full.map.kernel.assign(layer.map.kernel)
    found = mean_losses(layer, embedding, IDS, draws=10)
    exact, weights = called(full, embedding)
    np.testing.assert_allclose(found[weights == 1], exact[weights == 1], atol=0.02)


def test_every_id_counts_the_same_however_popular_it_is() -> None:
    """All products are 0, so that 1 / q of the drawn ids is all there is: a sign would show."""
    keras.utils.set_random_seed(3)
    layer, embedding = NextItem(DIM, 3_000), table()
    embedding.table.assign(tf.zeros_like(embedding.table))
    every = np.array([[1, 1, 2, 3, 9]])
    losses, _ = layer(tf.zeros([1, 5, UNITS]), tf.constant(every), embedding, training=True)
    np.testing.assert_allclose(losses[0], np.log(SIZE - 1), atol=0.1)


@pytest.mark.parametrize("negatives", [1, 50])
def test_a_drawn_id_that_is_the_true_one_is_left_out(negatives: int) -> None:
    """With a single id there is nothing else, and so nothing to lose."""
    layer, embedding = NextItem(DIM, negatives), Embedding(2, DIM)
    ids = np.array([[1, 1, 1, 1, 1]])
    losses, _ = layer(tf.constant(states()[:1]), tf.constant(ids), embedding, training=True)
    np.testing.assert_array_equal(losses, np.zeros((1, 4)))


def test_draws_differ_in_training_and_are_the_same_otherwise() -> None:
    layer, embedding = NextItem(DIM, 5), table()
    called(layer, embedding)
    before = layer.state.numpy()
    served = [called(layer, embedding, training=False)[0] for _ in range(2)]
    np.testing.assert_array_equal(*served)
    np.testing.assert_array_equal(layer.state, before)
    trained = [called(layer, embedding, training=True)[0] for _ in range(2)]
    assert not np.allclose(*trained)
    np.testing.assert_array_equal(layer.state, [before[0], before[1] + 2])


def test_the_state_predicts_the_next_id_and_not_its_own() -> None:
    """The loss of step t is of state t and of id t + 1, and of no other."""
    layer, embedding = NextItem(DIM, 0), table()
    values = states()[:1]

    def losses(given: Any, ids: Any) -> Any:
        return layer(tf.constant(given), tf.constant(ids), embedding)[0].numpy()[0]

    before = losses(values, IDS[:1])
    for step in range(5):
        other = values.copy()
        other[0, step] += 1
        moved = ~np.isclose(losses(other, IDS[:1]), before)
        np.testing.assert_array_equal(moved, np.arange(4) == step)
        ids = IDS[:1].copy()
        ids[0, step] = 8
        moved = ~np.isclose(losses(values, ids), before)
        np.testing.assert_array_equal(moved, np.arange(4) == step - 1)


MASK = tf.constant(IDS != 0)


def softplus(x: Any) -> Any:
    return np.log1p(np.exp(x))


def test_next_event_against_the_only_event_that_can_be_drawn() -> None:
    """All events are alike, so that the draw is known: equation 6."""
    event = np.array([0.5, -1.0, 2.0], np.float32)
    events = np.where(MASK.numpy()[..., np.newaxis], event, 0).astype(np.float32)
    losses, weights = NextEvent()(tf.constant(states()), tf.constant(events), MASK, training=True)
    products = states()[:, :-1] @ event
    expected = softplus(-products) + softplus(products)
    real = IDS[:, 1:] != 0
    np.testing.assert_array_equal(weights, real)
    np.testing.assert_allclose(losses.numpy()[real], expected[real], rtol=1e-5)


def test_next_event_is_told_from_real_events_of_the_batch() -> None:
    events = np.where(MASK.numpy()[..., np.newaxis], states((*IDS.shape, UNITS)) + 3, 0)
    events = events.astype(np.float32)
    real = IDS[:, 1:] != 0
    products = np.einsum("btu,eu->bte", states()[:, :-1], events[IDS != 0])
    positive = softplus(-np.einsum("btu,btu->bt", states()[:, :-1], events[:, 1:]))
    possible = (positive[..., np.newaxis] + softplus(products))[real]
    layer, drawn = NextEvent(), set()
    for _ in range(40):
        losses, _ = layer(tf.constant(states()), tf.constant(events), MASK, training=True)
        apart = np.abs(possible - losses.numpy()[real][:, np.newaxis])
        assert (apart.min(axis=1) < 1e-4).all()
        drawn |= set(apart.argmin(axis=1))
    assert len(drawn) == possible.shape[1]  # each of them some time


def test_next_event_of_nothing_but_padding_is_finite() -> None:
    nothing = tf.zeros(IDS.shape, tf.bool)
    for training in (False, True):
        losses, weights = NextEvent()(
            tf.zeros([*IDS.shape, UNITS]), tf.zeros([*IDS.shape, UNITS]), nothing, training=training
        )
        assert np.isfinite(losses).all()
        assert not weights.numpy().any()


def test_next_event_draws_others_in_training_only() -> None:
    layer = NextEvent()
    arguments = (tf.constant(states()), tf.constant(states()), MASK)
    served = [layer(*arguments, training=False)[0] for _ in range(2)]
    np.testing.assert_array_equal(*served)
    assert layer.state[1] == 0
    trained = [layer(*arguments, training=True)[0] for _ in range(2)]
    assert not np.allclose(*trained)
    assert layer.state[1] == 2
