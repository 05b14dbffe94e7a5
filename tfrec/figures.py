"""What an evaluation found: kept as JSON, shown as tables. No TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from tfrec.strict import UserError
from tfrec.validation import Metrics

FORMAT = 2
REPLICATES = 200  # resamplings unless others are asked for
FOLDER = "evaluation"  # of a run directory

MOST_COLUMNS = 12
BINS_OF_LINE = 10  # of a reliability curve
_REALLY = " → "  # in the name of a part, between what was asked for and what it holds


@dataclass(frozen=True)
class Report:
    """Figures of a model and of baselines.

    Attributes:
        model: name of it.
        split: that was measured on.
        about: what has been measured, for people.
        digests: of it, by task; figures of a task in two reports with the same one can be compared
            user by user.
        replicates: resamplings.
        records: by `name`, `task` and `slice` (None for the whole): `examples` and `users`, the
            `metrics`, their 95% `intervals`, `replicates` of these, the reliability `curve`.
        slices: that were asked for.
        weights: of a run that were measured, as `tfrec.runs.best_weights` tells; None for others.
    """

    model: str
    split: str
    about: str
    digests: dict[str, str]
    replicates: int
    records: list[dict[str, Any]]
    slices: list[str] = field(default_factory=list)
    weights: str | None = None

    def figures(self) -> dict[str, Metrics]:
        """Metrics of the whole, by name and task."""
        found: dict[str, Metrics] = {}
        for record in self.records:
            if record["slice"] is None:
                found.setdefault(record["name"], {})[record["task"]] = record["metrics"]
        return found

    def without_examples(self, wanted: Iterable[str]) -> list[str]:
        """Parts that were asked for and have no record, since no example is in them.

        Args:
            wanted: slices; of a feature alone, any part will do.
        """
        found = {record["slice"] for record in self.records} - {None}
        named = (part for part in dict.fromkeys(wanted) if "=" in part)
        return [part for part in named if not any(is_part(part, name) for name in found)]

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all.

        What is there of other tasks, as top-k by another protocol, stays if it is of the same
        weights and examples.
        """
        whole, before = self, Report.kept(path)
        if before and before._alike == self._alike:
            whole = replace(
                self,
                digests={**before.digests, **self.digests},
                records=[r for r in before.records if r["task"] not in self.digests] + self.records,
                slices=list(dict.fromkeys([*before.slices, *self.slices])),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        values = {"format": FORMAT, **asdict(whole)}
        text = json.dumps(values, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads what `save` wrote.

        Raises:
            UserError: it is not there, or cannot be read.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            return cls(**values)
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}; make it with `python -m tfrec.evaluate`"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}); evaluate again") from None

    @classmethod
    def kept(cls, path: Path) -> Report | None:
        """What `save` wrote; None where there is nothing that can be read."""
        try:
            return cls.load(path)
        except UserError:
            return None

    @property
    def _alike(self) -> tuple[Any, ...]:
        """What reports that are kept together have in common."""
        return self.weights, self.replicates, set(self.digests.values())

    def text(self) -> str:
        """All of it as tables; of the curves, those of the whole."""
        parts = [self.about, table(self.figures())]
        own = [record for record in self.records if record["name"] == self.model]
        if self.replicates:
            of = "examples" if own[0]["users"] is None else "users"
            parts += [f"\n{self.model}, ± 95% over {of}", *_by_task(own, whole=True)]
        curves = [record for record in own if record["slice"] is None and record["curve"]]
        if curves:
            parts += [f"\n{self.model}, reliability in bins of rising scores", *_curves(curves)]
        if any(record["slice"] for record in own):
            parts += [f"\n{self.model} by slice", *_by_task(own, whole=False)]
        return "\n".join(parts)


def asked_for(value: str, really: str) -> str:
    """The name of a part that is not quite what was asked for."""
    return value if value == really else f"{value}{_REALLY}{really}"


def is_part(asked: str, name: str) -> bool:
    """Whether a part is what was asked for, whatever more its name tells."""
    return name.split(_REALLY)[0] == asked or name == asked


def _by_task(records: list[dict[str, Any]], whole: bool) -> list[str]:
    lines = []
    for task in dict.fromkeys(record["task"] for record in records):
        mine = [r for r in records if r["task"] == task and (r["slice"] is None or not whole)]
        metrics = list(mine[0]["metrics"])
        head = [task, "examples", "users", *metrics]
        rows = [
            [
                record["slice"] or "all",
                f"{record['examples']:,}",
                "—" if record["users"] is None else f"{record['users']:,}",
                *(with_interval(record["metrics"][m], record["intervals"].get(m)) for m in metrics),
            ]
            for record in mine
        ]
        lines += _fitting([head, *rows])
    return lines


def _curves(records: list[dict[str, Any]]) -> Iterator[str]:
    for record in records:
        bins = record["curve"]
        whole = sum(found["weight"] for found in bins)
        for first in range(0, len(bins), BINS_OF_LINE):
            some = bins[first : first + BINS_OF_LINE]
            numbers = map(str, range(first + 1, first + 1 + len(some)))
            shares = (f"{found['weight'] / whole:.4f}" for found in some)
            means = ([key, *(f"{b[key]:.4f}" for b in some)] for key in ("predicted", "observed"))
            yield from aligned([[record["task"], *numbers], ["weight", *shares], *means])


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A figure, and half of its interval."""
    if value is None:
        return "—"
    return f"{value:.4f}" + (f" ±{(interval[1] - interval[0]) / 2:.4f}" if interval else "")


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    # Of a screen, whose cells some characters take two of.
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        spaces = [" " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=True)]
        first, *others = zip(row, spaces, strict=True)
        lines.append("  ".join(["".join(first), *(space + cell for cell, space in others)]))
    return lines


def table(rows: dict[str, Metrics]) -> str:
    """Metrics as aligned text: rows by name, then task, then metric."""
    lines = []
    for task, metrics in next(iter(rows.values())).items():
        cells = [
            [name, *(with_interval(by_task[task].get(metric), None) for metric in metrics)]
            for name, by_task in rows.items()
        ]
        lines += _fitting([[task, *metrics], *cells])
    return "\n".join(lines)


def _fitting(rows: list[list[str]]) -> list[str]:
    """Lines of a table, which is turned where it has more columns than a screen."""
    turned = len(rows[0]) > MOST_COLUMNS
    return aligned(list(map(list, zip(*rows, strict=True))) if turned else rows)
