from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import shop
from tfrec.features import SPLITS, Features

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def movielens_run(request: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """Started at once where a test wants it, so that it runs beside the others."""
    if not any("movielens" in item.fixturenames for item in request.session.items):
        yield None
        return
    output = tmp_path_factory.mktemp("movielens") / "out"
    config = ROOT / "configs" / "movielens.yaml"
    with shop.Command("--config", config, "--output", output, "--until", "transform") as command:
        yield command, output / "transform"


@pytest.fixture(scope="session")
def movielens(movielens_run: Any) -> tuple[Path, str]:
    """The data set of the MovieLens declaration, and what the command said."""
    command, output = movielens_run
    status, said, complained = command.result()
    assert (status, complained) == (0, "")
    return output, said


@dataclass
class DataSet:
    """A prepared data set, read back."""

    directory: Path
    report: dict[str, Any]
    rows: list[shop.Row]

    def __post_init__(self) -> None:
        self.features = Features.load(self.directory)
        self.splits = {split: shop.stored(self.directory, split) for split in SPLITS}
        details = {(row["user"], row["item"]): row for row in self.rows}
        self.events = {s: {key: details[key] for key in self.splits[s]} for s in SPLITS}

    def vocabulary(self, table: str) -> list[tuple[int, int, str]]:
        return shop.vocabulary(self.directory, table)

    def ids(self, table: str) -> dict[str, int]:
        """Ids of the known values."""
        known = self.features.table(table).vocabulary
        return {value: index for index, _, value in self.vocabulary(table)[1 : known + 1]}


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: Any) -> DataSet:
    """The shop from CSV, with some rows that have to be rejected."""
    folder = tmp_path_factory.mktemp("shop")
    rows = shop.events()
    shop.write_csv(rows, folder / "events.csv")
    with (folder / "events.csv").open("a") as file:
        file.write("u00,too,few\n")
        file.write(shop.csv_text([{**rows[0], "price": "dear"}]).splitlines()[1] + "\n")
    source = {"format": "csv", "path": str(folder / "events.csv")}
    declaration = shop.declare(source=source, max_rejected=0.01)
    report = shop.prepare(declaration, folder / "out")
    return DataSet(folder / "out" / "transform", report, rows)


@pytest.fixture(scope="session")
def other_future(data_set: DataSet, tmp_path_factory: Any) -> DataSet:
    """The same training events; all that comes later is different.

    From another source, in another order.
    """
    folder = tmp_path_factory.mktemp("future")
    chance = random.Random(4)
    rows = []
    for row in data_set.rows:
        if (row["user"], row["item"]) not in data_set.splits["train"]:
            row = {
                **row,
                "item": f"new-{chance.randrange(10**9)}",
                "rating": chance.choice([1, 5, None]),
                "genres": ["new", "war"],
                "brand": "new",
                "price": 1e6,
                "device": "new",
                "weight": 9.0,
                "dwell": chance.uniform(1e5, 1e6),
            }
        rows.append(row)
    chance.shuffle(rows)
    source = {"format": "tfrecord", "path": shop.write_tfrecord(rows, folder / "e.tfrecord")}
    report = shop.prepare(shop.declare(source=source), folder / "out")
    return DataSet(folder / "out" / "transform", report, rows)
