"""Two tasks of the Census-Income data: models of both against models of one.

    python -m benchmarks.census --file census-income.test.gz

Income above 50,000 and never married, as in Ma et al. 2018 (MMoE), by AUC on the test split: 60% of
the rows train, 20% validate. The table goes into docs/results.md. What is made stays in
runs/census: a command that was ended goes on.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import click
import numpy as np
import tf_keras as keras
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.tables import write
from pipeline.checks import read
from pipeline.run import run as make_data
from tfrec.evaluation import evaluator
from tfrec.runs import Run
from tfrec.train import train

PLACE = Path("runs/census")
NUMBERS = (0, 5, 16, 17, 18, 30, 39)
WEIGHT, MARRIED, INCOME = 24, 7, 41  # places of what is no field
TASKS = ("income", "never_married")
MODELS = ("dnn", "shared_bottom", "moe", "mmoe", "ple")


@click.command()
@click.option("--file", "source", required=True, type=Path, help="census-income.test.gz of UCI.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each model.")
def main(source: Path, seeds: int) -> None:
    """Measure models of several tasks, and a model of one for each task."""
    PLACE.mkdir(parents=True, exist_ok=True)
    _declare(source)
    options = PipelineOptions(["--runner=FnApiRunner"])
    make_data(read(str(PLACE / "census.yaml")), PLACE / "data", options)
    rows = []
    for model in MODELS:
        labels = [[task] for task in TASKS] if model == "dnn" else [list(TASKS)]
        found: dict[str, list[float]] = {task: [] for task in TASKS}
        parameters = 0
        for names in labels:
            for seed in range(seeds):
                aucs, size = _measure(model, names, seed)
                for task, auc in aucs.items():
                    found[task].append(auc)
            parameters += size
        cells = [f"{np.mean(found[t]):.4f} ± {np.std(found[t]):.4f}" for t in TASKS]
        name = f"`{model}`, one for each task" if model == "dnn" else f"`{model}`"
        rows.append([name, *cells, f"{parameters:,}"])
        click.echo(" | ".join(rows[-1]))
    command = f"python -m benchmarks.census --file {source.name}"
    write("census", command, ("model", "AUC income", "AUC never married", "parameters"), rows)


def _declare(source: Path) -> None:
    """Writes the rows as CSV, and the declaration of the data set."""
    fields = [i for i in range(42) if i not in (WEIGHT, MARRIED, INCOME)]
    features = {
        f"c{i}": {"kind": "number" if i in NUMBERS else "category", "role": "user"} for i in fields
    }
    with (PLACE / "census.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*features, *TASKS])
        with gzip.open(source, "rt") as lines:
            for line in lines:
                row = [value.strip() for value in line.strip().rstrip(".").split(",")]
                labels = [row[INCOME] == "50000+", row[MARRIED] == "Never married"]
                writer.writerow([*(row[i] for i in fields), *map(int, labels)])
    declaration = {
        "name": "census",
        "source": {"format": "csv", "path": str(PLACE / "census.csv")},
        "features": features,
        "labels": {task: {"column": task} for task in TASKS},
        "split": {"kind": "random", "fractions": [0.6, 0.2, 0.2]},
    }
    (PLACE / "census.yaml").write_text(yaml.safe_dump(declaration, sort_keys=False))


def _measure(model: str, labels: list[str], seed: int) -> tuple[dict[str, float], int]:
    """AUC by task on the test split, and the number of parameters."""
    place = PLACE / f"{model}-{'-'.join(labels)}-{seed}"
    values: dict[str, Any] = {
        "data": str(PLACE / "data" / "transform"),
        "model": {"id": model},
        "seed": seed,
    }
    metrics = train({**values, "labels": labels}, place, export=False)
    if "test" not in metrics:
        run = Run.load(place)
        measuring = evaluator(run.config, run.features, "test")
        run.add_metrics(test=measuring.evaluate(run.best_model()))
        metrics = run.metrics()
    keras.backend.clear_session()
    return {task: metrics["test"][task]["auc"] for task in labels}, metrics["parameters"]


if __name__ == "__main__":
    main()
