from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models.history_reference import evolution, recurrent_states
from tests.support import randomise
from tfrec.layers.recurrent import InterestEvolution, last_state, recurrent_layer

MASK = np.arange(5) < np.array([[5], [3], [1], [0]])


def steps(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(*MASK.shape, 3)).astype(np.float32)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_states_are_those_of_the_real_steps_alone(cell: Any) -> None:
    values = steps()
    last, all_states = recurrent_layer(cell, 4), recurrent_layer(cell, 4, sequences=True)
    last(values, mask=tf.constant(MASK))
    all_states(values, mask=tf.constant(MASK))
    for layer in (last, all_states):
        for seed, variable in enumerate(layer.weights):
            variable.assign(np.random.default_rng(seed).normal(size=variable.shape))
    found = last(values, mask=tf.constant(MASK)).numpy()
    sequences = all_states(values, mask=tf.constant(MASK))
    np.testing.assert_allclose(last_state(sequences, tf.constant(MASK)), found, atol=1e-6)
    for row, mask in enumerate(MASK):
        expected = recurrent_states(last, values[row][mask])
        np.testing.assert_allclose(sequences[row][mask], expected, atol=1e-5)
        np.testing.assert_allclose(found[row], expected[-1] if len(expected) else 0, atol=1e-5)


def test_a_real_step_after_padding_goes_on_from_the_last_real_state() -> None:
    values, layer = steps(), recurrent_layer("gru", 4)
    gap = np.array([[True, True, False, False, True]])
    close = values[:1, [0, 1, 4]]
    np.testing.assert_allclose(
        layer(values[:1], mask=tf.constant(gap)),
        layer(close, mask=tf.ones([1, 3], tf.bool)),
        atol=1e-6,
    )


def evolved(layer: InterestEvolution, values: Any, attention: Any) -> Any:
    attention = np.asarray(attention, np.float32)
    return layer(tf.constant(values), tf.constant(attention), tf.constant(MASK)).numpy()


@pytest.mark.parametrize("form", ["augru", "agru", "aigru"])
def test_evolution_equals_the_equations(form: Any) -> None:
    values = steps()
    attention = np.random.default_rng(1).random(MASK.shape)
    layer = InterestEvolution(4, form)
    evolved(layer, values, attention)
    randomise(layer)
    found = evolved(layer, values, attention)
    for row, mask in enumerate(MASK):
        expected = evolution(layer, form, values[row][mask], attention[row][mask])
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize("form", ["augru", "agru"])
def test_a_step_without_attention_leaves_the_state_as_it_is(form: Any) -> None:
    attention = np.array([[0.2, 0.5, 0.3, 0, 0]] * 4)
    values = steps()
    layer = InterestEvolution(4, form)
    before = evolved(layer, values, attention)
    values[:, 3:] += 1
    np.testing.assert_allclose(evolved(layer, values, attention), before, atol=1e-6)
    values[:, 1] += 1
    assert not np.allclose(evolved(layer, values, attention)[0], before[0])


def test_full_attention_of_agru_takes_the_new_state_whole() -> None:
    layer = InterestEvolution(4, "agru")
    values = steps()
    evolved(layer, values, np.ones(MASK.shape))
    layer.rnn.cell.recurrent.assign(tf.zeros_like(layer.rnn.cell.recurrent))
    found = evolved(layer, values, np.ones(MASK.shape))
    new = np.tanh(values[0, -1] @ layer.rnn.cell.kernel.numpy()[:, 8:])
    np.testing.assert_allclose(found[0], new, atol=1e-6)


def test_the_state_begins_at_zero_at_every_call() -> None:
    layer = InterestEvolution(4)
    values, attention = steps(), np.full(MASK.shape, 0.5)
    first = evolved(layer, values, attention)
    evolved(layer, steps(7), attention)
    np.testing.assert_array_equal(evolved(layer, values, attention), first)
    np.testing.assert_array_equal(first[3], np.zeros(4))  # no event: the state it began with
