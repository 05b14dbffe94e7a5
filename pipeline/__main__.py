"""`python -m pipeline`: raw events to a data set directory."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tfrec.cli import command, quiet_import
from tfrec.strict import UserError


@click.group()
def main() -> None:
    """From raw events to training examples: init, check, run."""


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
    target.write_text(draft(data), encoding="utf-8")
    click.echo(f"{target}: read it and correct it; then python -m pipeline check --config {target}")


@main.command()
@click.option("--config", required=True, help="Declaration of the data set (YAML).")
@click.option("--rows", type=click.IntRange(1), default=100_000, show_default=True, help="Most.")
@command
def check(config: str, rows: int) -> None:
    """Say what is wrong with a declaration.

    Or with its data: the first rows of every file are read as a run reads them.
    """
    from pipeline.checks import read

    declaration = read(config)
    with quiet_import():
        from pipeline.scan import scan
    found = scan(declaration, rows)
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
@click.option("--output", required=True, type=Path, help="Data set directory to make.")
@click.option("--overwrite", is_flag=True, help="Replace a data set that is there already.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
@command
def run(config: str, output: Path, overwrite: bool, beam_options: tuple[str, ...]) -> None:
    """Turn raw events into training examples.

    Reads the declared source, splits it, makes histories, learns vocabularies and normalisation
    from the training split and writes examples that `python -m tfrec.train` reads.
    """
    from pipeline.checks import read

    declaration = read(config)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # A step's failure is logged with its traceback and then raised: once is enough.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)

    with quiet_import():
        from apache_beam.options.pipeline_options import PipelineOptions
        from rich.console import Console

        from pipeline.options import checked
        from pipeline.progress import Progress
        from pipeline.run import run as make
        from pipeline.writers import split_counts

    options = PipelineOptions(checked(list(beam_options)))
    console = Console(stderr=True)
    with Progress(console) as progress:
        report = make(declaration, output, options, overwrite=overwrite)
    for reason, (count, example) in report.rejected.items():
        shown = f", such as {example!r}" if example else ""
        click.echo(f"rejected {count:,} rows: {reason}{shown}")
    rate = report.rows_read / progress.seconds
    click.echo(
        f"{output}: {report.rows_read:,} rows in {progress.seconds:.1f} s ({rate:,.0f} rows/s); "
        f"{split_counts(report.examples)}"
    )


if __name__ == "__main__":
    sys.exit(main())
