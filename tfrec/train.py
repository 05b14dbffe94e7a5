"""`python -m tfrec.train`: trains a model on a data set directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfrec.cli import command, quiet_import
from tfrec.config import PRECISIONS, STRATEGIES
from tfrec.overrides import from_assignments, merge
from tfrec.strict import UserError, read_yaml

if TYPE_CHECKING:
    import tensorflow as tf


@click.command()
@click.option("--config", help="Training configuration (YAML); flags go over it.")
@click.option(
    "--data", help="Data set directory: `transform` in the output of `python -m pipeline run`."
)
@click.option("--model", help="Id of the model; `python -m tfrec.models` lists them.")
@click.option("--output", required=True, type=Path, help="Run directory to make.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any value of the configuration, such as --set model.hidden=[256,128].",
)
@click.option("--seed", type=int, help="Of weights, dropout and order.")
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    type=click.Choice(STRATEGIES),
    help="Devices and machines; auto is mirrored where there are several GPUs.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="Of computation.")
@click.option("--deterministic", is_flag=True, help="Two runs of one seed are equal bit for bit.")
@click.option("--jit", is_flag=True, help="Compute losses and gradients by XLA.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there already.")
@click.option("--no-export", is_flag=True, help="Do not write a SavedModel at the end.")
@command
def main(
    config: str | None,
    data: str | None,
    model: str | None,
    output: Path,
    assignments: tuple[str, ...],
    seed: int | None,
    strategy: str,
    precision: str | None,
    deterministic: bool,
    jit: bool,
    overwrite: bool,
    no_export: bool,
) -> None:
    """Train a model, keep its best weights, measure it and export it for serving."""
    values: dict[str, Any] = read_yaml(config) if config else {}
    if not isinstance(values, dict):
        raise UserError(f"{config}: expected a mapping of keys")
    flags = {
        "data": data,
        "model": model,
        "seed": seed,
        "precision": precision,
        "deterministic": deterministic or None,
        "jit": jit or None,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    for block in (given, from_assignments(list(assignments))):
        values = merge(_with_id(values), _with_id(block))
    for key, flag in (("data", "--data"), ("model", "--model")):
        if key not in values:
            raise UserError(f"{key} is missing: give {flag}, or `{key}` in --config")
    if train(
        values,
        output,
        where=config or "the command line",
        strategy=strategy,
        overwrite=overwrite,
        export=not no_export,
    ):
        click.echo(f"metrics are in {output / 'metrics.json'}")


def _with_id(values: dict[str, Any]) -> dict[str, Any]:
    """A model that is named by its id alone, as a block."""
    if isinstance(values.get("model"), str):
        return {**values, "model": {"id": values["model"]}}
    return values


def train(
    values: dict[str, Any],
    output: Path,
    where: str = "configuration",
    *,
    strategy: str | tf.distribute.Strategy = "auto",
    overwrite: bool = False,
    export: bool = True,
    watch: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Trains, measures and exports one run.

    Args:
        values: configuration, as from YAML; what is missing comes from the model's defaults.
        output: run directory to make.
        where: what `values` are called in messages.
        strategy: devices and machines, see `tfrec.strategies`, or its name.
        overwrite: replaces a run that is there already.
        export: writes a SavedModel at the end.
        watch: is told the step and the score (higher is better) of every validation; what it
            raises ends the run.

    Returns:
        The run's metrics.

    Raises:
        UserError: for anything that the user can mend.
    """
    with quiet_import():
        import tensorflow as tf

        from tfrec import export as exports
        from tfrec.evaluation import evaluator
        from tfrec.figures import table
        from tfrec.runs import Run, first_step, resolve
        from tfrec.strategies import is_chief, make_strategy, serve
        from tfrec.training import Interrupted, Trainer
    from rich.console import Console

    if isinstance(strategy, str) and serve(strategy):
        return {}
    if isinstance(strategy, str):
        strategy = make_strategy(strategy)  # a cluster has to be joined before anything else
    devices = strategy
    config, features = resolve(values, where)
    chief = is_chief(devices)
    console = Console(quiet=not chief)
    run = Run(output, config, features)
    run.check(overwrite)
    if run.finished and not overwrite:
        console.print(f"{output} is finished", soft_wrap=True)
        return run.metrics()
    trainer = Trainer(run, console, devices, watch)
    if chief:  # the model could be built: from here on there is a run
        run.start(overwrite)
    console.print(trainer.describe(), highlight=False, soft_wrap=True)
    step = None if overwrite else trainer.resume()
    if step is not None:
        console.print(f"going on from step {step}", highlight=False)
    elif trainer.model.pretrained:
        first = first_step(config, trainer.model.pretrained)
        directory = output / trainer.model.pretrained
        text = f"first {trainer.model.pretrained}, in {directory}"
        console.print(text, highlight=False, soft_wrap=True)
        train(first, directory, where, strategy=devices, export=False)
        trainer.model.begin_from(Run.load(directory).best_model())
    try:
        best = trainer.fit()
    except Interrupted as interruption:
        console.print(str(interruption), highlight=False)
        sys.exit(128 + interruption.number)
    if not chief:
        return {}
    run.add_metrics(
        best=asdict(best) if best else None,
        best_score=trainer.score(best) if best else None,
        judged_by=trainer.judged_by(best) if best else None,
        history=[asdict(validation) for validation in trainer.history],
        seconds=round(trainer.position.elapsed_now(), 1),
        examples_per_second=round(trainer.examples_per_second),
        parameters=sum(int(tf.size(v)) for v in trainer.model.trainable_variables),
    )
    model = run.best_model()
    if best:
        compared = evaluator(config, run.features, "validation").compare(config.model.id, model)
        run.add_metrics(validation=compared)
        console.print(f"validation, best at epoch {best.epoch:.2f}", highlight=False)
        console.print(table(compared), highlight=False, soft_wrap=True)
    if export:
        version = exports.export(run, model)
        console.print(f"exported version {version.name}", highlight=False)
    run.add_metrics(finished=True)
    return run.metrics()


if __name__ == "__main__":
    main()
