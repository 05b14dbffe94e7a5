"""The command."""

from __future__ import annotations

from pathlib import Path

import click

from tfrec.cli import command, quiet_import
from tfrec.features import SPLITS
from tfrec.html import COLOURS
from tfrec.strict import UserError

FILE = "report.html"


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Path, metavar="RUN RUN …")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@click.option("--output", type=Path, help=f"File to write; {FILE} in the first run unless given.")
@command
def main(runs: tuple[Path, ...], split: str, output: Path | None) -> None:
    """Write all that is known of runs into one HTML file, which needs nothing from elsewhere.

    Figures are those of `tfrec.evaluate`, which is done first where it has not been. Several runs
    stand beside each other, compared with the first one.
    """
    if len(runs) > COLOURS:
        raise UserError(f"{len(runs)} runs are too many to be told apart; name {COLOURS} at most")
    with quiet_import():
        from tfrec.report.gather import gather
        from tfrec.report.sections import render
        from tfrec.runs import Run

    for run in runs:
        Run.load(run)  # before any of them takes its time
    facts = []
    for run in runs:
        click.echo(f"looking at {run}")
        facts.append(gather(run, split))
    path = output or runs[0] / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(render(runs, facts), encoding="utf-8")
    partial.replace(path)
    click.echo(f"the report is {path}")


if __name__ == "__main__":
    main()
