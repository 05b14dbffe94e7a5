"""Trains every model with its defaults, three seeds each, and writes the table of docs/results.md.

    python -m benchmarks.catalogue --data data/movielens/transform

Figures are of the test split; settings are never chosen by it. Each data set has a table of its
own. The runs stay in runs/catalogue: a command that was ended goes on.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import tf_keras as keras

from benchmarks.tables import write
from tfrec import evaluate
from tfrec.features import Features
from tfrec.models.registry import ENTRIES
from tfrec.overrides import from_assignments, merge
from tfrec.train import train

RUNS = Path("runs/catalogue")
METRICS = ("auc", "gauc", "log_loss")
HEADER = ("model", "AUC", "GAUC", "log loss", "parameters", "examples/s", "seconds")
# All models of one task by their defaults; crosses are of the linear models alone, so lr without
# them too.
ROWS = (
    *(entry.id for entry in ENTRIES if entry.family in ("ranking", "history")),
    "lr model.crosses=false",
)


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
    rows: list[list[str]] = []
    for model in models or ROWS:
        runs = [_measure(data, features.name, model, seed) for seed in range(seeds)]
        rows.append([f"`{model}`", *_summary(runs)])
        click.echo(" | ".join(rows[-1]))
    label = features.labels[0].name
    for name in ("global mean", "item mean"):
        found = runs[-1]["test"][name][label]
        rows.append([name, *(f"{found[metric]:.4f}" for metric in METRICS), "", "", ""])
    command = f"python -m benchmarks.catalogue --data {data}"
    command += "".join(f" --model {shlex.quote(model)}" for model in models)
    write(f"catalogue {features.name}", command, HEADER, rows)


def _measure(data: str, name: str, model: str, seed: int) -> dict[str, Any]:
    run = RUNS / name / f"{model.replace(' ', '-')}-{seed}"
    id_, *settings = model.split()
    named = {"data": data, "model": {"id": id_}, "seed": seed}
    metrics = train(merge(named, from_assignments(settings)), run, export=False)
    if "test" not in metrics:
        evaluate.main(["--run", str(run)], standalone_mode=False)
        metrics = json.loads((run / "metrics.json").read_text())
    keras.backend.clear_session()
    return metrics


def _summary(runs: list[dict[str, Any]]) -> list[str]:
    """Cells: metrics as mean ± standard deviation, parameters, and means of rates and times."""
    tests = [next(iter(next(iter(run["test"].values())).values())) for run in runs]
    of_metrics = [[test[metric] for test in tests] for metric in METRICS]
    cells = [f"{np.mean(values):.4f} ± {np.std(values):.4f}" for values in of_metrics]
    means = [np.mean([run[name] for run in runs]) for name in ("examples_per_second", "seconds")]
    return [*cells, f"{runs[0]['parameters']:,}", *(f"{mean:,.0f}" for mean in means)]


if __name__ == "__main__":
    main()
