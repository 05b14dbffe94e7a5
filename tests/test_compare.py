"""Runs beside each other."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tfrec import compare
from tfrec.features import Features, Label
from tfrec.figures import Report
from tfrec.measuring import Measuring
from tfrec.rows import Rows
from tfrec.runs import best_weights


def made(
    place: Path, noise: float, config: dict[str, Any], labels: int = 0, other: str = ""
) -> Path:
    """A run directory with a report of scores that are more or less near the truth."""
    rng = np.random.default_rng(0)
    users, truth = rng.integers(0, 150, 3_000), rng.normal(size=3_000)
    clicks = (np.random.default_rng(labels).random(3_000) < 1 / (1 + np.exp(-truth))).astype(float)
    seen = truth + noise * np.random.default_rng(1).normal(size=3_000)
    tasks = [*([other] if other else []), "like"]
    rows = Rows(tasks, [place.name], 0, 3_000)
    scores = dict.fromkeys(tasks, 1 / (1 + np.exp(-seen)))
    rows.add(users, np.ones(3_000), {**dict.fromkeys(tasks, 1 - clicks), "like": clicks}, [scores])
    features = Features("made", (), (), tuple(map(Label, tasks)), user_key="user")
    tallies = Measuring("", features, "test").tallies(rows, None, 100)[place.name, None]
    records = [
        {"name": place.name, "task": task, "slice": None, **found.record()}
        for task, found in tallies.items()
    ]
    report = Report(place.name, "test", "test, 3,000 examples", rows.digests, 100, records)
    report.save(place / "evaluation" / "test.json")
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


def compared(*runs: Path) -> Any:
    return CliRunner().invoke(compare.main, list(map(str, runs)))


BASE = {"data": "here", "model": {"id": "dnn", "hidden": [64]}, "epochs": 5}


def test_differences_are_of_the_same_users(tmp_path: Path) -> None:
    near = made(tmp_path / "near", 0.1, BASE)
    far = made(tmp_path / "far", 0.4, {**BASE, "model": {"id": "dnn", "hidden": [8]}, "seed": 2})
    done = compared(near, far)
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line.split() for line in done.output.splitlines() if line}
    reports = [Report.load(run / "evaluation" / "test.json") for run in (near, far)]
    first, second = (report.records[0] for report in reports)
    _, a, b, difference, interval = lines["auc"]
    assert (a, b) == tuple(f"{r['metrics']['auc']:.4f}" for r in (first, second))
    assert float(difference) == pytest.approx(
        second["metrics"]["auc"] - first["metrics"]["auc"], abs=1e-4
    )
    assert interval.endswith("*")
    half = float(interval.strip("±*"))
    drawn = [np.array(r["replicates"]["auc"]) for r in (first, second)]
    assert half == pytest.approx(1.96 * np.std(drawn[1] - drawn[0], ddof=1), abs=1e-4)
    low, high = first["intervals"]["auc"]
    assert half < (high - low) / 4  # far more is told by pairs than by either alone
    assert lines["model.hidden"] == ["model.hidden", "[64]", "[8]"]
    assert lines["seed"] == ["seed", "—", "2"]
    assert "epochs" not in lines
    assert "data" not in lines


def test_equal_runs_do_not_differ(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, 0.1, BASE) for name in ("a", "b", "c")]
    done = compared(*runs)
    assert done.exit_code == 0, done.output
    assert "*" not in done.output
    assert "+0.0000" in done.output
    assert "the configurations are equal" in done.output
    alike = compared(runs[0], runs[1] / "evaluation" / "test.json")
    assert alike.exit_code == 0, alike.output


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    done = compared(made(tmp_path / "1" / "dnn", 0.1, BASE), made(tmp_path / "2" / "dnn", 1, BASE))
    assert str(tmp_path / "1" / "dnn") in done.output


def test_runs_of_several_tasks_are_compared_by_the_one_that_they_share(tmp_path: Path) -> None:
    several = made(tmp_path / "several", 0.1, BASE, other="stay")
    alone, others = made(tmp_path / "alone", 0.4, BASE), made(tmp_path / "b", 1, BASE, other="buy")
    found = {}
    for runs in ((alone, several), (several, alone, others)):
        done = compared(*runs)
        assert done.exit_code == 0, done.output
        heads = [line for line in done.output.splitlines() if "less" in line]
        assert len(heads) == 1
        assert heads[0].split()[0] == "like"
        found[len(runs)] = next(x.split() for x in done.output.splitlines() if x.startswith("auc"))
    first, second = found[2], found[3]
    assert float(first[3]) == -float(second[3]) > 0
    assert len(second) == 8


def test_figures_of_weights_that_are_gone(tmp_path: Path) -> None:
    """A run that was trained on is measured again before it is compared; the index tells."""
    runs = [made(tmp_path / name, 0.1, BASE) for name in ("a", "b")]
    best = runs[1] / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "ckpt-7.index").write_bytes(b"sums of one training")
    path = runs[1] / "evaluation" / "test.json"
    replace(Report.load(path), weights=best_weights(runs[1])).save(path)
    assert compared(*runs).exit_code == 0
    for step, content in ((7, b"sums of another one"), (12, b"sums of one training")):
        (best / f"ckpt-{step}.index").write_bytes(content)
        done = compared(*runs)
        assert done.exit_code == 1
        (line,) = done.output.strip().splitlines()
        assert f"{runs[1]} has been trained since it was measured" in line
        assert f"tfrec.evaluate --run {runs[1]} --split test" in line
    assert compared(runs[0], path).exit_code == 0


def test_what_is_kept_of_other_protocols(tmp_path: Path) -> None:
    """Only what is of the same weights; what cannot be read is written anew."""
    path = tmp_path / "evaluation.json"
    path.write_text("{")
    reports = {
        task: Report("mf", "test", "", {task: "1-a"}, 0, [{"task": task, "slice": None}], [task])
        for task in ("all items", "100 negatives")
    }
    for report in reports.values():
        report.save(path)
    both = Report.load(path)
    assert list(both.digests) == [record["task"] for record in both.records] == list(reports)
    assert both.slices == list(reports)
    replace(reports["all items"], weights="12-b").save(path)
    assert list(Report.load(path).digests) == ["all items"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    run, other = made(tmp_path / "a", 0.1, BASE), made(tmp_path / "b", 0.1, BASE, labels=5)
    for runs, message in (
        ((run,), "name two runs or more"),
        ((run, other), "was measured on other examples"),
        ((run, tmp_path), "make it with `python -m tfrec.evaluate`"),
    ):
        done = compared(*runs)
        assert done.exit_code == 1
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1
    path = other / "evaluation" / "test.json"
    replace(Report.load(path), digests={"stay": "3000-0"}).save(path)
    assert "b was measured of 'stay', a of 'like'" in compared(run, other).output
    path.write_text("{")
    assert "cannot be read" in compared(run, other).output


def test_no_tensorflow_is_needed(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, 0.1, BASE) for name in ("a", "b")]
    script = (
        "import sys\nfrom tfrec.compare import main\n"
        f"main({list(map(str, runs))!r}, standalone_mode=False)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
