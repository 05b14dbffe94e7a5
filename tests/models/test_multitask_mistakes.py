"""What copied code gets wrong in models of several tasks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.metrics import roc_auc_score

from tests.models.planted import clickbait
from tests.models.test_harness import FAST, compiled, logits, make
from tests.support import CLICKS, FEATURES, TASKS, batch, randomise, tensors, training_data
from tfrec.data import task_labels
from tfrec.features import Features
from tfrec.layers.experts import ExpertsDense
from tfrec.models.registry import find


def test_experts_begin_as_single_mlps_do() -> None:
    """Keras' own He initialiser takes the experts for more inputs, and begins too small."""
    layer = ExpertsDense(16, 200)
    layer(tf.zeros([1, 50]))
    assert layer.kernel.numpy().std() == pytest.approx(np.sqrt(2 / 50), rel=0.02)
    assert not np.array_equal(layer.kernel[0], layer.kernel[1])


def test_mmoe_has_a_gate_per_task_and_moe_one() -> None:
    one, each = make("moe"), make("mmoe")
    inputs = tensors(batch(8))
    for model in (one, each):
        randomise(model)
    assert set(one.gates(inputs)) == {"all"}
    like, stars = (each.gates(inputs)[task].numpy() for task in ("like", "stars"))
    assert like.shape == (8, 8)
    np.testing.assert_allclose(like.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(like - stars).max() > 0.1


@pytest.mark.parametrize("model", ["shared_bottom", "moe", "mmoe", "ple"])
def test_a_task_does_not_move_the_other_s_tower(model: str) -> None:
    built = compiled(make(model))
    randomise(built)
    before = {task: [v.numpy() for v in t.variables] for task, t in built.towers.items()}
    inputs, labels, weights = training_data(batch(16), np.arange(16) % 2, features=TASKS)
    built.train_step((inputs, {**labels, "stars": tf.fill([16], np.nan)}, weights))
    for task, moves in (("like", True), ("stars", False)):
        after = [v.numpy() for v in built.towers[task].variables]
        moved = any((a != b).any() for a, b in zip(after, before[task], strict=True))
        assert moved == moves


def felt(model: Any, task: str, variable: tf.Variable) -> Any:
    """By expert: whether a task's logit has a gradient there."""
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(tensors(batch(16)), training=False)[task])
    gradient = tape.gradient(total, variable)
    if gradient is None:
        return np.zeros(len(variable), bool)
    return np.abs(gradient.numpy()).max(axis=tuple(range(1, len(variable.shape)))) > 0


def test_a_ple_task_sees_its_own_and_the_shared_experts_only() -> None:
    model = make("ple", levels=1, task_experts=2, shared_experts=3)
    randomise(model)
    (level,) = model.levels
    for task, own in (("like", [True, True, False, False]), ("stars", [False, False, True, True])):
        np.testing.assert_array_equal(felt(model, task, level.own.dense[-1].kernel), own)
        assert felt(model, task, level.shared.dense[-1].kernel).all()


def test_ple_goes_on_in_levels_and_its_shared_gate_sees_all() -> None:
    model = make("ple", levels=3, task_experts=2, shared_experts=1)
    randomise(model)
    sizes = {name: shares.shape[1] for name, shares in model.gates(tensors(batch(4))).items()}
    of_tasks = {f"{level}/{task}": 3 for level in (1, 2, 3) for task in ("like", "stars")}
    assert sizes == {**of_tasks, "1/shared": 5, "2/shared": 5}  # none after the last level
    first = model.levels[0]
    for task in ("like", "stars"):  # through the shared gate, and the shared experts above it
        assert felt(model, task, first.own.dense[-1].kernel).all()
    for layer in (model.levels[1].own, model.levels[1].shared):
        assert layer.dense[0].kernel.shape[1] == 2  # the width of the level below


def test_esmm_is_the_product_and_finite_far_out() -> None:
    """Against float64, where a product, a logarithm or 1 − p would lose everything."""
    model = make("esmm")
    far = np.array([-100, -30, -3, 0, 3, 30, 100], np.float32)
    click, after = (part.ravel() for part in np.meshgrid(far, far))
    model.click.call = lambda _, training=None: variables[0][:, tf.newaxis]
    model.conversion.call = lambda _, training=None: variables[1][:, tf.newaxis]
    variables = [tf.Variable(click), tf.Variable(after)]
    inputs = tensors(batch(49))
    for bought in (0.0, 1.0):
        with tf.GradientTape() as tape:
            scores = model(inputs, training=False)
            values = tf.fill([49], bought)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(values, scores["buy"])
            total = tf.reduce_sum(losses)
        z, y = click.astype(np.float64), after.astype(np.float64)
        log_p = -np.logaddexp(0, -z) - np.logaddexp(0, -y)
        not_both = np.logaddexp(-np.logaddexp(0, z), -np.logaddexp(0, -z) - np.logaddexp(0, y))
        log_q = np.where(log_p < -1, np.log1p(-np.exp(np.minimum(log_p, -1))), not_both)
        np.testing.assert_allclose(losses, -log_p if bought else -log_q, rtol=1e-5, atol=1e-30)
        assert all(np.isfinite(g).all() for g in tape.gradient(total, variables))
    served = model.served(scores)
    assert next(iter(served)) == "pCTCVR"  # which two stages rank by, and not by clicks alone
    p, q = (1 / (1 + np.exp(-value.astype(np.float64))) for value in (click, after))
    for name, expected in {"pCTR": p, "pCVR": q, "pCTCVR": p * q}.items():
        np.testing.assert_allclose(served[name], expected, rtol=1e-4, atol=1e-30)


def test_esmm_shares_its_embeddings_and_refuses_what_is_no_click_and_conversion() -> None:
    model = make("esmm")
    assert len(model.groups()["embedding"]) == 3
    for features in (TASKS, FEATURES):
        with pytest.raises(ValueError, match=r"two binary labels|several tasks"):
            find("esmm").load()(features)


def clicked_only(labels: Any) -> Any:
    """The mistake: conversions are only known where there was a click."""
    return np.where(labels[:, :1] == 1, labels, np.array([[0.0, np.nan]])).astype(np.float32)


def test_esmm_knows_that_nothing_follows_where_there_was_no_click() -> None:
    """Its labels are read so, for the loss and for metrics; those of other models are not."""
    labels = np.stack([np.arange(16) % 2, np.arange(16) % 4 == 1], axis=1).astype(np.float32)
    labels[4] = labels[5, 1] = np.nan  # of the one nothing is known, of the other the click alone
    missing = labels.copy()
    missing[labels[:, 0] == 0, 1] = np.nan
    for model, expected in (("esmm", labels), ("mmoe", missing)):
        tasks = find(model).load().as_tasks(CLICKS.labels)
        features = dataclasses.replace(CLICKS, labels=tasks)
        assert Features.from_dict(features.to_dict()) == features
        stored = dict(zip(("label:click", "label:buy"), map(tf.constant, missing.T), strict=True))
        read = task_labels(features, stored)
        np.testing.assert_array_equal(np.stack([read["click"], read["buy"]], axis=1), expected)
    # Else the same data set would be another one to runs that know it from before.
    plain = [{"name": name, "task": "binary"} for name in ("click", "buy")]
    assert list(CLICKS.to_dict()["labels"]) == plain


def test_esmm_of_clicks_only_is_another_loss() -> None:
    model = compiled(make("esmm"))
    randomise(model)
    labels = np.stack([np.arange(16) % 2, np.arange(16) % 4 == 1], axis=1).astype(np.float32)
    found = []
    for of_buying in (labels, clicked_only(labels)):
        data = training_data(batch(16), of_buying, features=CLICKS)
        model.reset_metrics()
        scores = logits(model, batch(16))[:, 1]
        losses = np.logaddexp(0, np.where(of_buying[:, 1] == 1, -scores, scores))
        expected = losses[~np.isnan(of_buying[:, 1])].mean()
        found.append(float(model.train_step(data)["buy_loss"]))
        assert found[-1] == pytest.approx(expected, rel=1e-4)
    assert abs(found[0] - found[1]) > 0.05


def test_esmm_of_clicks_only_is_biased_where_clicks_are_no_sample_of_impressions() -> None:
    """It takes what follows a click for what follows an impression: too much, in a wrong order."""
    planted = clickbait(6_144)
    bought = planted.labels[:, 1]

    def measured(labels: Any) -> tuple[float, float]:
        keras.utils.set_random_seed(1)
        model = compiled(make("esmm", planted.features), FAST)
        step = tf.function(model.train_step)
        for start in list(range(0, 4_608, 256)) * 3:
            part = slice(start, start + 256)
            inputs = {name: value[part] for name, value in planted.inputs.items()}
            step(training_data(inputs, labels[part], features=planted.features))
        held_out = {name: value[4_608:] for name, value in planted.inputs.items()}
        said = model.served(model(tensors(held_out), training=False))["pCTCVR"].numpy()
        return roc_auc_score(bought[4_608:], said), said.mean() / bought[4_608:].mean()

    auc, ratio = measured(planted.labels)
    biased_auc, biased_ratio = measured(clicked_only(planted.labels))
    assert auc > biased_auc + 0.1
    assert ratio == pytest.approx(1, abs=0.2)
    assert biased_ratio > 1.4
