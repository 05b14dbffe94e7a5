"""The comparison of measured figures with their baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import __main__ as compare
from benchmarks import measures
from benchmarks.measures import Figure


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a rate and of a peak of memory, both 10 with a tolerance of 20 %."""
    path = tmp_path / "baselines.json"
    ten = {"value": 10.0, "tolerance": 0.2}
    path.write_text(json.dumps({"rate": ten, "memory": ten}))
    monkeypatch.setattr(compare, "BASELINES", path)
    return path


def compared(monkeypatch: pytest.MonkeyPatch, rate: float, memory: float, *flags: str) -> Result:
    def group() -> Iterator[Figure]:
        yield Figure("rate", rate, "higher")
        yield Figure("memory", memory, "lower")

    monkeypatch.setattr(measures, "GROUPS", (group,))
    return CliRunner().invoke(compare.main, flags)


@pytest.mark.parametrize(("rate", "memory"), [(10, 10), (8.1, 11.9), (30, 1)])
def test_as_good_or_better(
    baselines: Path, monkeypatch: pytest.MonkeyPatch, rate: float, memory: float
) -> None:
    assert compared(monkeypatch, rate, memory).exit_code == 0


@pytest.mark.parametrize(
    ("rate", "memory", "named"),
    [(7.9, 10, "rate: 7.900 is worse than 10.000 by 21%"), (10, 12.1, "memory: 12.100 is worse")],
)
def test_worse(
    baselines: Path, monkeypatch: pytest.MonkeyPatch, rate: float, memory: float, named: str
) -> None:
    found = compared(monkeypatch, rate, memory)
    assert found.exit_code == 1
    assert named in found.output


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (["rate"], "memory: has no baseline"),
        (["rate", "memory", "old"], "old: nothing measures it"),
    ],
)
def test_no_baseline_and_no_figure(
    baselines: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str], named: str
) -> None:
    baselines.write_text(json.dumps({key: {"value": 10.0, "tolerance": 0.2} for key in kept}))
    found = compared(monkeypatch, 10, 10)
    assert found.exit_code == 1
    assert named in found.output


def test_recorded_baselines_keep_their_tolerances(
    baselines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compared(monkeypatch, 5, 20, "--record").exit_code == 0
    assert json.loads(baselines.read_text())["rate"] == {"value": 5, "tolerance": 0.2}
    assert compared(monkeypatch, 5, 20).exit_code == 0


def test_a_figure_that_is_recorded_first_brings_its_own_tolerance(
    baselines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "GROUPS", (lambda: [Figure("auc", 0.8, "higher", 0.005)],))
    assert CliRunner().invoke(compare.main, ["--record"]).exit_code == 0
    assert json.loads(baselines.read_text()) == {"auc": {"value": 0.8, "tolerance": 0.005}}
