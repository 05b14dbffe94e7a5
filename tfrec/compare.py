"""`python -m tfrec.compare`: runs beside each other, with intervals of their differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from tfrec.cli import command
from tfrec.features import SPLITS
from tfrec.figures import FOLDER, Report, aligned, with_interval
from tfrec.runs import CONFIG, best_weights
from tfrec.strict import UserError, read_yaml


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Path, metavar="RUN RUN …")
@click.option("--split", default="test", show_default=True, type=click.Choice(SPLITS))
@command
def main(runs: tuple[Path, ...], split: str) -> None:
    """Compare runs that `tfrec.evaluate` has measured, the others with the first one.

    Instead of a run, RUN may be a file that `tfrec.evaluate --output` wrote. A difference is
    starred when its 95% interval, of resampled users, does not hold 0.
    """
    if len(runs) < 2:
        raise UserError("there is nothing to compare: name two runs or more")
    reports = [_measured(run, split) for run in runs]
    called = names(runs)
    found = differences(called, reports)
    click.echo("\n".join([reports[0].about, *_lines(found)]))
    configured = {n: run for n, run in zip(called, runs, strict=True) if (run / CONFIG).is_file()}
    if len(configured) > 1:
        rows = configurations(configured)
        equal = ["", "the configurations are equal"]
        click.echo("\n".join(_lines([rows]) if rows else equal))


def _measured(run: Path, split: str) -> Report:
    """What was measured of a run's best weights, or is in a file."""
    if not run.is_dir():
        return Report.load(run)
    report = Report.load(run / FOLDER / f"{split}.json")
    if report.weights != best_weights(run):
        raise UserError(
            f"{run} has been trained since it was measured; "
            f"evaluate again: `python -m tfrec.evaluate --run {run} --split {split}`"
        )
    return report


def _lines(tables: list[list[list[str]]]) -> Iterator[str]:
    for rows in tables:
        yield from ["", *aligned(rows)]


def names(runs: Sequence[Path]) -> list[str]:
    """The shortest that tell the runs apart."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(runs) else [str(run) for run in runs]


def differences(names: Sequence[str], reports: Sequence[Report]) -> list[list[list[str]]]:
    """Figures of all and how they differ from the first one's, as rows of text.

    Args:
        names: of what was measured.
        reports: of it.

    Returns:
        A table for every task and slice of the first one, beside those that were measured of the
        same examples and labels there.

    Raises:
        UserError: one has no task of the first one, or was measured on others.
    """
    from tfrec.bootstrap import difference

    alike = [
        {task for task, digest in report.digests.items() if reports[0].digests.get(task) == digest}
        for report in reports
    ]
    for name, report, tasks in zip(names[1:], reports[1:], alike[1:], strict=True):
        if tasks:
            continue
        told, told_first = (", ".join(map(repr, r.digests)) for r in (report, reports[0]))
        if not report.digests.keys() & reports[0].digests.keys():
            raise UserError(
                f"{name} was measured of {told}, {names[0]} of {told_first}: they have no task in "
                "common"
            )
        raise UserError(
            f"{name} was measured on other examples, or of other labels, than {names[0]} "
            f"({report.about}; {reports[0].about}): their figures cannot be compared"
        )
    own: list[dict[Any, dict[str, Any]]] = [
        {
            (record["task"], record["slice"]): record
            for record in report.records
            if record["name"] == report.model and record["task"] in tasks
        }
        for report, tasks in zip(reports, alike, strict=True)
    ]
    tables = []
    for (task, part), first in own[0].items():
        others = {
            name: records[task, part]
            for name, records in zip(names[1:], own[1:], strict=True)
            if (task, part) in records
        }
        if not others:
            continue
        head = [f"{task}, {part}" if part else task, names[0]]
        rows = [[name, with_interval(value, None)] for name, value in first["metrics"].items()]
        for name, record in others.items():
            head += [name, f"less {names[0]}"]
            for row in rows:
                value = record["metrics"].get(row[0])
                found = difference(row[0], first, record)
                row += [with_interval(value, None), _shown_difference(found)]
        tables.append([head, *rows])
    return tables


def _shown_difference(found: tuple[float, list[float] | None] | None) -> str:
    if found is None:
        return "—"
    difference, interval = found
    starred = "*" if interval and not interval[0] <= 0 <= interval[1] else " "
    shown = with_interval(difference, interval)
    return f"{'' if shown.startswith('-') else '+'}{shown}{starred}"


def configurations(runs: Mapping[str, Path]) -> list[list[str]]:
    """What the configurations of runs, by name, differ in, as rows of text; none if in nothing."""
    flat = [dict(_flat(read_yaml(run / CONFIG))) for run in runs.values()]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = []
    for key in keys:
        shown = [_shown(values[key]) if key in values else "—" for values in flat]
        if len(set(shown)) > 1:
            rows.append([key, *shown])
    return [["configuration", *runs], *rows] if rows else []


def _flat(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    main()
