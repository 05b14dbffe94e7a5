"""Data sets that lack what there is to learn from, or to compare models by."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.support import start
from tfrec.config import TrainConfig
from tfrec.features import LABEL_PREFIX, Features
from tfrec.models.nextitem.sasrec import SASRec
from tfrec.positives import learn_items
from tfrec.strict import UserError

SETTINGS = ("model.hidden=[8]", "model.tower=[]", "model.dim=4", "epochs=1", "batch_size=64")


def changed(shop: Path, directory: Path, split: str, change: Callable[[Any], None]) -> Path:
    """A copy of a data set with other examples in a split."""
    data = directory / "data"
    shutil.copytree(shop, data)
    for path in (data / "examples").glob(f"{split}-*"):
        examples = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                change(example.features.feature)
                writer.write(example.SerializeToString())
    return data


def without(shop: Path, directory: Path, split: str, *labels: str) -> Path:
    """A copy of a data set in which no example of a split has the labels."""

    def change(values: Any) -> None:
        for label in labels:
            values[LABEL_PREFIX + label].float_list.value[:] = [math.nan]

    return changed(shop, directory, split, change)


def trained(data: Path, run: Path, *settings: str, model: str = "mmoe") -> Any:
    sets = [part for setting in settings for part in ("--set", setting)]
    return start("--data", str(data), "--model", model, "--output", str(run), "--no-export", *sets)


def test_models_are_compared_by_the_labels_that_validation_has(shop: Path, tmp_path: Path) -> None:
    data, run = without(shop, tmp_path, "validation", "stars"), tmp_path / "run"
    result = trained(data, run, "labels=[bought,stars]", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert "no example of validation has label 'stars': models are" in result.output

    def fails(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    metrics = json.loads((run / "metrics.json").read_text(), parse_constant=fails)
    scores = [validation["metrics"]["bought"]["auc"] for validation in metrics["history"]]
    assert metrics["best_score"] == max(scores)
    assert metrics["judged_by"] == "auc of bought"


@pytest.mark.parametrize(
    ("split", "missing", "model", "settings", "message"),
    [
        (
            "validation",
            ["stars"],
            "mmoe",
            ["labels=[bought,stars]", "monitor=[stars]"],
            "monitor: no example of validation has label 'stars'; leave it out",
        ),
        (
            "validation",
            ["bought"],
            "dnn",
            ["labels=[bought]"],
            "no example of validation has label 'bought', and there is no other one",
        ),
        (
            "train",
            ["opened"],
            "mmoe",
            ["labels=[bought,opened]"],
            "no training example has label 'opened'; name others in `labels`",
        ),
    ],
)
def test_a_label_without_values_is_told_before_the_training(
    shop: Path,
    tmp_path: Path,
    split: str,
    missing: list[str],
    model: str,
    settings: list[str],
    message: str,
) -> None:
    data, run = without(shop, tmp_path, split, *missing), tmp_path / "run"
    result = trained(data, run, *settings, model=model)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not run.exists()


def test_sequences_of_single_events_are_told(shop: Path, tmp_path: Path) -> None:
    def change(values: Any) -> None:
        for name in values:
            if name.startswith("bought_before"):
                values[name].Clear()

    data = changed(shop, tmp_path, "train", change)
    features = dataclasses.replace(Features.load(data).with_labels([]), sequences=True)
    config = TrainConfig.parse({"data": str(data), "model": {"id": "sasrec"}}, "test")
    with pytest.raises(UserError, match="sequences need two events or more in training"):
        learn_items(SASRec(features), config, features)
