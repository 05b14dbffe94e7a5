"""`python -m pipeline`: raw events to a data set directory."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from tfrec.cli import command, quiet_import


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Any other option goes to Beam: --runner=…, --direct_num_workers=…, --project=…",
)
@click.option("--config", required=True, help="Declaration of the data set (YAML).")
@click.option("--output", required=True, type=Path, help="Data set directory to make.")
@click.option("--overwrite", is_flag=True, help="Replace a data set that is there already.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
@command
def main(config: str, output: Path, overwrite: bool, beam_options: tuple[str, ...]) -> None:
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
        from pipeline.run import run
        from pipeline.writers import split_counts

    options = PipelineOptions(checked(list(beam_options)))
    console = Console(stderr=True)
    with Progress(console) as progress:
        report = run(declaration, output, options, overwrite=overwrite)
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
