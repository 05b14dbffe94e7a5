"""Trains every model with its defaults, three seeds each, and writes the table of docs/results.md.

    python benchmarks/catalogue.py --data data/movielens

Figures are of the test split; settings are never chosen by it. A table stands between two marks
in docs/results.md, one pair per data set, and is replaced as a whole. The runs stay in
runs/catalogue: a command that was ended goes on.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from tfrec.features import Features
from tfrec.models.registry import ENTRIES

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
RUNS = Path("runs/catalogue")
METRICS = ("auc", "gauc", "log_loss")
# All models of one task by their defaults; crosses are of the linear models alone, so lr without
# them too.
ROWS = (*(entry.id for entry in ENTRIES if "labels" not in entry.needs), "lr model.crosses=false")


@click.command()
@click.option("--data", required=True, help="Data set directory.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="ID [KEY=VALUE …]",
    help="Only this one, with these settings; all unless given.",
)
@click.option("--seeds", default=3, show_default=True, help="Runs of each model.")
def main(data: str, models: tuple[str, ...], seeds: int) -> None:
    """Measure the catalogue on a data set."""
    features = Features.load(data)
    rows: list[dict[str, Any]] = []
    for model in models or ROWS:
        runs = [_measure(data, features.name, model, seed) for seed in range(seeds)]
        rows.append({"model": model, **_summary(runs)})
        click.echo(rows[-1])
    baselines = runs[-1]["test"]
    label = features.labels[0].name
    for name in [n for n in baselines if n not in ROWS]:
        rows.append({"model": name, **{m: (baselines[name][label][m], 0.0) for m in METRICS}})
    command = f"python benchmarks/catalogue.py --data {data}"
    command += "".join(f" --model {shlex.quote(model)}" for model in models)
    _write(features.name, command, rows)


def _measure(data: str, name: str, model: str, seed: int) -> dict[str, Any]:
    run = RUNS / name / f"{model.replace(' ', '-')}-{seed}"
    id_, *settings = model.split()
    train = ["tfrec.train", "--data", data, "--model", id_, "--seed", str(seed)]
    train += ["--output", str(run), "--no-export"]
    train += [part for setting in settings for part in ("--set", setting)]
    for command in (train, ["tfrec.evaluate", "--run", str(run)]):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"{model}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads((run / "metrics.json").read_text())


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    tests = [next(iter(next(iter(run["test"].values())).values())) for run in runs]
    result: dict[str, Any] = {
        name: (float(np.mean([t[name] for t in tests])), float(np.std([t[name] for t in tests])))
        for name in METRICS
        if all(t.get(name) is not None for t in tests)
    }
    for name in ("parameters", "examples_per_second", "seconds"):
        result[name] = float(np.mean([run[name] for run in runs]))
    return result


def _write(name: str, command: str, rows: list[dict[str, Any]]) -> None:
    lines = ["| model | AUC | GAUC | log loss | parameters | examples/s | seconds |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [f"`{row['model']}`" if "parameters" in row else row["model"]]
        for metric in METRICS:
            mean, spread = row[metric]
            cells.append(f"{mean:.4f} ± {spread:.4f}" if "parameters" in row else f"{mean:.4f}")
        for figure in ("parameters", "examples_per_second", "seconds"):
            cells.append(f"{row[figure]:,.0f}" if figure in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    table = f"```\n{command}\n```\n\n" + "\n".join(lines)
    begin, end = f"<!-- catalogue {name} -->", f"<!-- end catalogue {name} -->"
    text = RESULTS.read_text()
    if begin not in text:
        raise click.ClickException(f"{RESULTS} has no place for {name}: add the line {begin}")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    RESULTS.write_text(f"{before}{begin}\n{table}\n{end}{after}")


if __name__ == "__main__":
    main()
