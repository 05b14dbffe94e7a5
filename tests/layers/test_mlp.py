import numpy as np
import tensorflow as tf

from tfrec.layers.mlp import MLP


def test_dropout_and_batch_norm_differ_between_training_and_serving() -> None:
    tf.random.set_seed(0)
    x = tf.random.normal([64, 5])
    dropped = MLP([16], dropout=0.5)
    assert not np.allclose(dropped(x, training=True), dropped(x, training=False))
    normed = MLP([16], activation="linear", batch_norm=True)
    np.testing.assert_allclose(tf.reduce_mean(normed(x, training=True), axis=0), 0, atol=1e-4)


def test_widths_and_last_layer() -> None:
    x = tf.zeros([2, 3])
    assert MLP([8, 4])(x).shape == (2, 4)
    assert MLP([8, 4], output=1)(x).shape == (2, 1)
    assert MLP([], output=2)(x).shape == (2, 2)
