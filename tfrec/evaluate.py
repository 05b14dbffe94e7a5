"""`python -m tfrec.evaluate`: metrics of a run on a split, beside the baselines."""

from __future__ import annotations

from pathlib import Path

import click

from tfrec.cli import command, quiet_import
from tfrec.features import SPLITS


@click.command()
@click.option("--run", "directory", required=True, type=Path, help="Run directory.")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@command
def main(directory: Path, split: str) -> None:
    """Measure a run's best weights on a split, and print the figures beside two baselines."""
    with quiet_import():
        from tfrec.evaluation import Evaluator, baselines, measure, table
        from tfrec.runs import METRICS, Run

    run = Run.load(directory)
    data = run.config.data
    evaluator = Evaluator(data, run.features, split)
    predicted, truth = evaluator.predict(run.best_model())
    tasks = {
        label.name: measure(run.features, label.name, predicted[label.name], truth)
        for label in run.features.labels
    }
    compared = {run.config.model.id: tasks, **baselines(data, run.features, truth)}
    run.add_metrics(**{split: compared})
    click.echo(f"{split}, {len(truth.weights):,} examples\n{table(compared)}")
    click.echo(f"added to {directory / METRICS}")


if __name__ == "__main__":
    main()
