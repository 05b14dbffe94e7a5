from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrec.layers.padding import short_and_long

COUNTS = [3, 0, 9, 2, 1, 3, 2, 0, 4, 1]


def sequences(counts: list[int], steps: int = 12) -> Any:
    ids = np.random.default_rng(0).integers(1, 50, (len(counts), steps))
    return np.where(np.arange(steps) < np.array(counts)[:, np.newaxis], ids, 0)


def sums_so_far(ids: tf.Tensor) -> tf.Tensor:
    """States that depend on the steps before, and are not zero at padding."""
    return tf.cast(tf.stack([tf.cumsum(ids, axis=1), ids + 1], axis=-1), tf.float32)


@pytest.mark.parametrize("counts", [COUNTS, [0, 0], [12, 12, 12], [5], [1, 12]])
def test_gives_what_the_function_gives_of_the_whole(counts: list[int]) -> None:
    ids = sequences(counts)
    found = short_and_long(sums_so_far, tf.constant(ids)).numpy()
    assert found.shape == (*ids.shape, 2)
    expected = sums_so_far(tf.constant(ids)).numpy()
    np.testing.assert_array_equal(found[ids != 0], expected[ids != 0])


def test_little_padding_is_computed() -> None:
    shapes: list[tuple[int, ...]] = []

    def states(ids: tf.Tensor) -> tf.Tensor:
        shapes.append(tuple(ids.shape))
        return sums_so_far(ids)

    short_and_long(states, tf.constant(sequences(COUNTS)))
    cuts = range(1, 10)
    by_cut = [sum(cut if count <= cut else 9 for count in COUNTS) for cut in cuts]
    assert sum(rows * steps for rows, steps in shapes) == min(by_cut) == 42


def test_gradients_are_those_of_the_whole() -> None:
    ids, weights = tf.constant(sequences(COUNTS)), tf.Variable(np.ones((50, 3), np.float32))
    gradients = []
    for function in (short_and_long, lambda states, ids: states(ids)):
        with tf.GradientTape() as tape:
            states = function(lambda part: tf.cumsum(tf.gather(weights, part), axis=1), ids)
            loss = tf.reduce_sum(tf.square(states[ids != 0]))
        gradients.append(tf.convert_to_tensor(tape.gradient(loss, weights)))
    np.testing.assert_allclose(*gradients, rtol=1e-5)
