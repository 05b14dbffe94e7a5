"""Every event with its user and its item, for evaluation."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest

from tfrec.features import SPLITS
from tfrec.interactions import interactions
from tfrec.strict import UserError


@pytest.mark.parametrize("splits", [["train"], ["validation"], ["train", "test"], SPLITS])
def test_all_events_of_the_splits(data_set, splits):
    """Whatever their labels are, also missing ones."""
    users, items = interactions(data_set.directory, splits)
    expected = [key for split in splits for key in data_set.events[split]]
    assert sorted(zip(users, items, strict=True)) == sorted(expected)


def test_times_are_kept(data_set):
    table = pyarrow.parquet.read_table(data_set.directory / "interactions")
    assert set(table.column_names) == {"user", "item", "split", "time"}
    for row in table.to_pylist():
        event = data_set.events[row["split"]][row["user"], row["item"]]
        assert row["time"] == event["time"]


def test_a_split_without_events(data_set):
    users, items = interactions(data_set.directory, ["nothing"])
    assert (len(users), len(items)) == (0, 0)


def test_a_data_set_without_interactions(tmp_path: Path):
    with pytest.raises(UserError, match="has no interactions; declare `user` and `item`"):
        interactions(tmp_path, ["train"])
