"""What copied code gets wrong in models over histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models.history_reference import (
    events_and_candidates,
    next_item_losses,
    placed,
    recurrent_states,
    transformer_block,
)
from tests.models.test_harness import compiled, logits, make
from tests.support import Arrays, batch, randomise, tensors, training_data

HISTORY = ("liked_item", "liked_tags", "liked_price")


def full(rows: int = 8) -> Arrays:
    """A batch whose histories have no padding."""
    inputs, rng = batch(rows), np.random.default_rng(0)
    inputs["liked_item"] = rng.integers(1, 14, inputs["liked_item"].shape)
    inputs["liked_tags"] = rng.integers(1, 7, inputs["liked_tags"].shape)
    inputs["liked_price"] = rng.normal(size=inputs["liked_price"].shape).astype(np.float32)
    return inputs


def resized(inputs: Arrays, events: int) -> Arrays:
    """The same histories with as many places, cut or padded."""
    result = dict(inputs)
    for name in HISTORY:
        value = inputs[name][:, :events]
        missing = events - value.shape[1]
        result[name] = np.pad(value, [(0, 0), (0, missing)] + [(0, 0)] * (value.ndim - 2))
    return result


def repeated(inputs: Arrays, times: int) -> Arrays:
    """The first event of every history, as often as that, among 6 places."""
    result = dict(inputs)
    for name in HISTORY:
        result[name] = np.repeat(inputs[name][:, :1], times, axis=1)
    return resized(result, 6)


def auxiliary_losses(model: Any, inputs: Arrays) -> tuple[Any, Any]:
    """Losses of every step, and their weights."""
    seen = []
    object.__setattr__(model, "add_auxiliary", lambda _, losses, share: seen.append(losses()))
    try:
        model(tensors(inputs), training=True)
    finally:
        object.__delattr__(model, "add_auxiliary")
    ((losses, weights),) = seen
    return losses.numpy(), weights.numpy()


def test_mean_of_a_history_is_over_its_real_events() -> None:
    inputs = full()
    mean, total = make("history_pooling"), make("history_pooling", pooling="sum")
    for model in (mean, total):
        randomise(model)
    once = logits(mean, repeated(inputs, 1))
    assert np.ptp(once) > 0.1
    for times in (2, 5):
        np.testing.assert_allclose(logits(mean, repeated(inputs, times)), once, rtol=1e-4)
        assert not np.allclose(logits(total, repeated(inputs, times)), once, rtol=1e-2)


@pytest.mark.parametrize("model", ["rnn_joint", "transformer_joint"])
@pytest.mark.parametrize("feature", ["liked_item", "liked_tags", "liked_price"])
def test_next_item_is_predicted_without_being_seen(model: str, feature: str) -> None:
    """Event t + 1 may change what is asked of step t, by its id, but not what step t knows."""
    built = make(model)
    randomise(built)
    inputs = full()
    before, _ = auxiliary_losses(built, inputs)
    for event in range(5):
        changed = {**inputs, feature: inputs[feature].copy()}
        changed[feature][:, event] = changed[feature][:, event] % 6 + 1
        after, _ = auxiliary_losses(built, changed)
        moved = (~np.isclose(after, before, rtol=1e-4, atol=1e-5)).any(axis=0)
        asked = event - 1 if feature == "liked_item" else event
        # an event moves the losses of its own step and of later ones, and its id that before
        np.testing.assert_array_equal(moved, np.arange(4) >= asked)


@pytest.mark.parametrize("model", ["rnn_joint", "transformer_joint"])
def test_next_item_loss_is_one_softmax_of_the_next_id(model: str) -> None:
    built = compiled(make(model))
    randomise(built)
    inputs = batch(17)
    events, _ = events_and_candidates(built.embeddings, inputs)
    table = built.embeddings.tables["item"].table.numpy()
    losses = []
    for row, ids in zip(events, inputs["liked_item"], strict=True):
        if model == "rnn_joint":
            states = recurrent_states(built.recurrent["liked"], row)
        else:
            states = placed(row, built.distances["liked"], np.arange(len(row), 0, -1))
            for block in built.decoder["liked"]:
                states = transformer_block(block, states, causal=True)
        losses.append(next_item_losses(built.next_item["liked"], table, states, ids[ids != 0]))
    expected = np.concatenate(losses).mean()
    built.reset_metrics()
    found = built.train_step(training_data(inputs, np.arange(17) % 2))
    assert float(found["next_item"]) == pytest.approx(expected, rel=1e-4)


def test_dien_s_state_begins_at_zero_at_every_call() -> None:
    built = make("dien", activation="relu")
    randomise(built)
    inputs = batch(8)
    for training in (False, True):
        first = built(tensors(inputs), training=training)["like"].numpy()
        built(tensors(full()), training=training)
        again = built(tensors(inputs), training=training)["like"].numpy()
        np.testing.assert_array_equal(again, first)


def test_dien_s_attention_is_a_softmax_over_the_events() -> None:
    """Over a single one every weight would be 1."""
    built = make("dien")
    randomise(built)
    inputs = batch(16)
    weights = built.explain(tensors(inputs))["attention_liked"].numpy()
    real = inputs["liked_item"] != 0
    assert (weights[~real] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), real.any(axis=1), atol=1e-6)
    several = real.sum(axis=1) > 1
    assert (weights[several].max(axis=1) < 1).all()
    assert (weights[several].std(axis=1) > 0.001).all()
    other = built.explain(tensors({**inputs, "item": np.roll(inputs["item"], 1)}))
    assert not np.allclose(other["attention_liked"], weights)


@pytest.mark.parametrize("model", ["bst", "transformer_joint", "sasrec", "bert4rec"])
def test_transformers_tell_what_they_attend_to(model: str) -> None:
    """Events only, whatever the padding; of those that take part in the score."""
    built = make(model, blocks=2)
    randomise(built, scale=0.2)
    inputs = batch(16)
    weights = built.explain(tensors(inputs))["attention_liked"].numpy()
    real = inputs["liked_item"] != 0
    assert (weights[real] > 0).all()
    assert (weights[~real] == 0).all()
    sums = weights.sum(axis=1)[real.any(axis=1)]
    if model in ("bst", "bert4rec"):  # what asks is no event, and sees itself too
        assert (sums < 1).all()
    else:
        np.testing.assert_allclose(sums, 1, atol=1e-5)
    longer = built.explain(tensors(resized(inputs, 8)))["attention_liked"].numpy()
    np.testing.assert_allclose(longer[:, : weights.shape[1]], weights, atol=1e-5)
    asks = {"bst": "item", "transformer_joint": "liked_tags"}.get(model, "liked_item")
    other = built.explain(tensors({**inputs, asks: np.roll(inputs[asks], 1, axis=0)}))
    assert not np.allclose(other["attention_liked"], weights)


@pytest.mark.parametrize("model", ["bst", "transformer_joint"])
def test_padding_is_not_attended_to(model: str) -> None:
    built = make(model, blocks=2)
    randomise(built)
    two = resized(full(), 2)
    expected = logits(built, two)
    for events in (3, 5, 9):
        padded = resized(two, events)
        np.testing.assert_allclose(logits(built, padded), expected, rtol=1e-4, atol=1e-5)
        for name in ("liked_tags", "liked_price"):  # nor where something is left in it
            padded[name][:, 2:] = 3
        np.testing.assert_allclose(logits(built, padded), expected, rtol=1e-4, atol=1e-5)


def test_bst_s_attention_reaches_between_events_and_candidate() -> None:
    """The block's output for the oldest event depends on every other step."""
    built = make("bst")
    randomise(built)
    inputs = full(2)
    seen: list[Any] = []
    newest_first = built.blocks["liked"][0].call

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(newest_first(*arguments, **named))
        return seen[-1]

    built.blocks["liked"][0].call = watched
    logits(built, inputs)
    for name, place in (("liked_item", 0), ("liked_item", 4), ("item", None)):
        changed = {**inputs, name: inputs[name].copy()}
        part = changed[name] if place is None else changed[name][:, place]
        part[...] = part % 13 + 1
        logits(built, changed)
        moved = np.abs(seen[-1] - seen[0]).max(axis=(0, 2))
        assert (moved > 1e-6).all(), name


def test_bst_tells_the_order_of_events() -> None:
    built = make("bst")
    randomise(built)
    inputs = full()
    turned = {**inputs, **{name: inputs[name][:, ::-1] for name in HISTORY}}
    assert not np.allclose(logits(built, turned), logits(built, inputs), atol=1e-2)


def test_auxiliary_loss_of_histories_of_one_event_is_zero_and_finite() -> None:
    """There is nothing to predict."""
    for model in ("rnn_joint", "transformer_joint", "dien"):
        built = compiled(make(model))
        for events in (0, 1):
            one = resized(resized(full(), events), 5)
            found = built.train_step(training_data(one, np.arange(8) % 2))
            assert float(found[built.auxiliary[0]]) == 0
            assert tf.math.is_finite(found["loss"])
            built.reset_metrics()
