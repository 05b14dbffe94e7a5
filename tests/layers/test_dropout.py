from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfrec.layers.dropout import Dropout


def test_share_and_scale() -> None:
    layer = Dropout(0.25)
    kept = layer(tf.ones([1000, 100]), training=True).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    assert (kept == 0).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(layer(tf.ones([3, 2]), training=False), np.ones((3, 2)))


def test_masks_differ_by_call_and_by_layer_and_follow_the_seed() -> None:
    def masks() -> list[Any]:
        keras.utils.set_random_seed(5)
        first, second = Dropout(0.5), Dropout(0.5)
        ones = tf.ones([20, 20])
        return [layer(ones, training=True).numpy() for layer in (first, first, second)]

    once, again = masks(), masks()
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once[0], once[2])


def test_a_restored_layer_goes_on_with_the_masks_that_were_to_come(tmp_path: Any) -> None:
    ones = tf.ones([30, 30])
    layer = Dropout(0.5)
    layer(ones, training=True)
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "layer"))
    expected = layer(ones, training=True)
    other = Dropout(0.5)
    other(ones)
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(ones, training=True), expected)


def test_replicas_have_masks_of_their_own(mirrored: Any) -> None:
    with mirrored.scope():
        layer = Dropout(0.5)
        layer(tf.ones([1, 10]))
    step = tf.function(lambda: mirrored.run(lambda: layer(tf.ones([50, 10]), training=True)))
    for _ in range(2):
        first, second = mirrored.experimental_local_results(step())
        assert not np.array_equal(first, second)
