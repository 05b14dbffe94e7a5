"""A search, ended and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tfrec import tune


def start(config: Path, output: Path, *more: str) -> Result:
    return CliRunner().invoke(tune.main, ["--config", str(config), "--output", str(output), *more])


def write(directory: Path, shop: Path, **changes: Any) -> Path:
    values = {
        "training": {
            "data": str(shop),
            "model": {"id": "dnn", "dim": 4},
            "batch_size": 128,
            "epochs": 2,
        },
        "space": {
            "model.hidden": {"choices": [[4], [16, 8]]},
            "optimizers.dense.learning_rate": {"low": 0.0001, "high": 0.1, "log": True},
        },
        "trials": 2,
        **changes,
    }
    path = directory / "search.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_search_goes_on_and_exports_the_best(shop: Path, tmp_path: Path) -> None:
    config, output = write(tmp_path, shop), tmp_path / "search"
    result = start(config, output)
    assert result.exit_code == 0, result.output
    runs = list((output / "trials").iterdir())
    assert len(runs) == 2
    result = start(config, output, "--trials", "3")
    assert result.exit_code == 0, result.output
    runs = list((output / "trials").iterdir())
    assert len(runs) == 3  # two of them were not run again
    scores = {run: json.loads((run / "metrics.json").read_text())["best_score"] for run in runs}
    best = max(scores, key=lambda run: scores[run])
    assert f"score: validation, auc of bought\nbest: {best}" in result.output
    assert (best / "export").is_dir()
    table = [line for line in result.output.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 3
    assert f"{scores[best]:.4f}" in table[2]


def test_settings_that_diverge_are_given_up_and_others_tried(shop: Path, tmp_path: Path) -> None:
    space = {"optimizers.dense.learning_rate": {"choices": [1.0e30, 0.001]}}
    training = {"data": str(shop), "model": {"id": "dnn", "dim": 4, "hidden": [4]}, "epochs": 1}
    training["optimizers"] = {"dense": {"name": "sgd"}}
    config = write(tmp_path, shop, training=training, space=space, trials=4)
    result = start(config, tmp_path / "search")
    assert result.exit_code == 0, result.output
    assert "is not finite" in result.output
    assert "| pruned |" in result.output
    assert "best: " in result.output


def test_settings_that_do_not_fit_each_other_cost_one_trial(shop: Path, tmp_path: Path) -> None:
    space = {"model.experts": {"choices": [1, 4]}}  # several of them need a rank
    training = {"data": str(shop), "model": {"id": "dcn_v2", "hidden": [4]}, "epochs": 1}
    result = start(write(tmp_path, shop, training=training, space=space, trials=4), tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert "several experts need a rank" in result.output
    assert "Traceback" not in result.output
    table = [line for line in result.output.splitlines() if line.startswith("| ")][2:]
    assert {line.rpartition("| ")[2] for line in table} == {"complete |", "pruned |"}
    assert table[0].endswith("| complete |")


def test_what_no_trial_can_do_ends_the_search(shop: Path, tmp_path: Path) -> None:
    config = write(tmp_path, shop, training={"data": "nowhere", "model": {"id": "dnn"}}, trials=50)
    result = start(config, tmp_path / "s")
    assert result.exit_code == 1
    assert result.output.count("nowhere") == tune.START_UP_TRIALS
    assert "nowhere" in result.output.splitlines()[-1]


def test_a_trial_below_the_median_is_cut_short(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What learns nothing is left at its first validation, and the best one is exported."""
    monkeypatch.setattr(tune, "START_UP_TRIALS", 1)
    training = {
        "data": str(shop), "model": {"id": "dnn", "dim": 4, "hidden": [8]}, "epochs": 4,
        "patience": 9, "batch_size": 64, "optimizers": {"embedding": {"learning_rate": 0.01}},
    }  # fmt: skip
    space = {"optimizers.dense.learning_rate": {"choices": [0.03, 1.0e-9]}}
    result = start(write(tmp_path, shop, training=training, space=space, trials=6), tmp_path / "s")
    assert result.exit_code == 0, result.output
    table = [line for line in result.output.splitlines() if line.startswith("| ")][2:]
    pruned = [line for line in table if line.endswith("| pruned |")]
    assert 0 < len(pruned) < len(table) == 6
    validations = [line for line in result.output.splitlines() if line.startswith("epoch ")]
    assert len(validations) < 4 * 6
    assert (tmp_path / "s" / "study.db").is_file()


def test_a_search_that_was_killed_counts_what_its_trial_had_found(
    shop: Path, tmp_path: Path
) -> None:
    """The best validation of a trial came before the kill; no later one reaches it."""
    space = {"model.hidden": {"choices": [[4]]}}
    config, output = write(tmp_path, shop, space=space, trials=1), tmp_path / "search"
    assert start(config, output).exit_code == 0
    (run,) = (output / "trials").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()  # as if killed after its last checkpoint
    (output / "study.db").unlink()
    result = start(config, output)
    assert result.exit_code == 0, result.output
    assert f"{metrics['best_score']:.4f} | complete" in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"model.dropout": {"low": 0.5}}}, "needs either `choices`"),
        ({"space": {"model.dropout": {"low": 0.5, "high": 0.1}}}, "`low` has to be below `high`"),
        ({"space": {"x": {"low": 0.0, "high": 0.5, "log": True}}}, "above 0 for a logarithm"),
        ({"space": {"x": {"choices": []}}}, "`choices` is empty"),
        ({"space": {"x": {"choices": [1], "log": True}}}, "have no part in `choices`"),
        ({"space": {"model.dropuot": {"low": 0.1, "high": 0.5}}}, "did you mean 'dropout'"),
        ({"trails": 3}, "unknown key 'trails'; did you mean 'trials'?"),
    ],
)
def test_wrong_searches_are_named(
    shop: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    result = start(write(tmp_path, shop, **changes), tmp_path / "search")
    assert result.exit_code == 1
    assert message in result.output


def test_another_search_is_not_mixed_in(shop: Path, tmp_path: Path) -> None:
    output = tmp_path / "search"
    output.mkdir()
    (output / "tune.yaml").write_text("training: {}\n")
    result = start(write(tmp_path, shop), output)
    assert result.exit_code == 1
    assert "another configuration" in result.output
