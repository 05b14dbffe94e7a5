from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from click.testing import CliRunner
from rich.console import Console

from tests.models.test_harness import compiled, make
from tests.support import batch, training_data
from tfrec import train
from tfrec.config import OptimizersConfig, ScheduleConfig
from tfrec.optimizers import clipped, composite
from tfrec.runs import Run, resolve
from tfrec.schedules import Schedule
from tfrec.training import Trainer


def rates(config: ScheduleConfig, steps: list[int], scale: float = 1.0) -> Any:
    schedule = Schedule(0.1, config, 100, tf.Variable(scale))
    return np.array([float(schedule(step)) for step in steps])


def test_constant_and_plateau_scale() -> None:
    np.testing.assert_allclose(rates(ScheduleConfig(), [0, 50, 1000]), 0.1)
    np.testing.assert_allclose(rates(ScheduleConfig(), [0, 50], scale=0.5), 0.05)


def test_linear_warm_up_then_cosine() -> None:
    config = ScheduleConfig(kind="cosine", warm_up=20, end=0.1)
    found = rates(config, [0, 9, 19, 20, 60, 100, 500])
    middle = 0.1 + 0.9 * 0.5
    np.testing.assert_allclose(
        found, 0.1 * np.array([1 / 20, 0.5, 1, 1, middle, 0.1, 0.1]), rtol=1e-5
    )


def test_exponential() -> None:
    config = ScheduleConfig(kind="exponential", rate=0.5, every=10)
    np.testing.assert_allclose(rates(config, [0, 10, 25]), 0.1 * np.array([1, 0.5, 0.5**2.5]))


def test_clipping_sums_repeated_rows_before_it_takes_the_norm() -> None:
    repeated = tf.IndexedSlices(tf.constant([[3.0], [1.0], [-4.0]]), tf.constant([2, 0, 2]), [5, 1])
    whole = tf.constant([2.0])
    # the gradient is [1, 0, -1, 0, 0] and [2]: norm √6, not that of 3, 1, −4, 2
    sparse, dense = clipped([repeated, whole], 1.0)
    np.testing.assert_allclose(
        tf.convert_to_tensor(sparse)[:, 0], np.array([1, 0, -1, 0, 0]) / 6**0.5
    )
    np.testing.assert_allclose(dense, [2 / 6**0.5])
    sparse, dense = clipped([repeated, whole], 10.0)
    np.testing.assert_allclose(dense, [2.0])


def test_embedding_l2_over_whole_tables_shrinks_rows_that_no_batch_has() -> None:
    def untouched(embedding_l2: float) -> tuple[Any, Any]:
        model = make("dnn")
        configs = dict(OptimizersConfig.parse({"embedding": {"name": "sgd"}}, "test"))
        model.compile(composite(model.groups(), configs), embedding_l2=embedding_l2)
        table = model.embeddings.tables["user"].table
        before = table.numpy()
        inputs = batch(4)
        inputs["user"][:] = 3
        model.train_step(training_data(inputs, [0, 1, 0, 1]))
        return before[5], table.numpy()[5]

    before, after = untouched(0.0)
    np.testing.assert_array_equal(before, after)
    before, after = untouched(0.5)
    np.testing.assert_allclose(after, before * (1 - 0.001 * 0.5), rtol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_run_with_everything(shop: Path, tmp_path: Path, precision: str) -> None:
    """Schedules, plateau, clipping, focal loss and precision, through the command."""
    output = tmp_path / "run"
    settings = [
        "epochs=5", "patience=9", "batch_size=64", "model.hidden=[8]", "clip_norm=1.0",
        f"precision={precision}", "loss={kind: focal}", "plateau={factor: 0.5, patience: 1}",
        "optimizers.dense.schedule={kind: cosine, warm_up: 5}",
        "optimizers.embedding={learning_rate: 0.01, weight_decay: 0.01}",
    ]  # fmt: skip
    sets = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(
        train.main, ["--data", str(shop), "--model", "deepfm", "--output", str(output), *sets]
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["history"][-1]["loss"] < 0.95 * metrics["history"][0]["loss"]
    loaded = tf.saved_model.load(str(output / "export" / "1"))
    assert loaded.signatures["predict"].structured_outputs["bought"].dtype == tf.float32


def test_the_plateau_lowers_the_rate_of_the_run(shop: Path, tmp_path: Path) -> None:
    """Nothing is learnt, so that every validation but the first one has stalled."""
    still = {"name": "sgd", "learning_rate": 1e-30}
    values = {
        "data": str(shop),
        "model": {"id": "dnn", "dim": 4, "hidden": [4]},
        "epochs": 6,
        "batch_size": 128,
        "patience": 9,
        "validations_per_epoch": 1,
        "optimizers": {"embedding": still, "dense": still},
        "plateau": {"factor": 0.5, "patience": 2, "minimum": 0.3},
    }
    config, features = resolve(values, "test")
    run = Run(tmp_path / "run", config, features)
    run.start(overwrite=False)
    scales: list[float] = []
    trainer = Trainer(run, Console(quiet=True), watch=lambda *_: scales.append(float(scale)))
    scale = trainer.rate_scale
    trainer.fit()
    assert scales == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.3, 0.3])


def test_gradients_beyond_float16_at_any_scale_of_the_loss_end_the_run() -> None:
    """The scale is halved from step to step; where nothing is left to halve, it is an error."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = compiled(make("dnn", hidden=[4]))
    kernel, output = (v for v in model.trainable_variables if v.name.endswith("kernel:0"))
    prices = np.arange(kernel.shape[0])[:, np.newaxis] == kernel.shape[0] - 1
    kernel.assign(tf.where(prices, 0.0, kernel))  # the loss does not see the price
    output.assign(tf.fill(output.shape, 300.0))
    inputs = batch(8)
    inputs["price"][:] = 60_000  # and its gradient is large, as far as float16 goes
    data = training_data(inputs, np.arange(8) % 2)
    step = tf.function(model.train_step)
    before = [v.numpy() for v in model.trainable_variables]
    steps = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="the gradient of "):
        while steps < 20:
            step(data)
            steps += 1
    assert steps == 15  # halvings of 2 ** 15
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_an_input_that_is_not_finite_is_named() -> None:
    model = compiled(make("dnn", hidden=[4]))
    inputs = batch(8)
    inputs["price"][3] = np.inf
    with pytest.raises(tf.errors.InvalidArgumentError, match="the input price : Tensor had"):
        tf.function(model.train_step)(training_data(inputs, np.arange(8) % 2))
