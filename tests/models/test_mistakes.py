"""What copied code gets wrong, model by model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.models.test_harness import compiled, logits, make
from tests.support import batch, randomise, tensors, training_data


def test_lr_takes_ids_as_categories_and_not_as_numbers() -> None:
    model = make("lr")
    randomise(model)
    inputs = batch(4)
    by_item = {}
    for item in range(1, 14):
        inputs["item"] = np.full(4, item)
        by_item[item] = logits(model, inputs)[1]
    steps = np.diff(list(by_item.values()))
    assert np.ptp(steps) > 0.1  # a number times a weight would step evenly


def test_wide_part_sees_categories_and_crosses_and_not_only_numbers() -> None:
    model = make("wide_deep")
    randomise(model)
    inputs = batch(6)
    before = model.wide(tensors(inputs)).numpy()
    for name in ("user", "item", "user_x_tags"):
        changed = {**inputs, name: np.roll(inputs[name], 1, axis=0)}
        assert not np.allclose(model.wide(tensors(changed)).numpy(), before), name


def test_wide_and_deep_logits_are_added_and_not_averaged() -> None:
    model = make("wide_deep")
    randomise(model)
    inputs = batch(6)
    before = logits(model, inputs)
    model.wide.bias.assign_add(1.0)
    np.testing.assert_allclose(logits(model, inputs), before + 1, rtol=1e-5)


def test_wide_part_is_trained_by_ftrl_and_deep_part_by_adam_in_one_step() -> None:
    model = compiled(make("wide_deep"))
    groups = model.groups()
    assert {v.ref() for v in groups["linear"]} == {v.ref() for v in model.wide.trainable_variables}
    inputs = batch(32)
    model.train_step(training_data(inputs, np.arange(32) % 2))
    names = {type(o).__name__: o for o in model.optimizer.optimizers}
    assert set(names) == {"Ftrl", "RowSparseAdam", "Adam"}
    for variable in groups["linear"]:
        names["Ftrl"].get_slot(variable, "linear")
    for variable in groups["embedding"]:
        names["RowSparseAdam"].get_slot(variable, "v")
    before = [v.numpy() for v in model.trainable_variables]
    model.train_step(training_data(inputs, np.arange(32) % 2))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy()), variable.name


def test_l1_makes_wide_weights_exactly_zero() -> None:
    config: dict[str, Any] = {"linear": {"name": "ftrl", "learning_rate": 0.5, "l1": 0.05}}
    rng = np.random.default_rng(0)
    labels = rng.random(512) < 0.5
    weak, strong = compiled(make("lr"), {}), compiled(make("lr"), config)
    for model in (weak, strong):
        for _ in range(5):
            model.train_step(training_data(batch(512), labels))

    def zeros(model: Any) -> int:
        return sum(int((v.numpy() == 0).sum()) for v in model.trainable_variables)

    assert zeros(strong) > zeros(weak) + 20


def test_attention_looks_at_the_candidate_and_not_at_the_history_alone() -> None:
    model = make("din")
    randomise(model)
    inputs = batch(8)
    unit = model.units["liked"]

    def weights(inputs: Any) -> Any:
        from tfrec.layers.embedding import candidate_vectors, history_mask, history_vectors

        history = model.features.histories[0]
        given = tensors(inputs)
        vectors = model.embeddings(given)
        events = history_vectors(vectors, given, history)
        candidate = candidate_vectors(vectors, given, history)
        return unit(events, candidate, history_mask(given, history)).numpy()

    before = weights(inputs)
    changed = weights({**inputs, "item": np.roll(inputs["item"], 1)})
    real = inputs["liked_item"] != 0
    assert not np.allclose(before[real], changed[real])
    assert (before[~real] == 0).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_attention_weights_sum_to_one_over_events_only_with_softmax(softmax: bool) -> None:
    import tensorflow as tf

    from tfrec.layers.attention import LocalActivationUnit

    unit = LocalActivationUnit([4], softmax=softmax)
    rng = np.random.default_rng(0)
    events = tf.constant(rng.normal(size=(3, 5, 4)), tf.float32)
    candidate = tf.constant(rng.normal(size=(3, 4)), tf.float32)
    mask = tf.constant([[True] * 5, [True, True, False, False, False], [False] * 5])
    sums = unit(events, candidate, mask).numpy().sum(axis=1)
    if softmax:
        np.testing.assert_allclose(sums, [1, 1, 0], atol=1e-6)
    else:
        assert abs(sums[0] - 1) > 0.01
        assert sums[2] == 0


def test_deepfm_has_one_embedding_for_both_parts_and_no_layer_above_the_sum() -> None:
    model = make("deepfm")
    randomise(model)
    inputs = batch(6)
    tables = [v for v in model.trainable_variables if v.name.endswith("table:0")]
    assert len(tables) == 3
    before = logits(model, inputs)
    model.linear.bias.assign_add(1.0)
    np.testing.assert_allclose(logits(model, inputs), before + 1, rtol=1e-5)
    model.mlp.stack[-1].bias.assign_add([2.0])
    np.testing.assert_allclose(logits(model, inputs), before + 3, rtol=1e-5)
