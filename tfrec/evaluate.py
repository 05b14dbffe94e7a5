"""`python -m tfrec.evaluate`: figures of a run on a split, beside baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tfrec.cli import command, quiet_import
from tfrec.config import TopKConfig
from tfrec.features import SPLITS
from tfrec.overrides import from_assignments, merge
from tfrec.report import FOLDER, REPLICATES
from tfrec.strict import UserError


@click.command()
@click.option("--run", "directory", required=True, type=Path, help="Run directory.")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@click.option(
    "--slice",
    "slices",
    multiple=True,
    metavar="FEATURE[=VALUE]",
    help="Parts to measure by themselves: the values of a feature, one value or LOW..HIGH; "
    "user_events or item_count, by training events.",
)
@click.option(
    "--replicates",
    default=REPLICATES,
    show_default=True,
    type=click.IntRange(0),
    help="Resamplings of the users for the intervals; 0 for none.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="How models of all items are measured, such as --set top_k.candidates=uniform.",
)
@command
def main(
    directory: Path,
    split: str,
    slices: tuple[str, ...],
    replicates: int,
    assignments: tuple[str, ...],
) -> None:
    """Measure a run's best weights on a split, and print the figures beside baselines."""
    with quiet_import():
        from tfrec.evaluation import evaluator
        from tfrec.runs import METRICS, Run

    run = Run.load(directory)
    config = run.config.model_copy(update={"top_k": _top_k(run.config.top_k, assignments)})
    measuring = evaluator(config, run.features, split)
    report = measuring.report(config.model.id, run.best_model(), list(slices), replicates)
    report.save(directory / FOLDER / f"{split}.json")
    run.add_metrics(**{split: merge(run.metrics().get(split, {}), report.figures())})
    click.echo(report.text())
    click.echo(f"added to {directory / METRICS}; all of it is in {directory / FOLDER}")


def _top_k(config: TopKConfig, assignments: tuple[str, ...]) -> TopKConfig:
    """How models of all items are measured, with what the user wants otherwise."""
    values: dict[str, Any] = from_assignments(list(assignments))
    if values.keys() - {"top_k"}:
        raise UserError("--set: only top_k can be another one than in training")
    return TopKConfig.parse(merge(config.model_dump(), values.get("top_k", {})), "--set top_k")


if __name__ == "__main__":
    main()
