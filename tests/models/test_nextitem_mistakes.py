"""What copied code gets wrong in models of sequences."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_harness import assert_two_replicas_equal_one, compiled, make
from tests.support import FEATURES, batch, randomise, tensors, training_data
from tfrec.layers.cloze import Cloze
from tfrec.models.registry import ENTRIES

MODELS = [entry.id for entry in ENTRIES if entry.family == "nextitem"]
SEQUENCES = dataclasses.replace(FEATURES, sequences=True)
ITEMS = FEATURES.table("item").vocabulary


def full(rows: int = 6) -> Any:
    """(rows, 5) ids without padding."""
    return np.random.default_rng(0).integers(1, ITEMS + 1, (rows, 5))


def states(model: Any, ids: Any) -> Any:
    return model.states(tf.constant(ids), training=False).numpy()


@pytest.mark.parametrize("settings", [{}, {"pre_norm": False}])
def test_no_state_of_sasrec_knows_what_follows(settings: dict[str, Any]) -> None:
    built = make("sasrec", **settings)
    randomise(built)
    ids = full()
    before = states(built, ids)
    for step in range(5):
        changed = ids.copy()
        changed[:, step] = changed[:, step] % ITEMS + 1
        moved = (~np.isclose(states(built, changed), before, atol=1e-5)).any(axis=(0, 2))
        np.testing.assert_array_equal(moved, np.arange(5) >= step)


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_a_prefix_has_the_state_that_it_has_alone(model: str) -> None:
    built = make(model)
    randomise(built)
    ids = full()
    whole = states(built, ids)
    for length in range(1, 5):
        alone = states(built, ids[:, :length])
        np.testing.assert_allclose(whole[:, :length], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_last_item_is_the_last_real_one(model: str) -> None:
    built = make(model)
    randomise(built)
    ids = full()
    for length in range(6):
        padded = np.where(np.arange(5) < length, ids, 0)
        found = built.users({"liked_item": tf.constant(padded)}).numpy()
        cut = built.users({"liked_item": tf.constant(padded[:, : max(length, 1)])}).numpy()
        np.testing.assert_allclose(found, cut, rtol=1e-4, atol=1e-5)
        if length:
            padded[:, length - 1] = padded[:, length - 1] % ITEMS + 1
            other = built.users({"liked_item": tf.constant(padded)}).numpy()
            assert (np.abs(other - found).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_every_event_of_a_sequence_tells_the_next_one(model: str) -> None:
    inputs = batch(16)
    built = make(model, features=SEQUENCES)
    randomise(built)
    queries, ids, rows = (t.numpy() for t in built.targets(tensors(inputs)))
    expected = []
    for row, (history, item) in enumerate(zip(inputs["liked_item"], inputs["item"], strict=True)):
        events = history[history != 0]
        for place, following in enumerate([*events[1:], item][: len(events)]):
            alone = states(built, events[np.newaxis, : place + 1])[0, -1]
            expected.append((row, following, alone))
    assert [e[:2] for e in expected] == list(zip(rows, ids, strict=True))
    np.testing.assert_allclose(queries, [e[2] for e in expected], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_an_event_that_is_an_example_tells_its_own_item_alone(model: str) -> None:
    inputs = batch(16)
    built = make(model)
    randomise(built)
    queries, ids, rows = (t.numpy() for t in built.targets(tensors(inputs)))
    told = np.arange(16) if model == "bert4rec" else np.flatnonzero(inputs["liked_item"][:, 0])
    np.testing.assert_array_equal(rows, told)
    np.testing.assert_array_equal(ids, inputs["item"][told])
    users = built.users(tensors(inputs)).numpy()
    np.testing.assert_allclose(queries, users[told], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_unknown_items_are_read_and_never_told(model: str) -> None:
    built = compiled(make(model, features=SEQUENCES))
    randomise(built)
    inputs = batch(16)
    inputs["item"][:] = ITEMS + 1
    inputs["liked_item"] = np.where(inputs["liked_item"] > 0, ITEMS + 2, 0)
    losses, weights = built.task_losses(*training_data(inputs, np.ones(16)))["item_loss"]
    assert len(losses)
    assert not weights.numpy().any()


def test_replicas_learn_from_sequences_as_one(mirrored: Any) -> None:
    weights = np.linspace(0.1, 2, 16)
    steps = [training_data(batch(16, seed), np.arange(16) % 3 > 0, weights) for seed in range(2)]
    assert_two_replicas_equal_one(
        lambda: compiled(make("sasrec", features=SEQUENCES)), steps, mirrored
    )


def test_gradients_of_session_parallel_steps_end_at_the_state_before() -> None:
    ids = tf.constant(full())
    for session_parallel in (False, True):
        built = make("gru4rec", session_parallel=session_parallel)
        randomise(built)
        with tf.GradientTape() as tape:
            vectors = built.embedding(ids)
            tape.watch(vectors)
            last = built.recurrent[0](vectors, mask=ids != 0)[:, -1]
        moved = np.abs(tape.gradient(last, vectors)).max(axis=(0, 2)) > 1e-6
        np.testing.assert_array_equal(moved, [not session_parallel] * 4 + [True])


def test_bert4rec_masks_nothing_to_recommend() -> None:
    inputs = tensors(batch(16))
    vectors = []
    for masked in (0.0, 0.9):
        built = make("bert4rec", features=SEQUENCES, masked=masked)
        randomise(built)
        vectors += [built.users(inputs, training=training) for training in (False, None, False)]
    for other in vectors[1:]:
        np.testing.assert_array_equal(other, vectors[0])


def test_bert4rec_does_not_see_what_it_is_to_tell() -> None:
    built = make("bert4rec", features=SEQUENCES)
    randomise(built)
    ids = full()
    inputs = {"liked_item": ids, "item": np.arange(1, 7)}
    chosen = np.random.default_rng(1).random((6, 6)) < 0.5
    object.__setattr__(built, "cloze", lambda told, training: told & chosen)
    queries, told, rows = (t.numpy() for t in built.targets(tensors(inputs)))
    sequences = np.concatenate([ids, inputs["item"][:, np.newaxis]], axis=1)
    np.testing.assert_array_equal(told, sequences[chosen])
    np.testing.assert_array_equal(rows, np.nonzero(chosen)[0])
    changed = np.where(chosen, sequences % ITEMS + 1, sequences)
    inputs = {"liked_item": changed[:, :5], "item": changed[:, 5]}
    np.testing.assert_array_equal(built.targets(tensors(inputs))[0], queries)


def test_cloze_chooses_shares_of_real_steps() -> None:
    lengths = np.tile(np.arange(1, 21), 500)
    real = np.arange(25) < lengths[:, np.newaxis]
    last = np.arange(25) == lengths[:, np.newaxis] - 1
    chosen = Cloze(0.3, last_only=0.4)(tf.constant(real), training=True).numpy()
    assert not (chosen & ~real).any()
    assert chosen.any(axis=1).all()
    only_last = (chosen == last).all(axis=1)
    long = lengths > 15  # where chance seldom chooses none, or the last alone
    assert only_last[long].mean() == pytest.approx(0.4, abs=0.03)
    others = chosen[long & ~only_last]
    assert others.sum() / real[long & ~only_last].sum() == pytest.approx(0.3, abs=0.01)
    assert chosen[lengths == 1, 0].all()


def test_cloze_chooses_anew_at_every_step() -> None:
    layer, real = Cloze(0.5, last_only=0.0), tf.ones([4, 20], tf.bool)
    first, second = (layer(real, training=True).numpy() for _ in range(2))
    assert (first != second).any()
