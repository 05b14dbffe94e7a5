"""`python -m benchmarks`: measures again, and compares with benchmarks/baselines.json."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from benchmarks import measures

BASELINES = Path(__file__).parent / "baselines.json"


@click.command()
@click.option("--record", is_flag=True, help="Make what is measured the baselines.")
def main(record: bool) -> None:
    """Measure, and fail where something is worse than its baseline by more than its tolerance.

    A figure without a baseline is a failure, and so is a baseline that nothing measures.
    """
    from benchmarks.measures import GROUPS

    found = [figure for group in GROUPS for figure in _told(group())]
    baselines = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    if record:
        kept = {
            figure.name: {
                "value": round(figure.value, 3),
                "tolerance": baselines.get(figure.name, {}).get("tolerance", figure.tolerance),
            }
            for figure in found
        }
        BASELINES.write_text(json.dumps(kept, indent=1) + "\n")
        click.echo(f"recorded in {BASELINES}")
        return
    wrong = [why for figure in found if (why := judged(figure, baselines))]
    wrong += [
        f"{name}: nothing measures it; take it out of {BASELINES.name}"
        for name in baselines.keys() - {figure.name for figure in found}
    ]
    if wrong:
        raise click.ClickException("\n".join(wrong))
    click.echo(f"{len(found)} figures are as good as their baselines")


def _told(figures: Iterable[measures.Figure]) -> Iterable[measures.Figure]:
    for figure in figures:
        click.echo(f"{figure.value:9.3f}  {figure.name}")
        yield figure


def judged(figure: measures.Figure, baselines: dict[str, dict[str, float]]) -> str | None:
    """What is wrong with a figure, if something is.

    Args:
        figure: as measured.
        baselines: `value`, and `tolerance` as a share of it, by name.
    """
    if figure.name not in baselines:
        return f"{figure.name}: has no baseline; add one by --record"
    value, tolerance = (baselines[figure.name][key] for key in ("value", "tolerance"))
    worse = figure.value - value if figure.better == "lower" else value - figure.value
    if worse <= tolerance * value:
        return None
    share = worse / value
    return (
        f"{figure.name}: {figure.value:.3f} is worse than {value:.3f} by {share:.0%}; "
        f"{tolerance:.0%} is tolerated"
    )


if __name__ == "__main__":
    main()
