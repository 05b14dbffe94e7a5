"""Runs beside each other."""

from __future__ import annotations

import subprocess
import sys
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

FEATURES = Features("made", (), (), (Label("like"),), user_key="user")


def made(place: Path, noise: float, config: dict[str, Any], labels: int = 0) -> Path:
    """A run directory with a report of scores that are more or less near the truth."""
    rng = np.random.default_rng(0)
    users, truth = rng.integers(0, 150, 3_000), rng.normal(size=3_000)
    clicks = (np.random.default_rng(labels).random(3_000) < 1 / (1 + np.exp(-truth))).astype(float)
    seen = truth + noise * np.random.default_rng(1).normal(size=3_000)
    rows = Rows(["like"], [place.name], 0, 3_000)
    scores = {"like": 1 / (1 + np.exp(-seen))}
    rows.add(users, np.ones(3_000), {"like": clicks}, [scores])
    tallies = Measuring("", FEATURES, "test").tallies(rows, None, 100)
    record = tallies[place.name, None]["like"].record()
    records = [{"name": place.name, "task": "like", "slice": None, **record}]
    report = Report(place.name, "test", "test, 3,000 examples", rows.digest, 100, records)
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
    (other / "evaluation" / "test.json").write_text("{")
    assert "cannot be read" in compared(run, other).output


def test_no_tensorflow_is_needed(tmp_path: Path) -> None:
    runs = [made(tmp_path / name, 0.1, BASE) for name in ("a", "b")]
    script = (
        "import sys\nfrom tfrec.compare import main\n"
        f"main({list(map(str, runs))!r}, standalone_mode=False)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
