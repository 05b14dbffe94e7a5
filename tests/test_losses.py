import numpy as np
import pytest
import tensorflow as tf

from tfrec.features import Label
from tfrec.losses import global_mean, task_loss


def test_binary_loss_is_finite_and_its_gradient_is_p_minus_y() -> None:
    logits = tf.Variable([-100.0, -3.0, 0.0, 3.0, 100.0] * 2)
    labels = tf.constant([0.0] * 5 + [1.0] * 5)
    with tf.GradientTape() as tape:
        losses, weights = task_loss(Label("like"), labels, logits, tf.ones(10))
        total = tf.reduce_sum(losses * weights)
    assert np.isfinite(losses).all()
    gradient = tape.gradient(total, logits)
    np.testing.assert_allclose(gradient, tf.sigmoid(logits) - labels, atol=1e-6)
    np.testing.assert_allclose(losses[2], np.log(2), rtol=1e-6)


def test_regression_loss_is_the_squared_error() -> None:
    label = Label("stars", "regression")
    losses, _ = task_loss(label, tf.constant([3.0, 5.0]), tf.constant([2.5, 1.0]), tf.ones(2))
    np.testing.assert_allclose(losses, [0.25, 16.0])


def test_missing_labels_have_no_part_in_loss_or_gradient() -> None:
    logits = tf.Variable([1.0, 2.0, 3.0])
    labels = tf.constant([1.0, np.nan, 0.0])
    weights = tf.constant([2.0, 5.0, 1.0])
    with tf.GradientTape() as tape:
        mean = global_mean(*task_loss(Label("like"), labels, logits, weights))
    losses = -np.log([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(3))])
    assert float(mean) == pytest.approx((2 * losses[0] + losses[1]) / 3, rel=1e-5)
    assert tape.gradient(mean, logits)[1] == 0


def test_nothing_known_is_a_loss_of_zero() -> None:
    losses, weights = task_loss(Label("x"), tf.constant([np.nan]), tf.constant([1.0]), tf.ones(1))
    assert float(global_mean(losses, weights)) == 0
