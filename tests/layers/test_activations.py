import numpy as np
import tensorflow as tf

from tfrec.layers.activations import ChannelPReLU, Dice, activation_layer


def test_dice_uses_batch_moments_in_training_and_moving_ones_when_serving() -> None:
    x = np.random.default_rng(0).normal(3, 2, (50, 2, 4)).astype(np.float32)
    layer = Dice(momentum=0.9)
    layer.build(x.shape)
    slope = np.array([0.1, -0.3, 0.0, 0.7], np.float32)
    layer.slope.assign(slope)
    mean, variance = x.mean(axis=(0, 1)), x.var(axis=(0, 1))
    p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + 1e-8)))
    expected = p * x + (1 - p) * slope * x
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.variance, 0.9 + 0.1 * variance, rtol=1e-4)
    moving_mean, moving_variance = layer.mean.numpy(), layer.variance.numpy()
    p = 1 / (1 + np.exp(-(x - moving_mean) / np.sqrt(moving_variance + 1e-8)))
    served = p * x + (1 - p) * slope * x
    np.testing.assert_allclose(layer(x, training=False), served, rtol=1e-4, atol=1e-4)


def test_dice_is_not_poisoned_by_an_empty_batch() -> None:
    layer = Dice()
    layer(tf.zeros([0, 3]), training=True)
    np.testing.assert_array_equal(layer.mean, [0, 0, 0])
    np.testing.assert_array_equal(layer.variance, [1, 1, 1])


def test_prelu_has_a_slope_per_channel() -> None:
    layer = ChannelPReLU()
    layer.build((None, 2))
    layer.slope.assign([0.5, 2.0])
    np.testing.assert_allclose(layer(tf.constant([[-1.0, -1.0], [3.0, 4.0]])), [[-0.5, -2], [3, 4]])
    assert isinstance(activation_layer("prelu"), ChannelPReLU)
