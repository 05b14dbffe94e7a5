"""Data sets of lines `user item item …`, as papers pass them around, to CSV."""

from __future__ import annotations

import csv
from pathlib import Path


def to_csv(lines: Path, events: Path) -> None:
    """Writes one row per event: user, item, and its number among the user's as the time.

    Args:
        lines: file of `user item item …`, items in the order in which the user took them.
        events: CSV file to write.
    """
    with lines.open(encoding="utf-8") as source, events.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["user", "item", "number"])
        for line in source:
            user, *items = line.split()
            writer.writerows((user, item, number) for number, item in enumerate(items, start=1))
