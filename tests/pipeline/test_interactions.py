"""Every event with its user and its item, for evaluation."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf

from tests.pipeline import shop
from tfrec.features import SPLITS
from tfrec.slices import Slices
from tfrec.strict import UserError


@pytest.mark.parametrize("splits", [["train"], ["validation"], ["train", "test"], SPLITS])
def test_all_events_of_the_splits(data_set, splits):
    """Whatever their labels are, also missing ones."""
    expected = [key for split in splits for key in data_set.events[split]]
    assert sorted(shop.interactions(data_set.directory, splits)) == sorted(expected)


def test_times_are_kept(data_set):
    table = pyarrow.parquet.read_table(data_set.directory / "interactions")
    assert set(table.column_names) == {"user", "item", "split", "time"}
    for row in table.to_pylist():
        event = data_set.events[row["split"]][row["user"], row["item"]]
        assert row["time"] == event["time"]


def test_a_split_without_events(data_set):
    assert shop.interactions(data_set.directory, ["nothing"]) == []


def test_memory_does_not_grow_with_the_events(tmp_path: Path, data_set):
    """Counts take memory by user, not by event."""
    (tmp_path / "interactions").mkdir()
    names, events = [f"user number {i}" for i in range(60)], 600_000
    columns = {
        name: pyarrow.DictionaryArray.from_arrays(np.arange(events) % len(values), values).cast(
            "string"
        )
        for name, values in (("user", names), ("item", names), ("split", ["train"]))
    }
    file = tmp_path / "interactions" / "part.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    tracemalloc.start()
    try:
        parts = Slices(
            ["user_events=..9999", "user_events=1e4"], tmp_path, data_set.features, "test"
        )
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    keys = {"user": tf.constant([b"user number 3", b"another"])}
    assert parts.member({}, keys).tolist() == [[False, True], [True, False]]
    assert used < 8 * 2 * events  # two pointers for each event


def test_a_data_set_without_interactions(tmp_path: Path):
    with pytest.raises(UserError, match="has no interactions; declare `user` and `item`"):
        shop.interactions(tmp_path, ["train"])
