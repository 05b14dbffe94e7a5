"""`python -m pipeline`: raw events to a data set directory."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tfrec.cli import command, quiet_import
from tfrec.strict import UserError

STEP = click.Choice(
    ["ingest", "statistics", "schema", "validation", "transform", "train", "evaluate", "bless",
     "push"]
)  # fmt: skip


@click.group()
def main() -> None:
    """From raw events to training examples, and to a served model."""


@main.command()
@click.option("--data", required=True, help="File or glob of CSV, Parquet or TFRecords.")
@click.option("--output", type=Path, help="Declaration to write; NAME.yaml unless given.")
@click.option("--overwrite", is_flag=True, help="Replace a declaration that is there already.")
@command
def init(data: str, output: Path | None, overwrite: bool) -> None:
    """Write a first declaration, by looking at the data."""
    with quiet_import():
        from pipeline.init import draft
    target = output or Path(f"{Path(data).name.split('.')[0].strip('*?-_') or 'data'}.yaml")
    if target.exists() and not overwrite:
        raise UserError(f"{target} is there already: name another --output, or add --overwrite")
    target.write_text(draft(data, target.stem), encoding="utf-8")
    click.echo(f"{target}: read it and correct it; then python -m pipeline check --config {target}")


@main.command()
@click.argument("name")
@click.option("--to", default="downloads", show_default=True, type=Path, help="Folder.")
@command
def download(name: str, to: Path) -> None:
    """Fetch a public data set that a declaration in configs/ reads."""
    with quiet_import():
        from pipeline.downloads import prepare
    click.echo(prepare(name, to))


@main.command()
@click.option("--config", required=True, help="Declaration of the data set (YAML).")
@click.option("--rows", type=click.IntRange(1), default=100_000, show_default=True, help="Most.")
@command
def check(config: str, rows: int) -> None:
    """Say what is wrong with a declaration.

    With its blocks and the files that they name, or with its data: the first rows of every file are
    read as a run reads them.
    """
    from pipeline.checks import read

    declaration = read(config)
    with quiet_import():
        from pipeline.run import problems
        from pipeline.scan import scan
    found = scan(declaration, rows, problems(declaration, declaration.output))
    for finding in found.findings:
        click.echo(str(finding))
    click.echo(f"{config}: {found.summary}")
    if found.failed:
        raise SystemExit(1)


@main.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Any other option goes to Beam: --runner=…, --direct_num_workers=…, --project=…",
)
@click.option("--config", required=True, help="Declaration of the data set (YAML).")
@click.option("--output", type=Path, help="Directory of the steps' outputs; data/NAME.")
@click.option("--until", type=STEP, help="Last step; the last that the declaration speaks of.")
@click.option("--only", type=STEP, help="The one step to run, on what others have made.")
@click.option("--force", is_flag=True, help="Make anew what has not changed, too.")
@click.option("--on-anomaly", type=click.Choice(["fail", "warn"]), help="As `validation` says.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
@command
def run(
    config: str,
    output: Path | None,
    until: str | None,
    only: str | None,
    force: bool,
    on_anomaly: str | None,
    beam_options: tuple[str, ...],
) -> None:
    """Turn raw events into training examples, and these into a served model.

    Runs the steps ingest, statistics, schema, validation and transform, whose output
    `python -m tfrec.train` reads; and train, evaluate, bless and push where the declaration has
    these blocks. What has not changed since the last run is kept.
    """
    from pipeline.checks import read

    declaration = read(config)
    if on_anomaly:
        validation = declaration.validation.model_copy(update={"on_anomaly": on_anomaly})
        declaration = declaration.model_copy(update={"validation": validation})
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # A step's failure is logged with its traceback and then raised: once is enough.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)

    with quiet_import():
        from apache_beam.options.pipeline_options import PipelineOptions

        from pipeline.options import checked
        from pipeline.run import last_step
        from pipeline.run import run as make

    make(
        declaration,
        output or declaration.output,
        PipelineOptions(checked(list(beam_options))),
        until=until or last_step(declaration),
        only=only,
        force=force,
        tell=_tell,
    )


def _tell(name: str, state: str, seconds: float, lines: list[str]) -> None:
    click.echo(f"{name:<11} {state:<5} {seconds:7.1f} s  {lines[0]}")
    for line in lines[1:]:
        click.echo(f"{'':<28}{line}")


@main.command()
@click.option("--output", type=Path, help="Output directory of `run`; the newest in data/.")
@command
def show(output: Path | None) -> None:
    """Print the record of runs: every step, when (UTC) and of what it was made."""
    from pipeline.declaration import OUTPUTS
    from pipeline.workspace import Workspace, newest

    if output is None:
        output, *others = newest(OUTPUTS)
        more = f", the newest; there are also {', '.join(map(str, others))}" if others else ""
        click.echo(f"{output}{more}", err=True)
    for line in Workspace(output).record():
        kept = line["state"] == "kept"  # then `started` and `seconds` are of an earlier run
        when = line.get("noted", line["started"]) if kept else line["started"]
        begin = f"{when[:19].replace('T', ' ')}  {line['step']:<11} {line['state']:<6}"
        inputs = ", ".join(f"{name} {digest[:8]}" for name, digest in line["inputs"].items())
        result = line.get("error") or f"{line['output'][:8]} from {inputs}"
        click.echo(f"{begin} {0 if kept else line['seconds']:8.1f} s  {result}")


if __name__ == "__main__":
    sys.exit(main())
