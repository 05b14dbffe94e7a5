"""Proves every model of the catalogue in the same way; a model without a case fails."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from sklearn.metrics import roc_auc_score

from tests.models.case import Case
from tests.models.cases import CASES
from tests.models.planted import Planted
from tests.support import FEATURES, batch, randomise, tensors, training_data
from tfrec.config import ItemLossConfig, OptimizersConfig
from tfrec.models.registry import ENTRIES, find
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.optimizers import composite

IDS = [entry.id for entry in ENTRIES]
BATCH, ROWS = 256, 6_144  # a quarter of them held out; whole batches, so that a step is traced once
MARGIN = 0.2  # of AUC, over a model without the mechanism
FAST = {
    "linear": {"name": "ftrl", "learning_rate": 1.0},
    "embedding": {"learning_rate": 0.02},
    "dense": {"name": "adam", "learning_rate": 0.02},
}


def make(model: str, features: Any = None, **changes: Any) -> Any:
    case = CASES[model]
    return find(model).load()(features or case.features, **{**case.hyperparameters, **changes})


SOFTMAX = ItemLossConfig(kind="softmax")  # which draws nothing, as the other one
# Under a softmax the bias of an item's vector has no gradient but rounding, which Adam blows up.
IN_BATCH = ItemLossConfig(kind="bce", negatives=0, in_batch=True)


def compiled(model: Any, optimizers: Any = None, loss: ItemLossConfig = SOFTMAX) -> Any:
    configs = OptimizersConfig.parse(optimizers or {}, "test")
    of_items = isinstance(model, RetrievalModel)
    model.compile(composite(model.groups(), dict(configs)), loss if of_items else None)
    return model


def logits(model: Any, inputs: Any) -> Any:
    """(batch,), or (batch, tasks) of several."""
    columns = [values.numpy() for values in model(tensors(inputs), training=False).values()]
    return np.stack(columns, axis=1) if len(columns) > 1 else columns[0]


def settings(case: Case) -> list[dict[str, Any]]:
    return [{}, *case.variants]


@pytest.mark.parametrize("model", IDS)
def test_every_model_has_a_case(model: str) -> None:
    assert model in CASES


@pytest.mark.parametrize("model", IDS)
def test_equals_the_paper_s_equation_in_numpy(model: str) -> None:
    case = CASES[model]
    inputs = batch(17)
    for changes in settings(case):
        built = make(model, **changes)
        randomise(built)
        np.testing.assert_allclose(
            logits(built, inputs), case.equation(built, inputs), rtol=2e-4, atol=2e-4
        )


@pytest.mark.parametrize("model", IDS)
def test_is_complete_at_construction(model: str) -> None:
    built = make(model)
    before = {v.name for v in built.variables}
    owned = [v for variables in built.groups().values() for v in variables]
    assert len(owned) == len(built.trainable_variables) == len({v.ref() for v in owned})
    logits(built, batch(3))
    compiled(built).task_losses(*training_data(batch(3), np.ones(3), features=built.features))
    assert {v.name for v in built.variables} == before


@pytest.mark.parametrize("model", IDS)
def test_config_and_weights_survive_a_round_trip(model: str, tmp_path: Any) -> None:
    inputs = batch(9)
    for changes in settings(CASES[model]):
        built = make(model, **changes)
        randomise(built)
        config = json.loads(json.dumps(built.get_config()))
        rebuilt = type(built).from_config(config)
        assert rebuilt.get_config() == built.get_config()
        path = tf.train.Checkpoint(model=built).save(str(tmp_path / "weights"))
        tf.train.Checkpoint(model=rebuilt).restore(path).assert_consumed()
        np.testing.assert_array_equal(logits(rebuilt, inputs), logits(built, inputs))


@pytest.mark.parametrize("model", IDS)
def test_one_row_and_unseen_ids(model: str) -> None:
    built = make(model)
    randomise(built)
    inputs = batch(8)
    inputs["item"][:] = FEATURES.table("item").size - 1  # the last OOV bucket
    inputs["user"][:4] = 0  # missing
    together = logits(built, inputs)
    assert len(together) == 8
    for row in range(8):
        alone = logits(built, {name: value[row : row + 1] for name, value in inputs.items()})
        assert len(alone) == 1
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [m for m, case in CASES.items() if case.history])
def test_padding_changes_nothing(model: str) -> None:
    inputs = batch(16)
    longer = dict(inputs)
    rng = np.random.default_rng(1)
    for feature in FEATURES.histories[0].features:
        value = inputs[feature.name]
        longer[feature.name] = np.concatenate([value, np.zeros_like(value[:, :3])], axis=1)
    padded = longer["liked_item"] == 0  # only the item tells; the rest may be anything
    tags = longer["liked_tags"]
    longer["liked_tags"] = np.where(padded[..., None], rng.integers(1, 7, tags.shape), tags)
    prices = longer["liked_price"]
    noise = rng.normal(size=prices.shape).astype(np.float32)
    longer["liked_price"] = np.where(padded, noise, prices)
    for changes in settings(CASES[model]):
        built = make(model, **changes)
        randomise(built)
        np.testing.assert_allclose(
            logits(built, longer), logits(built, inputs), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("model", IDS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(model: str, policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    built = compiled(make(model))
    outputs = built(tensors(batch(8)), training=True)
    assert all(output.dtype == tf.float32 for output in outputs.values())
    assert all(v.dtype == tf.float32 for v in built.trainable_variables)
    before = [v.numpy() for v in built.trainable_variables]
    for _ in range(3):  # loss scaling may leave out a first step
        data = training_data(batch(8), np.arange(8) % 2, features=built.features)
        loss = built.train_step(data)["loss"]
        assert np.isfinite(float(loss))
    after = [v.numpy() for v in built.trainable_variables]
    assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(np.isfinite(value).all() for value in after)


def assert_two_replicas_equal_one(
    fresh: Callable[[], Any], steps: list[Any], mirrored: tf.distribute.Strategy
) -> None:
    """The same global batches, in halves: the same weights come out."""
    alone = fresh()
    randomise(alone)
    with mirrored.scope():
        double = fresh()
    for target, source in zip(double.variables, alone.variables, strict=True):
        target.assign(source)
    for built in (alone, double):
        built.loss_tracker.reset_state()
    for data in steps:  # not as graphs, whose tracing takes ten times as long as the steps
        alone.train_step(data)

        def half(context: Any, data: Any = data) -> Any:
            start = 8 * context.replica_id_in_sync_group
            return tf.nest.map_structure(lambda tensor: tensor[start : start + 8], data)

        halves = mirrored.experimental_distribute_values_from_function(half)
        mirrored.run(double.train_step, args=(halves,))
    assert float(double.loss_tracker.result()) == pytest.approx(
        float(alone.loss_tracker.result()), rel=1e-5
    )
    sums = {
        v.ref() for metric in alone.metrics for v in metric.variables
    }  # which replicas hold as parts
    for one, two in zip(alone.variables, double.variables, strict=True):
        if one.ref() not in sums:
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5, err_msg=one.name)


@pytest.mark.parametrize("model", IDS)
def test_two_replicas_equal_one(model: str, mirrored: Any) -> None:
    """Split unevenly in their weights."""
    weights = np.linspace(0.1, 2, 16)
    labels, features = np.arange(16) % 2, CASES[model].features
    steps = [training_data(batch(16, s), labels, weights, features) for s in range(3)]
    assert_two_replicas_equal_one(lambda: compiled(make(model), loss=IN_BATCH), steps, mirrored)


def auc(model: str, hyperparameters: dict[str, Any], planted: Planted, epochs: int = 12) -> float:
    """AUC on held-out rows after a short training, a mean over the tasks."""
    keras.utils.set_random_seed(1)
    optimizers = {**FAST, **CASES[model].optimizers}
    built = compiled(find(model).load()(planted.features, **hyperparameters), optimizers)
    rows = len(planted.labels)
    split = rows * 3 // 4
    step = tf.function(built.train_step)
    for _ in range(epochs):
        for start in range(0, split, BATCH):
            part = slice(start, start + BATCH)
            inputs = {name: value[part] for name, value in planted.inputs.items()}
            step(training_data(inputs, planted.labels[part], features=planted.features))
    held_out = {name: value[split:] for name, value in planted.inputs.items()}
    return roc_auc_score(planted.labels[split:], logits(built, held_out))


@functools.cache
def baseline(model: str, hyperparameters: str, planted: Callable[[int], Planted]) -> float:
    """AUC of a model without the mechanism, which many models are compared with."""
    return auc(model, json.loads(hyperparameters), planted(ROWS))


@pytest.mark.parametrize("model", IDS)
def test_finds_planted_structure(model: str) -> None:
    case = CASES[model]
    found = auc(model, case.hyperparameters, case.planted(ROWS))
    if case.beats is None:
        assert found > 0.5 + MARGIN
    else:
        without, hyperparameters = case.beats
        assert found > baseline(without, json.dumps(hyperparameters), case.planted) + MARGIN
