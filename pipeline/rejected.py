"""Rows that cannot be used: how many, why, and whether these are too many."""

from __future__ import annotations

from typing import Any, TypeAlias

import apache_beam as beam

from pipeline.events import MALFORMED

Rejected: TypeAlias = dict[str, tuple[int, str]]  # by reason: rows, and an example


class ByReason(beam.PTransform):
    """The one dict of rejected rows that `ParseEvents` has tagged."""

    def expand(self, rejected: beam.PCollection) -> beam.PCollection[Rejected]:
        summed = rejected | "rejected by reason" >> beam.CombinePerKey(_sum)
        return summed | "reasons" >> beam.combiners.ToDict()


def _sum(values: Any) -> tuple[int, str]:
    counts, examples = zip(*values, strict=True)
    return sum(counts), min(examples)


def rows_read(batches: int, rejected: Rejected) -> int:
    """Rows that were read: those of batches, and those that are in none."""
    return batches + sum(n for reason, (n, _) in rejected.items() if reason.endswith(MALFORMED))


def too_many(rejected: Rejected, read: int, most: float, what: str = "rows") -> str | None:
    """What is said of more rejected rows than allowed; None where there are not.

    Args:
        rejected: by reason.
        read: rows in all.
        most: largest share that is allowed.
        what: the rows are.
    """
    count = sum(count for count, _ in rejected.values())
    if count <= most * read:
        return None
    reason, (rows, example) = max(rejected.items(), key=lambda item: item[1][0])
    return (
        f"{count:,} of {read:,} {what} rejected ({count / read:.2%}, max_rejected is {most:.2%}); "
        f"most: {reason}{_such_as(example)} ({rows:,} {what})"
    )


def lines(rejected: Rejected, what: str = "rows") -> list[str]:
    """A line for every reason."""
    return [
        f"rejected {count:,} {what}: {reason}{_such_as(example)}"
        for reason, (count, example) in rejected.items()
    ]


def _such_as(example: str) -> str:
    return f", such as {example!r}" if example else ""
