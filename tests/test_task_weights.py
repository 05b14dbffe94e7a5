"""How the losses of several tasks are weighted."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from click.testing import CliRunner, Result

from tests.models.test_harness import compiled, make
from tests.support import TASKS, batch, randomise, tensors, training_data
from tfrec import train
from tfrec.config import OptimizersConfig, TaskWeightsConfig
from tfrec.features import Features
from tfrec.losses import task_loss
from tfrec.optimizers import composite
from tfrec.runs import resolve_for
from tfrec.strict import UserError
from tfrec.training import Trainer

LABELS = np.stack([np.arange(16) % 2, np.linspace(-2, 3, 16)], axis=1)
KINDS: dict[str, dict[str, Any]] = {
    "fixed": {"weights": {"stars": 0.3}},
    "uncertainty": {},
    "dynamic": {"temperature": 0.5},
    "gradnorm": {"alpha": 0.7, "learning_rate": 0.01},
}


def weighted(kind: str, model: str = "mmoe", optimizer: Any = None, **values: Any) -> Any:
    built = make(model)
    randomise(built)
    built.weigh_tasks(TaskWeightsConfig.parse({"kind": kind, **KINDS[kind], **values}, "test"))
    configs = dict(OptimizersConfig())
    built.compile(optimizer=optimizer or composite(built.groups(), configs))
    built.reset_metrics()  # which are random too
    return built


def data(seed: int = 0, unknown: int = 0) -> Any:
    """A batch in which the first ones do not have the first label."""
    labels = LABELS.copy()
    labels[:unknown, 0] = np.nan
    return training_data(batch(16, seed), labels, np.linspace(0.1, 2, 16), TASKS)


def means(model: Any, given: Any) -> list[Any]:
    """The weighted mean of each task's losses, by the definition."""
    inputs, labels, weights = given
    scores = model(inputs, training=True)
    losses = [
        task_loss(label, labels[label.name], scores[label.name], weights)[0]
        for label in TASKS.labels
    ]
    return [tf.reduce_sum(loss * weights) / tf.reduce_sum(weights) for loss in losses]


def stepped(model: Any, given: Any) -> dict[str, float]:
    model.reset_metrics()
    return {name: float(value) for name, value in model.train_step(given).items()}


def test_without_weights_the_losses_are_added_and_each_is_told() -> None:
    model = compiled(make("mmoe"))
    like, stars = (float(mean) for mean in means(model, data()))
    found = stepped(model, data())
    assert found == pytest.approx(
        {"loss": like + stars, "like_loss": like, "stars_loss": stars}, rel=1e-5
    )


def test_a_missing_label_has_no_part_in_its_task_alone() -> None:
    model = compiled(make("mmoe"))
    given = data(unknown=8)
    half = tf.nest.map_structure(lambda t: t[8:], given)
    of_half, of_all = float(means(model, half)[0]), float(means(model, given)[1])
    found = stepped(model, given)
    assert found["like_loss"] == pytest.approx(of_half, rel=1e-5)
    assert found["stars_loss"] == pytest.approx(of_all, rel=1e-5)


def test_a_step_without_a_label_has_no_part_in_the_mean_of_its_task() -> None:
    model = compiled(make("mmoe"))
    first = stepped(model, data())
    second = float(means(model, data(unknown=16))[1])
    found = {name: float(value) for name, value in model.train_step(data(unknown=16)).items()}
    assert found["like_loss"] == first["like_loss"]
    assert found["stars_loss"] == pytest.approx((first["stars_loss"] + second) / 2, rel=1e-5)
    assert found["loss"] == pytest.approx((first["loss"] + second) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm"])
def test_a_step_without_a_label_leaves_the_weight_of_its_task(kind: str) -> None:
    model = weighted(kind, optimizer=keras.optimizers.SGD(0.1))
    stepped(model, data())
    before = model.task_weights.factors().numpy()
    assert abs(before[0] - 1) > 1e-3
    stepped(model, data(1, unknown=16))
    after = model.task_weights.factors().numpy()
    assert after[0] == before[0]
    if kind == "gradnorm":  # nothing to even out
        np.testing.assert_allclose(after, before, rtol=1e-6)
    stepped(model, data(2))
    assert model.task_weights.factors()[0] != before[0]


def test_fixed_weights_multiply_the_losses_and_1_is_for_those_not_named() -> None:
    model = weighted("fixed")
    like, stars = (float(mean) for mean in means(model, data()))
    assert stepped(model, data())["loss"] == pytest.approx(like + 0.3 * stars, rel=1e-5)


def test_uncertainty_learns_log_variances() -> None:
    """e^{−s} L + s / 2, half of the first term for a squared error; one step down its slope."""
    model = weighted("uncertainty", optimizer=keras.optimizers.SGD(0.1))
    s = np.array([0.4, -0.7])
    model.task_weights.log_variances.assign(s)
    losses = np.array([float(mean) for mean in means(model, data())])
    parts = np.array([1.0, 0.5]) * np.exp(-s) * losses
    assert stepped(model, data())["loss"] == pytest.approx(parts.sum() + s.sum() / 2, rel=1e-5)
    np.testing.assert_allclose(
        model.task_weights.log_variances, s - 0.1 * (0.5 - parts), rtol=1e-4, atol=1e-6
    )


def test_dynamic_weights_follow_how_fast_the_losses_fall() -> None:
    weights = weighted("dynamic").task_weights
    means = np.array([[1.0, 4.0], [0.5, 4.0], [0.45, 1.0]])
    weights.after_validation(list(means[0]))
    np.testing.assert_allclose(weights.factors(), [1, 1])
    for before, now in itertools.pairwise(means):
        weights.after_validation(list(now))
        powers = np.exp(now / before / 0.5)
        np.testing.assert_allclose(weights.factors(), 2 * powers / powers.sum(), rtol=1e-5)
    assert weights.factors()[0] > weights.factors()[1]  # the second fell faster in the end
    weights.after_validation([0.45, 0.0])  # no label of the second since then
    np.testing.assert_allclose(weights.factors(), [1, 1])
    weights.after_validation([0.45, 0.5])
    powers = np.exp(np.array([1.0, 0.5]) / 0.5)
    np.testing.assert_allclose(weights.factors(), 2 * powers / powers.sum(), rtol=1e-5)


@pytest.mark.parametrize("model", ["shared_bottom", "moe", "mmoe", "ple"])
def test_gradnorm_takes_a_step_on_the_weights(model: str) -> None:
    built = weighted("gradnorm", model, optimizer=keras.optimizers.SGD(0.05))
    assert [v.shape.rank for v in built.last_shared] in ([2, 1], [3, 2])
    first, expected = None, np.ones(2)
    for seed in range(4):
        with tf.GradientTape(persistent=True) as tape:
            losses = means(built, data(seed))
        gradients = [tape.gradient(loss, built.last_shared) for loss in losses]
        norms = np.sqrt([sum((g.numpy() ** 2).sum() for g in task) for task in gradients])
        losses = np.array(losses)
        first = losses if first is None else first
        of_tasks = expected * norms
        rates = losses / first / (losses / first).mean()
        slope = np.sign(of_tasks - of_tasks.mean() * rates**0.7) * norms
        total = expected @ losses
        expected = np.maximum(expected - 0.01 * slope, 1e-3)
        expected *= 2 / expected.sum()
        assert stepped(built, data(seed))["loss"] == pytest.approx(total, rel=1e-4)
        np.testing.assert_allclose(built.task_weights.factors(), expected, rtol=1e-4)
    assert np.ptp(expected) > 1e-3


def test_gradnorm_skips_what_overflows_under_float16() -> None:
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = weighted("gradnorm")
    inputs, labels, weights = data()
    stepped(model, (inputs, {**labels, "stars": 1e4 * labels["stars"]}, weights))
    np.testing.assert_array_equal(model.task_weights.factors(), 1)
    np.testing.assert_array_equal(model.task_weights.first, 0)
    for _ in range(3):
        stepped(model, data())
    assert np.isfinite(model.task_weights.factors()).all()
    assert np.ptp(model.task_weights.factors()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_replicas_equal_one(kind: str, mirrored: Any) -> None:
    alone = weighted(kind)
    with mirrored.scope():
        double = weighted(kind)
    for seed, unknown in enumerate((0, 8, 16, 0)):  # 8 are those of one replica
        given = data(seed, unknown)
        alone.train_step(given)

        def half(context: Any, given: Any = given) -> Any:
            start = 8 * context.replica_id_in_sync_group
            return tf.nest.map_structure(lambda tensor: tensor[start : start + 8], given)

        halves = mirrored.experimental_distribute_values_from_function(half)
        mirrored.run(double.train_step, args=(halves,))
        for built in (alone, double):
            if seed:
                built.task_weights.after_validation([1.0 / seed, 2.0])
    for one, two in zip(alone.metrics, double.metrics, strict=True):
        assert float(one.result()) == pytest.approx(float(two.result()), rel=1e-4), one.name
    for one, two in zip(alone.trainable_variables, double.trainable_variables, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5, err_msg=one.name)
    factors = alone.task_weights.factors()
    np.testing.assert_allclose(double.task_weights.factors(), factors, rtol=1e-4)
    if kind != "fixed":
        assert np.abs(factors - 1).max() > 1e-3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"stars": 0.2}),
        (
            {"task_weights": {"kind": "fixed", "weights": {"bought": 3}}},
            {"stars": 0.2, "bought": 3},
        ),
        ({"task_weights": {"kind": "fixed", "weights": {"stars": 3}}}, {"stars": 3}),
        ({"task_weights": {"kind": "dynamic"}}, {}),
        ({"model": {"id": "dnn"}, "labels": ["stars"]}, None),
    ],
)
def test_weights_of_the_data_set_hold_unless_a_run_names_others(
    shop: Path, values: dict[str, Any], expected: dict[str, float] | None
) -> None:
    features = Features.load(shop)
    labels = [label for label in features.labels if label.name != "opened"]
    labels[-1] = dataclasses.replace(labels[-1], weight=0.2)
    assert [label.name for label in labels] == ["bought", "stars"]
    weighed = dataclasses.replace(features, labels=tuple(labels))
    base = {"data": str(shop), "model": {"id": "mmoe"}}
    found = resolve_for({**base, **values}, "test", weighed)[0].task_weights
    assert (found and found.weights) == expected
    assert (
        resolve_for(base, "test", features.with_labels(["bought", "stars"]))[0].task_weights is None
    )


SETTINGS = (
    "labels=[bought,stars]", "batch_size=64", "epochs=2", "model.hidden=[8]", "model.tower=[]",
    "model.dim=4", "model.experts=3", "checkpoint_steps=5", "patience=9",
)  # fmt: skip


def run(shop: Path, output: Path, *settings: str, model: str = "mmoe") -> Result:
    sets = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    arguments = ["--data", str(shop), "--model", model, "--output", str(output), "--no-export"]
    return CliRunner().invoke(train.main, [*arguments, "--seed", "4", *sets])


def state(output: Path) -> dict[str, Any]:
    newest = max((output / "checkpoints" / "last").glob("*.index"), key=lambda p: int(p.stem[5:]))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "position" not in name and "OBJECT_GRAPH" not in name
    }


@pytest.mark.parametrize("kind", ["dynamic", "gradnorm"])
def test_goes_on_from_where_it_was_ended(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After a validation and some steps: what was learned of the tasks is in the checkpoint."""
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    setting = f"task_weights.kind={kind}"
    assert run(shop, whole, setting).exit_code == 0
    step = Trainer._step

    def dies(trainer: Trainer, *arguments: Any) -> None:
        if trainer.step == 17:
            raise KeyboardInterrupt
        step(trainer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", dies)
        assert run(shop, ended, setting).exit_code
    again = run(shop, ended, setting)
    assert "going on from step 15" in again.output, again.output
    one, two = state(whole), state(ended)
    assert one.keys() == two.keys()
    assert any(name.startswith("model/task_weights/") for name in one)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)
    history = [json.loads((o / "metrics.json").read_text())["history"] for o in (whole, ended)]
    assert [v["step"] for v in history[0]] == [v["step"] for v in history[1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["task_weights.weights={stars: 2, like: 1}"],
            "weights: the run has no label 'like'",
        ),
        (["task_weights={kind: fixed}"], "fixed needs `weights`, by task"),
        (["task_weights={kind: dynamic, alpha: 1}"], "`alpha` belongs to gradnorm, not to dynamic"),
        (["task_weights={kind: fixed, weights: {stars: -1}}"], "greater than or equal to 0"),
        (["monitor=[star]"], "monitor: the run has no label 'star'; did you mean 'stars'?"),
        (["labels=[bought]"], "model mmoe needs two or more labels"),
        (["model.hidden=[]"], "experts need at least one layer"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    shop: Path, tmp_path: Path, settings: list[str], message: str
) -> None:
    result = run(shop, tmp_path / "run", *settings)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_weights_need_several_tasks_and_gradnorm_a_layer_that_they_share(
    shop: Path, tmp_path: Path
) -> None:
    command = ["--data", str(shop), "--output", str(tmp_path / "run"), "--model"]
    weights = ["--set", "task_weights={kind: gradnorm}"]
    one = CliRunner().invoke(train.main, [*command, "dnn", *weights])
    assert "task_weights need several labels; the run has one, 'bought'" in one.output
    none = CliRunner().invoke(train.main, [*command, "mf", *weights, "--set", "labels=[]"])
    assert "task_weights need several labels; the run has none" in none.output
    labels = ["--set", "labels=[opened,bought]"]
    esmm = CliRunner().invoke(train.main, [*command, "esmm", *weights, *labels])
    assert "gradnorm needs a layer that all tasks share" in esmm.output
    assert one.exit_code == esmm.exit_code == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="gradnorm"):
        make("shared_bottom", hidden=[]).weigh_tasks(TaskWeightsConfig(kind="gradnorm"))


def test_losses_metrics_and_shares_of_experts_are_told_by_task(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    result = run(shop, output, "task_weights={kind: fixed, weights: {stars: 0.5}}")
    assert result.exit_code == 0, result.output
    metrics = json.loads((output / "metrics.json").read_text())
    for validation in metrics["history"]:
        losses, gates = validation["losses"], validation["gates"]
        assert validation["loss"] == pytest.approx(
            losses["bought_loss"] + 0.5 * losses["stars_loss"], rel=1e-4
        )
        assert f"bought_loss {losses['bought_loss']:.4f}  stars_loss" in result.output
        assert set(validation["metrics"]) == set(gates) == {"bought", "stars"}
        for shares in gates.values():
            assert len(shares) == 3
            assert sum(shares) == pytest.approx(1, rel=1e-4)
    tasks = [validation["metrics"] for validation in metrics["history"]]
    scores = [task["bought"]["auc"] - task["stars"]["rmse"] for task in tasks]
    assert metrics["best_score"] == pytest.approx(max(scores) / 2)
    tags = set()
    for path in (output / "logs").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    expected = {"train/loss", "train/bought_loss", "train/stars_weight", "gates/bought/2"}
    assert expected | {"validation/stars/rmse"} <= tags


def test_monitor_names_the_tasks_that_early_stopping_goes_by(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(shop, output, "monitor=[stars]", "epochs=1").exit_code == 0
    metrics = json.loads((output / "metrics.json").read_text())
    best = min(v["metrics"]["stars"]["rmse"] for v in metrics["history"])
    assert metrics["best_score"] == pytest.approx(-best)


@pytest.mark.parametrize("model", ["mmoe", "ple"])
def test_serving_has_nothing_of_what_is_logged(model: str) -> None:
    """The logits alone compute every gate once."""
    built = make(model)
    randomise(built)
    inputs = tensors(batch(8))
    for shares in built.gates(inputs).values():
        np.testing.assert_allclose(tf.reduce_sum(shares, axis=1), 1, rtol=1e-5)
    served = tf.function(lambda values: built(values, training=False)).get_concrete_function(inputs)
    softmaxes = [op for op in served.graph.get_operations() if op.type == "Softmax"]
    gates = len(built.gates(inputs))
    assert len(softmaxes) == gates
