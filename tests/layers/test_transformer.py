from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models.history_reference import transformer_block
from tests.support import randomise
from tfrec.layers.transformer import Positions, TransformerBlock, distances, newest_first

COUNTS = [5, 3, 1]
MASK = np.arange(5) < np.array(COUNTS)[:, np.newaxis]


def steps() -> Any:
    return np.random.default_rng(0).normal(size=(*MASK.shape, 6)).astype(np.float32)


def made(causal: bool = False, **arguments: Any) -> TransformerBlock:
    layer = TransformerBlock(2, 8, causal=causal, **arguments)
    layer(steps(), tf.constant(MASK))
    randomise(layer)
    return layer


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_equals_the_equations_over_the_real_steps_alone(causal: bool, pre_norm: bool) -> None:
    values, layer = steps(), made(causal, pre_norm=pre_norm)
    found = layer(values, tf.constant(MASK)).numpy()
    for row, mask in enumerate(MASK):
        expected = transformer_block(layer, values[row][mask], causal)
        np.testing.assert_allclose(found[row][mask], expected, atol=1e-4)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_what_is_attended_to_is_the_mean_of_the_heads_softmax(causal: bool, pre_norm: bool) -> None:
    values, layer = steps(), made(causal, pre_norm=pre_norm)
    found = layer.attended(tf.constant(values), tf.constant(MASK)).numpy()
    seen = layer.norms[0](values).numpy() if pre_norm else values
    query, query_bias, key, key_bias, *_ = (w.numpy() for w in layer.attention.weights)
    queries, keys = (
        np.einsum("btw,whk->bhtk", seen, kernel) + bias[:, np.newaxis]
        for kernel, bias in ((query, query_bias), (key, key_bias))
    )
    logits = np.einsum("bhtk,bhsk->bhts", queries, keys) / query.shape[-1] ** 0.5
    sees = MASK[:, np.newaxis, np.newaxis] & (np.tri(5, dtype=bool) if causal else True)
    shares = np.where(sees, np.exp(logits), 0)
    expected = (shares / shares.sum(axis=-1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_no_step_sees_a_padded_one(causal: bool) -> None:
    values, layer = steps(), made(causal)
    before = layer(values, tf.constant(MASK)).numpy()
    changed = np.where(MASK[..., np.newaxis], values, 100)
    found = layer(changed, tf.constant(MASK)).numpy()
    np.testing.assert_allclose(found[MASK], before[MASK], atol=1e-6)


def test_a_causal_step_sees_itself_and_the_ones_before_it_only() -> None:
    for causal in (False, True):
        values, layer = steps()[:1], made(causal)
        every = tf.ones([1, 5], tf.bool)
        before = layer(values, every).numpy()
        for step in range(5):
            changed = values.copy()
            changed[0, step, 0] += 1
            moved = np.abs(layer(changed, every).numpy() - before)[0].max(axis=1) > 1e-6
            np.testing.assert_array_equal(moved, np.arange(5) >= step if causal else True)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_dropout_is_in_training_only(kind: str) -> None:
    values, layer = steps(), made(**{kind: 0.5})
    mask = tf.constant(MASK)
    served = layer(values, mask, training=False)
    np.testing.assert_array_equal(layer(values, mask, training=False), served)
    first, second = (layer(values, mask, training=True) for _ in range(2))
    assert not np.allclose(first, served)
    assert not np.allclose(first, second)


def test_what_is_dropped_of_the_attention_is_part_of_the_state(tmp_path: Path) -> None:
    values, mask = steps(), tf.constant(MASK)
    layer = made(attention_dropout=0.5)
    layer(values, mask, training=True)
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "layer"))
    expected = layer(values, mask, training=True)
    other = made(attention_dropout=0.5)
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(values, mask, training=True), expected)


def test_initial_matrices() -> None:
    layer = TransformerBlock(2, 500, stddev=0.02)
    layer(steps(), tf.constant(MASK))
    for kernel in (layer.inner.kernel, layer.outer.kernel):
        assert np.abs(kernel).max() < 0.04
        assert np.std(kernel) == pytest.approx(0.88 * 0.02, rel=0.1)  # what the cut leaves


def test_distances_count_back_from_the_newest_event() -> None:
    found = distances(tf.constant(MASK)).numpy()
    np.testing.assert_array_equal(found[0], [5, 4, 3, 2, 1])
    np.testing.assert_array_equal(found[1][:3], [3, 2, 1])
    np.testing.assert_array_equal(found[2][:1], [1])
    assert (found[~MASK] <= 0).all()


def test_older_events_share_the_vector_of_the_largest_distance() -> None:
    layer = Positions(3, 2)
    layer(tf.constant([[1]]))
    layer.vectors.assign(np.arange(8).reshape(4, 2))
    found = layer(tf.constant([[7, 4, 3, 2, 1, 0, -1]])).numpy()
    np.testing.assert_array_equal(found[0, :, 0], [6, 6, 6, 4, 2, 0, 0])


@pytest.mark.parametrize("length", [2, 5, 7])
def test_newest_first(length: int) -> None:
    values = steps()
    found = newest_first(tf.constant(values), tf.constant(MASK), length).numpy()
    assert found.shape == (3, length, 6)
    for row, count in enumerate(COUNTS):
        expected = np.zeros((length, 6))
        newest = values[row, :count][::-1][:length]
        expected[: len(newest)] = newest
        np.testing.assert_array_equal(found[row], expected)


def test_newest_first_of_any_number_of_events() -> None:
    """Batches are as long as their longest history."""
    given = tf.function(
        lambda values, mask: newest_first(values, mask, 4),
        input_signature=[
            tf.TensorSpec([None, None, 6], tf.float32),
            tf.TensorSpec([None, None], tf.bool),
        ],
    )
    for events in (0, 1, 4, 5):
        found = given(steps()[:, :events], MASK[:, :events]).numpy()
        assert found.shape == (3, 4, 6)
        assert np.abs(found[0, :events]).min(initial=1) > 0
        assert (found[0, events:] == 0).all()
