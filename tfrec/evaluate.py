"""`python -m tfrec.evaluate`: metrics of a run on a split, beside baselines."""

from __future__ import annotations

from pathlib import Path

import click

from tfrec.cli import command, quiet_import
from tfrec.config import TopKConfig
from tfrec.features import SPLITS
from tfrec.overrides import from_assignments, merge
from tfrec.strict import UserError


@click.command()
@click.option("--run", "directory", required=True, type=Path, help="Run directory.")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="How models of all items are measured, such as --set top_k.candidates=uniform.",
)
@command
def main(directory: Path, split: str, assignments: tuple[str, ...]) -> None:
    """Measure a run's best weights on a split, and print the figures beside baselines."""
    with quiet_import():
        from tfrec.evaluation import evaluator, table
        from tfrec.runs import METRICS, Run

    run = Run.load(directory)
    values = from_assignments(list(assignments))
    if values.keys() - {"top_k"}:
        raise UserError("--set: only top_k can be another one than in training")
    top_k = merge(run.config.top_k.model_dump(), values.get("top_k", {}))
    config = run.config.model_copy(update={"top_k": TopKConfig.parse(top_k, "--set top_k")})
    measuring = evaluator(config, run.features, split)
    compared = measuring.compare(config.model.id, run.best_model())
    run.add_metrics(**{split: merge(run.metrics().get(split, {}), compared)})
    click.echo(f"{measuring.about()}\n{table(compared)}")
    click.echo(f"added to {directory / METRICS}")


if __name__ == "__main__":
    main()
