"""The figures that `python -m benchmarks` compares: cheap ones, that other machines show too.

They are ratios of what is measured in turn, peaks of memory, and how good a seeded model is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks import pipeline

ROWS, MORE_ROWS = 1_000_000, 5_000_000
ROUNDS = 3
EVENTS, MORE_EVENTS = 50_000, 200_000
CONFIG = str(Path(__file__).parent.parent / "configs" / "movielens.yaml")
MODEL = "dnn"
GIB = 2**30


@dataclass(frozen=True)
class Figure:
    """What one benchmark says.

    Attributes:
        name: key of its baseline.
        value: as measured.
        better: whether a higher or a lower one is.
        tolerance: of its baseline, as a share of it, until that one has another.
    """

    name: str
    value: float
    better: Literal["higher", "lower"]
    tolerance: float = 0.1


def training() -> Iterator[Figure]:
    """Training by the size of the tables, and from TFRecords, as benchmarks.throughput does.

    Of a rate the best round counts: whatever else the machine does makes it lower, never higher.
    """
    settings = (("memory", ROWS), ("tfrecord", ROWS), ("memory", MORE_ROWS))
    found: dict[tuple[str, int], list[dict[str, Any]]] = {setting: [] for setting in settings}
    for _ in range(ROUNDS):
        for source, rows in settings:
            work = ("--source", source, "--rows", str(rows), "--seconds", "4", "--json")
            found[source, rows] += _json("benchmarks.throughput", *work)
    small, stored, large = (
        max(round_["examples_per_second"] for round_ in found[setting]) for setting in settings
    )
    yield Figure("training: examples/s of 5 times the rows", large / small, "higher")
    yield Figure("training: examples/s from TFRecords", stored / small, "higher")
    for source in ("memory", "tfrecord"):
        peak = min(round_["peak_memory_bytes"] for round_ in found[source, ROWS])
        yield Figure(f"training: GiB from {source}", peak / GIB, "lower")


def pairs() -> Iterator[Figure]:
    """Memory of models that look at all pairs of fields, as benchmarks.memory does."""
    for model in ("ffm", "xdeepfm"):
        arguments = ("--measure", "--model", model, "--seconds", "1")
        (found,) = _json("benchmarks.memory", *arguments)
        yield Figure(f"memory: GiB of {model}", found["peak_memory_bytes"] / GIB, "lower")


def evaluation() -> Iterator[Figure]:
    """Memory of measuring by slice, beside many training events, as benchmarks.evaluation does."""
    arguments = ("--measure", "--examples", "200000", "--events", "16000000")
    (found,) = _json("benchmarks.evaluation", *arguments)
    yield Figure("evaluation: GiB by slice", found["peak_memory_bytes"] / GIB, "lower")


def steps() -> Iterator[Figure]:
    """The pipeline by the number of events, as benchmarks.pipeline does."""
    with tempfile.TemporaryDirectory() as place:
        few, many = (
            {step: figures for step, *figures in pipeline.measured(rows, Path(place))}
            for rows in (EVENTS, MORE_EVENTS)
        )
    for step in ("ingest", "transform"):
        seconds, memory = (many[step][index] / few[step][index] for index in (0, 1))
        yield Figure(f"pipeline: seconds of {step} for 4 times the events", seconds, "lower")
        yield Figure(f"pipeline: memory of {step} for 4 times the events", memory, "lower")


def model() -> Iterator[Figure]:
    """How good a seeded model of MovieLens is, and what serving it costs, by benchmarks.latency."""
    with tempfile.TemporaryDirectory() as place:
        data, run = f"{place}/data", f"{place}/run"
        _run("pipeline", "run", "--config", CONFIG, "--output", data, "--until", "transform")
        settings = ("--model", MODEL, "--set", "deterministic=true", "--output", run)
        _run("tfrec.train", "--data", f"{data}/transform", *settings)
        _run("tfrec.evaluate", "--run", run, "--split", "test", "--replicates", "0")
        of_test = json.loads(Path(run, "metrics.json").read_text())["test"][MODEL]["like"]
        (found,) = _json("benchmarks.latency", "--export", f"{run}/export")
    yield Figure(f"quality: test AUC of {MODEL} on MovieLens", of_test["auc"], "higher", 0.005)
    p50 = found["grpc_ms"] / found["bare_ms"]
    yield Figure("serving: p50 by gRPC over that of the bare call", p50, "lower", 0.25)
    rate = found["batched_per_second"] / found["alone_per_second"]
    yield Figure("serving: requests/s in batches over those alone", rate, "higher", 0.25)


GROUPS: tuple[Callable[[], Iterator[Figure]], ...] = (training, pairs, evaluation, steps, model)


def _json(module: str, *arguments: str) -> list[dict[str, Any]]:
    """What a benchmark prints, one JSON object a line."""
    return [json.loads(line) for line in _run(module, *arguments).splitlines()]


def _run(module: str, *arguments: str) -> str:
    """What a command prints.

    Raises:
        click.ClickException: it fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise click.ClickException(f"{' '.join(['python', *command[1:]])}: {last}")
    return done.stdout
