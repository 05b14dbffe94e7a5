import numpy as np
import pytest
import tensorflow as tf

from tfrec.config import LossConfig
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


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(pos_weight=3.0),
        LossConfig(kind="focal", gamma=2.0, alpha=0.3),
        LossConfig(kind="focal", gamma=0.5, alpha=0.9),
        LossConfig(kind="weighted_logistic"),
    ],
)
def test_losses_follow_their_equations_and_are_finite_far_out(config: LossConfig) -> None:
    z = np.array([-100.0, -4.0, -0.3, 0.0, 0.7, 5.0, 100.0] * 2)
    y = np.array([0.0] * 7 + [1.0] * 7)
    watched = np.linspace(1, 14, 14)
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-z))
    near = np.abs(z) < 50
    log_p, log_q = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    if config.kind == "focal":
        positive = config.alpha * (1 - p) ** config.gamma * y * log_p
        expected = -positive - (1 - config.alpha) * p**config.gamma * (1 - y) * log_q
    else:
        expected = -config.pos_weight * y * log_p - (1 - y) * log_q
    logits = tf.Variable(z, dtype=tf.float32)
    with tf.GradientTape() as tape:
        losses, weights = task_loss(
            Label("like"), tf.constant(y, tf.float32), logits,
            tf.constant(watched, tf.float32), config,
        )  # fmt: skip
        total = tf.reduce_sum(losses)
    np.testing.assert_allclose(losses.numpy()[near], expected[near], rtol=1e-4, atol=1e-6)
    gradient = tape.gradient(total, logits).numpy()
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    step = 1e-3
    above, below = (
        task_loss(
            Label("like"), tf.constant(y), tf.constant(z + d), tf.ones(14, tf.float64), config
        )
        for d in (step, -step)
    )
    numeric = (above[0] - below[0]).numpy() / (2 * step)
    np.testing.assert_allclose(gradient[near], numeric[near], rtol=1e-2, atol=1e-4)
    only_positives = np.where(y == 1, watched, 1)
    expected_weights = only_positives if config.kind == "weighted_logistic" else watched
    np.testing.assert_allclose(weights, expected_weights)


def test_regression_loss_is_the_squared_error() -> None:
    label = Label("stars", "regression")
    losses, _ = task_loss(label, tf.constant([3.0, 5.0]), tf.constant([2.5, 1.0]), tf.ones(2))
    np.testing.assert_allclose(losses, [0.25, 16.0])


def test_missing_labels_have_no_part_in_loss_or_gradient() -> None:
    logits = tf.Variable([1.0, 2.0, 3.0])
    labels = tf.constant([1.0, np.nan, 0.0])
    weights = tf.constant([2.0, 5.0, 1.0])
    with tf.GradientTape() as tape:
        mean, told = global_mean(*task_loss(Label("like"), labels, logits, weights))
    losses = -np.log([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(3))])
    assert float(mean) == pytest.approx((2 * losses[0] + losses[1]) / 3, rel=1e-5)
    assert tape.gradient(mean, logits)[1] == 0
    assert told == 1


def test_a_watch_time_of_zero_leaves_an_example_out() -> None:
    config, labels = LossConfig(kind="weighted_logistic"), tf.constant([1.0, 0.0, 1.0, 0.0])
    watched = tf.constant([30.0, 7.0, 0.0, 0.0])
    _, weights = task_loss(Label("like"), labels, tf.zeros(4), watched, config)
    np.testing.assert_array_equal(weights, [30, 1, 0, 0])


def test_a_label_that_is_infinite_is_not_taken_for_a_missing_one() -> None:
    label = Label("stars", "regression")
    losses = task_loss(label, tf.constant([np.inf, 1.0]), tf.constant([0.0, 0.0]), tf.ones(2))
    assert not np.isfinite(global_mean(*losses)[0])


def test_nothing_known_is_a_loss_of_zero_that_is_not_told() -> None:
    losses, weights = task_loss(Label("x"), tf.constant([np.nan]), tf.constant([1.0]), tf.ones(1))
    assert [float(value) for value in global_mean(losses, weights)] == [0, 0]
