"""What a data set directory says of itself: features, items, a sample, statistics, its schema."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from tests.pipeline.test_data_set import history, train_counts


def test_features(data_set):
    features = data_set.features
    assert features.counts == {"train": 216, "validation": 24, "test": 48}
    assert (features.user_key, features.item_key, features.time_key) == ("user", "item", "time")
    assert (features.user_id, features.item_id) == ("user", "item")
    assert (features.weighted, features.sequences) == (True, False)
    assert [(label.name, label.task, label.weight) for label in features.labels] == [
        ("like", "binary", 1), ("dwell", "regression", 0.5)
    ]  # fmt: skip
    sizes = {t.name: (t.vocabulary, t.oov) for t in features.tables}
    counts = train_counts(data_set, "item")
    assert sizes == {
        "user": (24, 1), "item": (sum(c >= 4 for c in counts.values()), 3), "genres": (4, 1),
        "genre": (5, 1), "brand": (5, 1), "zip": (5, 0), "device": (2, 1), "age": (4, 0),
        "hour": (24, 0), "weekday": (7, 0), "seen_gap": (32, 0),
        "user_x_genres": (50, 0), "age_x_device": (40, 0), "liked_item_x_item": (60, 0),
    }  # fmt: skip
    assert {f.name for f in features.numbers} == {
        "price", "price_scaled", "price_log", "price_filled", "no_price", "when"
    }  # fmt: skip
    tables = {f.name: f.table for f in features.categories}
    assert tables["favourite"] == tables["brand"] == "brand"
    assert {f.name for f in features.of_role("user")} == {"user", "favourite", "zip", "age"}
    lengths = {f.name: f.length for f in (*features.features, *features.crosses) if f.length}
    assert lengths == {
        "genres": 3, "genre": 1, "user_x_genres": 3, "age_x_device": 1, "liked_item_x_item": 3
    }  # fmt: skip
    made_of = {f.name: f.column for f in (*features.features, *features.crosses)}
    assert made_of["price_log"] == made_of["price"] == "price"
    assert made_of["when"] == made_of["hour"] == made_of["weekday"] == "time"
    assert made_of["user_x_genres"] is None
    liked, seen = features.histories
    assert [f.column for f in liked.features] == ["liked_item", "liked_genres", "liked_price"]
    assert (liked.name, liked.length, seen.name, seen.length) == ("liked", 3, "seen", 5)
    assert [(f.name, f.kind, f.table, f.length, f.mirrors) for f in liked.features] == [
        ("liked_item", "category", "item", None, "item"),
        ("liked_genres", "category", "genres", 3, "genres"),
        ("liked_price", "number", None, None, "price"),
    ]
    gap = seen.features[-1]
    assert (gap.name, gap.kind, gap.column, gap.is_gap) == ("seen_gap", "category", "seen_time", 1)
    assert features.table(gap.table).size == 33


def test_columns_of_a_request(data_set):
    """Required is what every training event had."""
    columns = {c.name: (c.dtype, c.history, c.required) for c in data_set.features.columns}
    assert columns == {
        "user": ("string", None, True),
        "item": ("string", None, True),
        "genres": ("string", None, False),
        "brand": ("string", None, False),
        "favourite": ("string", None, False),
        "zip": ("string", None, True),
        "device": ("string", None, False),
        "price": ("float32", None, False),
        "age": ("float32", None, False),
        "time": ("int64", None, True),
        "liked_item": ("string", "liked", False),
        "liked_genres": ("string", "liked", False),
        "liked_price": ("float32", "liked", False),
        "seen_item": ("string", "seen", False),
        "seen_time": ("int64", "seen", False),
    }


def test_items(data_set):
    table = pyarrow.parquet.read_table(data_set.directory / "items")
    assert table.column_names == ["item", "genres", "brand", "price", "title"]
    rows = {row["item"]: row for row in table.to_pylist()}
    details = {row["item"]: row for row in data_set.rows}
    assert len(rows) == table.num_rows == len(details)
    for item, row in rows.items():
        expected = details[item]
        assert row["genres"] == "|".join(expected["genres"])
        assert row["brand"] == (expected["brand"] or "")
        assert row["title"] == expected["title"]
        price = math.nan if expected["price"] is None else expected["price"]
        assert row["price"] == pytest.approx(price, nan_ok=True)


def test_sample(data_set):
    path = str(data_set.directory / "sample.tfrecord")
    found = set()
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        fields = tf.train.Example.FromString(record).features.feature
        assert set(fields) == {column.name for column in data_set.features.columns}
        values = [fields[name].bytes_list.value[0].decode() for name in ("user", "item")]
        found.add(tuple(values))
    assert found == set(data_set.events["test"])


def test_statistics(data_set):
    proto = statistics_pb2.DatasetFeatureStatisticsList.FromString(
        (data_set.directory / "statistics" / "FeatureStats.pb").read_bytes()
    )
    assert [(d.name, d.num_examples) for d in proto.datasets] == [
        ("train", 216), ("validation", 24), ("test", 48)
    ]  # fmt: skip
    for dataset in proto.datasets:
        events = list(data_set.events[dataset.name].values())
        features = {feature.path.step[0]: feature for feature in dataset.features}
        prices = [e["price"] for e in events if e["price"] is not None]
        price = features["price"].num_stats
        assert features["price"].type == statistics_pb2.FeatureNameStatistics.FLOAT
        assert price.common_stats.num_non_missing == len(prices)
        assert price.common_stats.num_missing == len(events) - len(prices)
        assert price.mean == pytest.approx(np.mean(prices), rel=1e-5)
        assert price.std_dev == pytest.approx(np.std(prices), rel=1e-4)
        assert (price.min, price.max) == pytest.approx((min(prices), max(prices)))
        brands = [e["brand"] for e in events if e["brand"]]
        brand = features["brand"].string_stats
        assert features["brand"].type == statistics_pb2.FeatureNameStatistics.STRING
        assert brand.common_stats.num_non_missing == len(brands)
        assert brand.common_stats.num_missing == len(events) - len(brands)
        assert brand.avg_length == 4
        likes = features["label:like"].num_stats
        rated = [e["rating"] >= 4 for e in events if e["rating"] is not None]
        assert likes.common_stats.num_non_missing == len(rated)
        assert likes.num_zeros == rated.count(False)
        lengths = [len(history(e, data_set, 3, liked=True)) for e in events]
        liked = features["liked_item"].string_stats.common_stats
        assert liked.num_missing == lengths.count(0)
        assert liked.num_non_missing == len(events) - lengths.count(0)
        assert liked.tot_num_values == sum(lengths)
        assert liked.max_num_values == 3
        if liked.num_non_missing:
            assert liked.avg_num_values == pytest.approx(sum(lengths) / liked.num_non_missing)


def test_schema(data_set):
    schema = schema_pb2.Schema()
    text_format.Parse((data_set.directory / "schema.pbtxt").read_text(), schema)
    kinds = {"string": schema_pb2.BYTES, "float32": schema_pb2.FLOAT, "int64": schema_pb2.INT}
    types = {feature.name: feature.type for feature in schema.feature}
    assert types == {c.name: kinds[c.dtype] for c in data_set.features.columns}


def test_declaration_is_kept(data_set):
    declared = json.loads((data_set.directory / "declaration.json").read_text())
    assert declared["features"]["item"] == {
        "kind": "category", "role": "item", "min_count": 4, "oov_buckets": 3
    }  # fmt: skip
