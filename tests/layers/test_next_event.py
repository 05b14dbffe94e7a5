from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.models.history_reference import next_item_losses, softmax
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
    losses, weights = called(layer, embedding)
    for row, ids in enumerate(IDS):
        real = ids[ids != 0]
        expected = next_item_losses(layer, embedding.table.numpy(), states()[row], real)
        np.testing.assert_allclose(losses[row][: len(expected)], expected, rtol=1e-5)


@pytest.mark.parametrize("negatives", [0, 20])
def test_only_steps_with_a_next_event_count(negatives: int) -> None:
    losses, weights = called(NextItem(DIM, negatives), table())
    assert losses.shape == weights.shape == (4, 4)
    np.testing.assert_array_equal(weights, IDS[:, 1:] != 0)
    assert np.isfinite(losses).all()


def sampled(
    embedding: Embedding, negatives: int, draws: int = 1, ids: Any = IDS, training: bool = True
) -> tuple[NextItem, Any]:
    """The layer, and the mean losses of several draws."""
    layer = NextItem(DIM, negatives)
    called(layer, embedding)
    values = [called(layer, embedding, ids, training=training)[0] for _ in range(draws)]
    return layer, np.mean(values, axis=0)


def test_many_draws_give_the_softmax_over_all_ids() -> None:
    """Only with −log q: q gives small ids much more often than large ones."""
    keras.utils.set_random_seed(2)
    embedding, negatives = table(), 20_000
    layer, losses = sampled(embedding, negatives)
    real = IDS[:, 1:] != 0
    rows = embedding.table.numpy()[1:]
    for row, step in np.argwhere(real):
        scores = rows @ (states()[row, step] @ layer.map.kernel.numpy())
        true = IDS[row, step + 1] - 1
        # The true id is taken for drawn once; q / n of the others are near their share of all.
        q = np.log1p(1 / np.arange(1, SIZE)) / np.log(SIZE)
        others = np.delete(np.exp(scores), true).sum() * negatives
        exact = -np.log(np.exp(scores[true]) / q[true])
        expected = exact + np.log(np.exp(-exact) + others)
        assert losses[row, step] == pytest.approx(expected, abs=0.05)


def test_log_q_makes_up_for_how_often_an_id_is_drawn() -> None:
    """With equal products every id must count the same, however popular it is."""
    embedding = table()
    embedding.table.assign(tf.zeros_like(embedding.table))
    keras.utils.set_random_seed(3)
    _, losses = sampled(embedding, negatives=5_000)
    real = IDS[:, 1:] != 0
    targets = IDS[:, 1:][real]
    q = np.log1p(1 / targets) / np.log(SIZE)
    # 1 / q of the true id, against Σ 1 / q over the drawn ids that are not it: n per other id
    expected = np.log(1 + 5_000 * (SIZE - 2) * q)
    np.testing.assert_allclose(losses[real], expected, atol=0.1)
    assert np.ptp(expected) > 1
