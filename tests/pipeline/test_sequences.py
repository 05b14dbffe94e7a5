"""One training example per user: a whole run beside one with all events."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.declaration import TRAIN_EVENTS
from pipeline.ingest import Ingest
from pipeline.workspace import Workspace
from tests.pipeline import shop
from tests.pipeline.conftest import DataSet
from tests.pipeline.test_leakage import transform, vocabularies
from tfrec.features import SPLITS
from tfrec.strict import UserError


@pytest.fixture(scope="module")
def sequences(data_set, tmp_path_factory) -> DataSet:
    """The same events, in another order."""
    folder = tmp_path_factory.mktemp("sequences")
    rows = data_set.rows[:]
    random.Random(3).shuffle(rows)
    source = {"format": "parquet", "path": shop.write_parquet(rows, folder / "e.parquet")}
    report = shop.prepare(shop.declare(source=source, examples="sequences"), folder / "out")
    return DataSet(folder / "out" / "transform", report, rows)


def test_each_user_has_the_newest_liked_example(data_set, sequences: DataSet):
    newest: dict[str, int] = {}
    for event in data_set.events["train"].values():
        if (event["rating"] or 0) >= 4:
            newest[event["user"]] = max(newest.get(event["user"], 0), event["time"])
    found = {user: event["time"] for (user, _), event in sequences.events["train"].items()}
    assert len(sequences.splits["train"]) == len(found)
    assert found == newest
    for key, example in sequences.splits["train"].items():
        expected = data_set.splits["train"][key]
        assert sequences.events["train"][key]["rating"] >= 4
        assert example.keys() == expected.keys()
        for name, value in example.items():
            np.testing.assert_array_equal(value, expected[name], name)


def test_the_other_splits_are_the_same(data_set, sequences: DataSet):
    for split in ("validation", "test"):
        first, second = data_set.directory, sequences.directory
        assert shop.shards(first, split) == shop.shards(second, split)


def test_all_training_events_are_learned_from(data_set, sequences: DataSet):
    assert vocabularies(data_set.directory) == vocabularies(sequences.directory)
    assert transform(data_set.directory) == transform(sequences.directory)
    events = data_set.features
    expected = dataclasses.replace(
        events,
        sequences=True,
        counts={**events.counts, "train": len(sequences.splits["train"])},
        fingerprint=sequences.features.fingerprint,
    )
    assert sequences.features == expected
    assert sequences.features.fingerprint != events.fingerprint
    assert sequences.report["examples"] == expected.counts


def test_no_event_is_out_of_the_counts(sequences: DataSet):
    """The line and the report tell training events beside the examples that are made of them."""
    report = sequences.report
    assert report["events"] == {"train": 216, "validation": 24, "test": 48}
    assert sum(report["events"].values()) == report["rows_read"] == len(sequences.rows)
    ingest = Ingest(shop.declare(examples="sequences"), Workspace(Path()), PipelineOptions([]))
    users = len(sequences.splits["train"])
    assert ingest.told(report) == [
        "288 rows; train 216, validation 24, test 48; "
        f"as sequences: train {users}, validation 24, test 48"
    ]
    lost = {**report, "events": {**report["events"], "train": 215}}
    with pytest.raises(UserError, match="288 rows were read, but 287 became events and 0 were"):
        ingest.check_counts(lost)


def test_statistics_of_all_training_events(data_set, sequences: DataSet):
    found = []
    for directory in (data_set.directory, sequences.directory):
        path = directory / "statistics" / "FeatureStats.pb"
        proto = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
        found.append({data.name: data for data in proto.datasets})
    events, kept = found
    assert set(kept) == {*SPLITS, TRAIN_EVENTS}
    assert kept[TRAIN_EVENTS].num_examples == events["train"].num_examples
    assert kept["train"].num_examples == sequences.features.counts["train"]
    prices = [
        next(f for f in data.features if f.path.step[0] == "price").num_stats
        for data in (events["train"], kept[TRAIN_EVENTS])
    ]
    assert prices[0].mean == pytest.approx(prices[1].mean)
    assert prices[0].common_stats == prices[1].common_stats


def test_interactions_are_of_all_events(data_set, sequences: DataSet):
    for split in SPLITS:
        made = (data_set, sequences)
        pairs = [sorted(shop.interactions(data.directory, [split])) for data in made]
        assert pairs[0] == pairs[1]
