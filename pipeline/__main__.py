"""`python -m pipeline`: raw events to a data set directory."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import click

from tfrec.strict import UserError


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Any other option goes to Beam: --runner=…, --direct_num_workers=…, --project=…",
)
@click.option("--config", required=True, help="Declaration of the data set (YAML).")
@click.option("--output", required=True, type=Path, help="Data set directory to make.")
@click.option("--overwrite", is_flag=True, help="Replace a data set that is there already.")
@click.argument("beam_options", nargs=-1, type=click.UNPROCESSED)
def main(config: str, output: Path, overwrite: bool, beam_options: tuple[str, ...]) -> None:
    """Turn raw events into training examples.

    Reads the declared source, splits it, makes histories, learns vocabularies and normalisation
    from the training split and writes examples that `python -m tfrec.train` reads.
    """
    try:
        _run(config, output, overwrite, list(beam_options))
    except UserError as error:
        # Beam adds the name of the step to what a step raises.
        message = re.sub(r" \[while running .*\]$", "", str(error), flags=re.DOTALL)
        raise click.ClickException(message) from None


def _run(config: str, output: Path, overwrite: bool, beam_options: list[str]) -> None:
    from pipeline.declaration import read

    declaration = read(config)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # A step's failure is logged with its traceback and then raised: once is enough.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)

    from apache_beam.options.pipeline_options import PipelineOptions
    from rich.console import Console

    from pipeline.options import checked
    from pipeline.progress import Progress
    from pipeline.run import run
    from pipeline.writers import split_counts

    options = PipelineOptions(checked(beam_options))
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
