"""Training, as a user starts it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner
from rich.console import Console

from tests.support import start
from tfrec import evaluate, evaluation
from tfrec.config import TrainConfig
from tfrec.data import evaluation_batches, training_batches
from tfrec.evaluation import Evaluator
from tfrec.features import Features
from tfrec.models.nextitem.sasrec import SASRec
from tfrec.positives import learn_items
from tfrec.runs import Run, resolve, resolve_for
from tfrec.strict import UserError
from tfrec.training import Trainer
from tfrec.validation import Validation


def test_learns_and_reports(finished: tuple[Path, str]) -> None:
    output, printed = finished
    metrics = json.loads((output / "metrics.json").read_text())
    compared = metrics["validation"]
    assert compared["wide_deep"]["bought"]["auc"] > 0.8
    assert compared["wide_deep"]["bought"]["auc"] > compared["item mean"]["bought"]["auc"] + 0.1
    assert compared["global mean"]["bought"]["auc"] == 0.5
    for text in (
        "ftrl",
        "row_sparse_adam",
        "parameters",
        "memory: tables",
        "measured on validation, ",
        "examples/s",
        "loss",
        "auc",
        "global mean",
        "item mean",
        "exported",
    ):
        assert text in printed, text
    assert list((output / "logs").glob("events.out.tfevents.*"))


def test_whole_configuration_is_kept_and_runs_as_it_is(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    output, _ = finished
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["model"]["hidden"] == [16]
    assert config["model"]["dim"] == 16
    assert config["optimizers"]["linear"]["name"] == "ftrl"
    assert config["seed"] == 1
    again = tmp_path / "again"
    result = start(
        "--config",
        str(output / "config.yaml"),
        "--output",
        str(again),
        "--set",
        "epochs=1",
        "--no-export",
    )
    assert result.exit_code == 0, result.output
    kept = yaml.safe_load((again / "config.yaml").read_text())
    assert kept == {**config, "epochs": 1}
    assert not (again / "export").exists()


def test_best_weights_are_those_of_the_best_validation(finished: tuple[Path, str]) -> None:
    output, _ = finished
    run = Run.load(output)
    metrics = run.metrics()
    aucs = [v["metrics"]["bought"]["auc"] for v in metrics["history"]]
    assert metrics["best"]["metrics"]["bought"]["auc"] == max(aucs)
    assert len(aucs) - 1 - int(np.argmax(aucs)) == 6 or len(aucs) == 40  # patience
    found = Evaluator(run.config.data, run.features, "validation").evaluate(run.best_model())
    assert found["bought"]["auc"] == pytest.approx(max(aucs), abs=1e-9)
    version = next((output / "export").iterdir())
    assert version.name == "1"


def test_evaluate_prints_the_test_split_beside_the_baselines(finished: tuple[Path, str]) -> None:
    output, _ = finished
    result = CliRunner().invoke(evaluate.main, ["--run", str(output), "--split", "test"])
    assert result.exit_code == 0, result.output
    for text in ("auc", "log_loss", "gauc", "calibration", "wide_deep", "global mean", "item mean"):
        assert text in result.output
    other = CliRunner().invoke(
        evaluate.main, ["--run", str(output), "--set", "top_k.candidates=all"]
    )
    assert other.exit_code == 1
    assert "top_k belongs to models that score all items, not to wide_deep" in other.output
    metrics = json.loads((output / "metrics.json").read_text())["test"]["wide_deep"]["bought"]
    assert f"{metrics['auc']:.4f}" in result.output


def test_baselines_by_hand(shop: Path) -> None:
    features = Features.load(shop).with_labels(["bought"])
    rows: dict[str, Any] = {}
    for split in ("train", "test"):
        parts = list(evaluation_batches(shop, features, split, 50))
        labels = np.concatenate([labels["bought"] for _, labels, _, _ in parts])
        items = np.concatenate([keys["item"] for _, _, _, keys in parts])
        rows[split] = labels, items
    labels, items = rows["train"]
    mean = labels.mean()
    own = [labels[items == item] for item in rows["test"][1]]
    served = np.array([(mine.sum() + 10 * mean) / (len(mine) + 10) for mine in own])
    compared = Evaluator(shop, features, "test").compare("constant", Constant())  # type: ignore[arg-type]
    found = compared["item mean"]["bought"]["log_loss"]
    truth = rows["test"][0]
    expected = -np.mean(truth * np.log(served) + (1 - truth) * np.log(1 - served))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kept", [True, False])
def test_a_split_is_read_once_where_it_is_small(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        monkeypatch.setattr(evaluation, "KEPT_BYTES", 0)
    copy = shutil.copytree(shop, tmp_path / "shop")
    evaluator = Evaluator(copy, Features.load(copy).with_labels(["bought"]), "validation")
    model: Any = Constant()
    before = evaluator.evaluate(model)
    shutil.rmtree(copy / "examples")
    if kept:
        assert evaluator.evaluate(model) == before
    else:
        with pytest.raises(tf.errors.NotFoundError):
            evaluator.evaluate(model)


class Constant:
    """A model that always says one half."""

    def __call__(self, inputs: Any, training: bool) -> Any:
        return {"bought": tf.zeros(tf.shape(inputs["price"]))}

    def probabilities(self, logits: Any) -> Any:
        return {name: tf.sigmoid(value) for name, value in logits.items()}


def test_order_depends_on_seed_and_epoch_alone(shop: Path) -> None:
    features = Features.load(shop)

    def prices(seed: int, epoch: int) -> Any:
        batches = training_batches(shop, features, 64, seed, range(epoch, epoch + 1))
        return np.concatenate([inputs["price"] for inputs, _, _ in batches])

    first = prices(1, 0)
    np.testing.assert_array_equal(first, prices(1, 0))
    assert len(first) == features.counts["train"]
    for other in (prices(1, 1), prices(2, 0)):
        assert not np.array_equal(first, other)
        np.testing.assert_array_equal(np.sort(first), np.sort(other))


def test_regression_label_can_be_chosen(shop: Path, tmp_path: Path) -> None:
    result = start(
        "--data",
        str(shop),
        "--model",
        "dnn",
        "--output",
        str(tmp_path / "run"),
        "--set",
        "labels=[stars]",
        "--set",
        "epochs=1",
        "--no-export",
    )
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["validation"]["dnn"]["stars"]) == {"rmse", "mae", "bias", "r2"}


def test_workers_share_the_batches_of_every_pass(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row once a pass, in several windows of shuffling; each worker has its own batches."""
    monkeypatch.setattr("tfrec.data.WINDOW_ROWS", 100)
    monkeypatch.setattr("tfrec.data.BLOCK_ROWS", 16)
    features = Features.load(shop)

    def batches(*workers: int) -> list[Any]:
        read = training_batches(shop, features, 32, 5, range(2), 0, None, *workers)
        return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in read]

    alone, first, second = batches(), batches(2, 0), batches(2, 1)
    assert len(alone) == len(first) + len(second)
    for index, whole in enumerate(alone):
        part = (first, second)[index % 2][index // 2]
        tf.nest.map_structure(np.testing.assert_array_equal, whole, part)
    rows = features.counts["train"]
    ids = np.concatenate([np.stack(list(b[0].values())[:3], axis=1) for b in alone])
    passes = [sorted(map(tuple, ids[start : start + rows])) for start in (0, rows)]
    assert len(ids) == 2 * rows
    assert passes[0] == passes[1]
    assert not np.array_equal(ids[:rows], ids[rows:])


def test_one_class_in_validation_falls_back_to_the_log_loss(shop: Path, tmp_path: Path) -> None:
    trainer_run = Run(tmp_path / "run", *_configured(shop))
    trainer = Trainer(trainer_run, Console(quiet=True))

    def score(auc: float | None, loss: float) -> float:
        metrics = {"bought": {"auc": auc, "log_loss": loss}}
        return trainer.score(Validation(1, 1.0, 0.5, metrics))

    assert score(0.7, 0.9) > score(0.6, 0.1)
    assert score(None, 0.3) > score(None, 0.4)


def _configured(shop: Path) -> Any:
    return resolve({"data": str(shop), "model": {"id": "lr"}}, "test")


def test_sequences_of_other_events_than_positive_ones_are_told(shop: Path) -> None:
    """Every event of a sequence is learned, and one by one no label is asked for."""
    features = dataclasses.replace(Features.load(shop), sequences=True)
    config = TrainConfig.parse({"data": str(shop), "model": {"id": "sasrec"}}, "test")
    every, bought = features.with_labels([]), features.with_labels(["bought"])
    assert learn_items(SASRec(every), config, every) == features.counts["train"]
    with pytest.raises(UserError, match=r"'bought' is not 1, .* `where: bought`, or .* labels="):
        learn_items(SASRec(bought), config, bought)


def test_what_goes_with_the_models_defaults_is_no_error(shop: Path) -> None:
    values = {"model": {"id": "two_tower"}, "item_loss": {"negatives": 0}}
    loss = resolve({"data": str(shop), **values}, "test")[0].item_loss
    assert (loss.negatives, loss.in_batch) == (0, True)
    with pytest.raises(UserError, match="`in_batch` false: there is nothing to compare with"):
        resolve({"data": str(shop), **values, "model": {"id": "sasrec"}}, "test")


@pytest.mark.parametrize(("model", "name"), [("mf", "exclude_seen"), ("dnn", "candidates")])
def test_a_column_called_as_an_input_of_exports_is_told_at_once(
    shop: Path, model: str, name: str
) -> None:
    features = Features.load(shop)
    columns = tuple(
        dataclasses.replace(column, name=name) if column.name == "at" else column
        for column in features.columns
    )
    values = {"data": str(shop), "model": {"id": model}}
    with pytest.raises(UserError, match=f"column '{name}' has the name of another input"):
        resolve_for(values, "test", dataclasses.replace(features, columns=columns))


def test_a_finished_run_is_not_overwritten_unasked(finished: tuple[Path, str], shop: Path) -> None:
    output, _ = finished
    before = (output / "metrics.json").read_bytes()
    result = start("--data", str(shop), "--model", "lr", "--output", str(output))
    assert result.exit_code == 1
    assert "is a run of another configuration, which differs in" in result.output
    assert "model.id" in result.output
    assert (output / "metrics.json").read_bytes() == before


def test_fnn_trains_its_factorization_machine_first(shop: Path, tmp_path: Path) -> None:
    """Without a training of its own it would be the factorization machine, as far as it goes."""
    output = tmp_path / "run"
    command = ["--data", str(shop), "--model", "fnn", "--output", str(output), "--no-export"]
    settings = ["epochs=1", "batch_size=64", "model.dim=4", "model.hidden=[8]", "model.frozen=true"]
    settings += ["optimizers.embedding.learning_rate=0.01"]
    command += [part for setting in settings for part in ("--set", setting)]
    result = start(*command)
    assert result.exit_code == 0, result.output
    assert f"first fm, in {output / 'fm'}" in result.output
    first = Run.load(output / "fm")
    assert first.finished
    assert first.config.model.id == "fm"
    assert first.config.model.hyperparameters == {"dim": 4, "crosses": True}
    fm, fnn = first.best_model(), Run.load(output).best_model()
    for mine, its in (
        (fnn.embeddings.variables, fm.embeddings.variables),
        (fnn.first_order.variables, fm.linear.terms.variables),
    ):
        for variable, source in zip(mine, its, strict=True):
            np.testing.assert_array_equal(variable, source)
    untrained = resolve(first.config.model_dump(mode="json"), "test")
    begun = Run(tmp_path / "other", *untrained).build_model()
    assert max(np.std(v) for v in fm.embeddings.variables) > 2 * max(
        np.std(v) for v in begun.embeddings.variables
    )

    ended = tmp_path / "ended"
    command[command.index(str(output))] = str(ended)
    with pytest.MonkeyPatch.context() as patched:
        step = Trainer._step

        def dies(trainer: Trainer, *arguments: Any) -> None:
            if trainer.config.model.id == "fm" and trainer.step == 3:
                raise KeyboardInterrupt
            step(trainer, *arguments)

        patched.setattr(Trainer, "_step", dies)
        assert start(*command, "--set", "checkpoint_steps=2").exit_code
    again = start(*command, "--set", "checkpoint_steps=2")
    assert "going on from step 2" in again.output, again.output
    for variable, source in zip(Run.load(ended).best_model().variables, fnn.variables, strict=True):
        np.testing.assert_array_equal(variable, source)
    command[command.index(str(ended))] = str(output)

    made = (output / "fm" / "metrics.json").read_bytes()
    again = start(*command)
    assert again.exit_code == 0, again.output
    assert "is finished" in again.output
    assert "first fm" not in again.output
    assert (output / "fm" / "metrics.json").read_bytes() == made
