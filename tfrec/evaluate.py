"""`python -m tfrec.evaluate`: figures of a run or an export on a split, beside baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tfrec.cli import command, quiet_import
from tfrec.config import OF_CANDIDATES, TopKConfig
from tfrec.features import SPLITS
from tfrec.figures import FOLDER, REPLICATES, Report
from tfrec.overrides import from_assignments, known_to, merge
from tfrec.strict import UserError


@click.command()
@click.option("--run", "directory", type=Path, help="Run directory.")
@click.option("--export", type=Path, help="Instead of a run, a SavedModel to ask.")
@click.option("--data", type=Path, help="With --export, the data set to measure it on.")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@click.option(
    "--slice",
    "slices",
    multiple=True,
    metavar="FEATURE[=VALUE]",
    help="Parts to measure by themselves: the values of a feature, one value or LOW..HIGH; a "
    "history, by its length; user_events or item_count, by training events.",
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
@click.option(
    "--output",
    type=Path,
    help="File for all that is found, as JSON; of a run, evaluation/SPLIT.json in it unless given.",
)
@command
def main(
    directory: Path | None,
    export: Path | None,
    data: Path | None,
    split: str,
    slices: tuple[str, ...],
    replicates: int,
    assignments: tuple[str, ...],
    output: Path | None,
) -> None:
    """Measure a run's best weights, or an export, and print the figures beside baselines."""
    if (directory is None) == (export is None):
        raise UserError("name either a --run or an --export")
    if (export is None) != (data is None):
        raise UserError("--data belongs to --export: the data set to measure it on")
    if directory:
        report = _of_run(directory, split, slices, replicates, assignments)
        output = output or directory / FOLDER / f"{split}.json"
    else:
        assert export and data
        if assignments:
            raise UserError("--set belongs to --run")
        report = _of_export(export, data, split, slices, replicates)
    click.echo(report.text())
    for part in report.without_examples(slices):
        click.echo(f"slice {part}: no example of {split} is in it")
    if output:
        report.save(output)
        click.echo(f"all of it is in {output}")


def _of_run(
    directory: Path,
    split: str,
    slices: tuple[str, ...],
    replicates: int,
    assignments: tuple[str, ...],
) -> Report:
    """Measures a run, and adds the figures to its `metrics.json`."""
    with quiet_import():
        from tfrec.evaluation import evaluator
        from tfrec.models.registry import find
        from tfrec.runs import Run, best_weights

    run = Run.load(directory)
    if assignments and not find(run.config.model.id).scores_items:
        raise UserError(
            f"--set: top_k belongs to models that score all items, not to {run.config.model.id}"
        )
    config = run.config.model_copy(update={"top_k": _top_k(run.config.top_k, assignments)})
    measuring, weights = evaluator(config, run.features, split), best_weights(directory)
    report = measuring.report(config.model.id, run.best_model(), list(slices), replicates)
    run.add_metrics(**{split: merge(run.metrics().get(split, {}), report.figures())})
    return replace(report, weights=weights)


def _of_export(
    export: Path, data: Path, split: str, slices: tuple[str, ...], replicates: int
) -> Report:
    """Measures a SavedModel by what it answers."""
    with quiet_import():
        from tfrec.served import ServedEvaluator
        from tfrec.served_top_k import measured_export

    return measured_export("export", ServedEvaluator(export, data, split), slices, replicates)


def _top_k(config: TopKConfig, assignments: tuple[str, ...]) -> TopKConfig:
    """How models of all items are measured, with what the user wants otherwise.

    Other candidates take nothing from the run that they would not look at.
    """
    values: dict[str, Any] = from_assignments(list(assignments))
    if values.keys() - {"top_k"}:
        raise UserError("--set: only top_k can be another one than in training")
    wanted, base = values.get("top_k", {}), config.model_dump()
    if not isinstance(wanted, dict):
        raise UserError(f"--set top_k: expected a mapping of keys, not {wanted!r}")
    if "candidates" in wanted:
        base = known_to(wanted["candidates"], base, OF_CANDIDATES)
    return TopKConfig.parse(merge(base, wanted), "--set top_k")


if __name__ == "__main__":
    main()
