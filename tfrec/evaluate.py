"""`python -m tfrec.evaluate`: metrics of a run on a split, beside baselines."""

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
    """Measure a run's best weights on a split, and print the figures beside baselines."""
    with quiet_import():
        from tfrec.evaluation import evaluator, table
        from tfrec.runs import METRICS, Run

    run = Run.load(directory)
    measuring = evaluator(run.config, run.features, split)
    compared = measuring.compare(run.config.model.id, run.best_model())
    run.add_metrics(**{split: compared})
    click.echo(f"{measuring.about()}\n{table(compared)}")
    click.echo(f"added to {directory / METRICS}")


if __name__ == "__main__":
    main()
