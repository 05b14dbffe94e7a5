"""Trains every model with its defaults, three seeds each, and writes the table of docs/results.md.

    python benchmarks/catalogue.py --data data/movielens

Figures are of the test split; settings are never chosen by it. A table stands between two marks
in docs/results.md, one pair per data set, and is replaced as a whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from tfrec.features import Features
from tfrec.models.registry import ENTRIES

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
METRICS = ("auc", "gauc", "log_loss")


@click.command()
@click.option("--data", required=True, help="Data set directory.")
@click.option("--model", "models", multiple=True, help="Only these; all that fit unless given.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each model.")
def main(data: str, models: tuple[str, ...], seeds: int) -> None:
    """Measure the catalogue on a data set."""
    features = Features.load(data)
    rows: list[dict[str, Any]] = []
    for entry in ENTRIES:
        if models and entry.id not in models:
            continue
        runs = [_measure(data, entry.id, seed) for seed in range(seeds)]
        rows.append({"model": entry.id, **_summary(runs)})
        click.echo(rows[-1])
    baselines = runs[-1]["test"]
    label = features.labels[0].name
    for name in [n for n in baselines if n not in (row["model"] for row in rows)]:
        rows.append({"model": name, **{m: (baselines[name][label][m], 0.0) for m in METRICS}})
    command = f"python benchmarks/catalogue.py --data {data}"
    command += "".join(f" --model {model}" for model in models)
    _write(features.name, command, rows)


def _measure(data: str, model: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        run = f"{place}/run"
        train = ["tfrec.train", "--data", data, "--model", model, "--seed", str(seed)]
        for command in ([*train, "--output", run, "--no-export"], ["tfrec.evaluate", "--run", run]):
            subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
        return json.loads((Path(run) / "metrics.json").read_text())


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
