"""Losses that models add to those of their tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from click.testing import CliRunner

from tests.models.test_harness import logits, make
from tests.support import FEATURES, batch, randomise, training_data
from tfrec import train
from tfrec.models.registry import ENTRIES

MODELS = [entry.id for entry in ENTRIES if entry.load().auxiliary]
LABELS = np.arange(16) % 2


def two_histories() -> Any:
    """The same events twice: `liked` and `seen`."""
    (liked,) = FEATURES.histories
    seen = dataclasses.replace(
        liked,
        name="seen",
        features=tuple(
            dataclasses.replace(f, name=f.name.replace("liked", "seen")) for f in liked.features
        ),
    )
    return dataclasses.replace(FEATURES, histories=(liked, seen))


def stepped(model: Any, inputs: Any, rate: float = 0.0) -> dict[str, float]:
    """What a step of plain gradient descent tells."""
    model.compile(optimizer=keras.optimizers.SGD(rate))
    model.reset_metrics()
    found = model.train_step(training_data(inputs, LABELS))
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("model", MODELS)
def test_is_told_beside_the_loss_of_the_task(model: str) -> None:
    built = make(model, auxiliary_weight=3.0)
    randomise(built)
    inputs = batch(16)
    scores = built(training_data(inputs, LABELS)[0], training=True)["like"].numpy()
    found = stepped(built, inputs)
    (name,) = built.auxiliary
    assert set(found) == {"loss", name}
    assert found[name] > 0.1
    expected = np.log1p(np.exp(np.where(LABELS == 1, -scores, scores))).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("model", ["rnn_joint", "transformer_joint"])  # without draws
def test_weight_scales_its_gradient(model: str) -> None:
    inputs = batch(16)
    moves = []
    for weight in (0.0, 1.0, 2.0):
        built = make(model, auxiliary_weight=weight)
        randomise(built)
        before = [v.numpy() for v in built.trainable_variables]
        stepped(built, inputs, rate=1.0)
        moves.append(
            [v.numpy() - b for v, b in zip(built.trainable_variables, before, strict=True)]
        )
    for none, once, twice in zip(*moves, strict=True):
        np.testing.assert_allclose(twice - none, 2 * (once - none), atol=1e-5)
    assert any(np.abs(once - none).max() > 1e-3 for none, once, _ in zip(*moves, strict=True))


@pytest.mark.parametrize("model", ["rnn_joint", "transformer_joint"])  # without draws
def test_examples_count_by_their_weights(model: str) -> None:
    """A weight of 0 is as if the example were not there."""
    built = make(model, auxiliary_weight=1.0)
    randomise(built)
    weights = np.array([1.0, 1, 0, 0, 1, 0, 1, 1])
    data = training_data(batch(8), LABELS[:8], weights)
    kept = tf.nest.map_structure(lambda tensor: tensor[weights > 0], data)
    built.compile(optimizer=keras.optimizers.SGD(0.0))
    losses = []
    for part in (data, kept):
        built.reset_metrics()
        losses.append({name: float(v) for name, v in built.train_step(part).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_histories_add_up() -> None:
    inputs = batch(16)
    for name in ("item", "tags", "price"):
        inputs[f"seen_{name}"] = inputs[f"liked_{name}"]
    both, one = make("rnn_joint", two_histories()), make("rnn_joint")
    randomise(one)
    randomise(both)
    for layer in ("recurrent", "next_item"):
        for history in ("liked", "seen"):
            parts = getattr(both, layer)[history].weights, getattr(one, layer)["liked"].weights
            for target, source in zip(*parts, strict=True):
                target.assign(source)
    for name, table in both.embeddings.tables.items():
        table.table.assign(one.embeddings.tables[name].table)
    alone, together = stepped(one, inputs), stepped(both, inputs)
    assert together["next_item"] == pytest.approx(2 * alone["next_item"], rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_serving_has_nothing_of_it(model: str) -> None:
    built = make(model, auxiliary_weight=1.0)
    if "negatives" in built.hyperparameters:
        built = make(model, negatives=5)
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name)
        for name, value in training_data(batch(2), LABELS[:2])[0].items()
    }
    served = tf.function(lambda **inputs: built(inputs, training=False), autograph=False)
    graph = served.get_concrete_function(**specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    assert len(nodes) > 50
    unwanted = ("Random", "Softplus", "CrossEntropy")
    assert not [node.op for node in nodes if any(part in node.op for part in unwanted)]


def test_evaluation_draws_nothing() -> None:
    built = make("dien")
    state = built.next_event["liked"].state.numpy()
    logits(built, batch(8))
    np.testing.assert_array_equal(built.next_event["liked"].state, state)
    stepped(built, batch(16))
    np.testing.assert_array_equal(built.next_event["liked"].state, [state[0], state[1] + 1])


def test_is_printed_and_kept_by_the_command(shop: Path, tmp_path: Path) -> None:
    settings = (
        "model.dim=4", "model.units=8", "model.negatives=10", "batch_size=64", "epochs=4",
        "optimizers.dense.learning_rate=0.02", "optimizers.embedding.learning_rate=0.02",
    )  # fmt: skip
    output = tmp_path / "run"
    arguments = ["--data", str(shop), "--model", "rnn_joint", "--output", str(output)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(train.main, [*arguments, "--seed", "1", "--no-export"])
    assert result.exit_code == 0, result.output
    history = json.loads((output / "metrics.json").read_text())["history"]
    means = [validation["losses"]["next_item"] for validation in history]
    lines = [line for line in result.output.splitlines() if "next_item" in line and "auc" in line]
    assert len(lines) == len(means) >= 4
    for line, mean, validation in zip(lines, means, history, strict=True):
        assert f"loss {validation['loss']:.4f}  next_item {mean:.4f}  " in line
    assert means[-1] < means[0]
