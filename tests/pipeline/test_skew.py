"""Serving computes from a raw request what training read from disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrec.data import evaluation_batches, pad
from tfrec.serving_inputs import columns_of_examples, from_columns, from_examples

Rows = dict[tuple[str, str], dict[str, Any]]


def by_event(users: tf.Tensor, items: tf.Tensor, inputs: dict[str, Any]) -> Rows:
    names = [(u.decode(), i.decode()) for u, i in zip(users.numpy(), items.numpy(), strict=True)]
    assert len(set(names)) == len(names)
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return {key: {n: a[i] for n, a in arrays.items()} for i, key in enumerate(names)}


@pytest.fixture(scope="module")
def stored(data_set) -> Rows:
    batches = evaluation_batches(data_set.directory, data_set.features, "test", batch_size=1_000)
    ((inputs, _, _, keys),) = list(batches)
    return by_event(keys["user"], keys["item"], inputs)


@pytest.fixture(scope="module")
def transform(data_set) -> Any:
    return tf.saved_model.load(str(data_set.directory / "transform" / "transform_fn"))


def sample(data_set) -> list[bytes]:
    path = str(data_set.directory / "sample.tfrecord")
    return list(tf.data.TFRecordDataset(path).as_numpy_iterator())


@pytest.mark.parametrize("how", ["examples", "columns", "one by one"])
def test_serving_computes_what_was_stored(how: str, data_set, transform: Any, stored: Rows):
    features = data_set.features
    examples = sample(data_set)
    assert len(examples) == len(stored) == features.counts["test"] < 100
    served: Rows = {}
    for batch in [[e] for e in examples] if how == "one by one" else [examples]:
        raw = from_examples(features, tf.constant(batch))
        users, items = raw["user"], raw["item"]
        if how == "columns":
            columns = columns_of_examples(features, batch)
            raw = from_columns(features, {k: tf.constant(v) for k, v in columns.items()})
        served |= by_event(users, items, pad(features, transform.transform_fn(raw)))
    assert served.keys() == stored.keys()
    for key, row in stored.items():
        assert served[key].keys() == row.keys()
        for name, value in row.items():
            assert served[key][name].dtype == value.dtype
            np.testing.assert_array_equal(served[key][name], value, err_msg=f"{key} {name}")


def test_keys_of_the_stored_examples(data_set):
    ((_, _, _, keys),) = list(
        evaluation_batches(data_set.directory, data_set.features, "test", batch_size=1_000)
    )
    users, items, times = (keys[name].numpy().tolist() for name in ("user", "item", "time"))
    found = {(u.decode(), i.decode()): t for u, i, t in zip(users, items, times, strict=True)}
    assert found == {key: event["time"] for key, event in data_set.events["test"].items()}


def test_a_longer_history_is_cut_to_its_newest(data_set, transform: Any):
    features = data_set.features
    raw = from_examples(features, tf.constant(sample(data_set)))
    full = raw["liked_item"].row_lengths() == 3
    assert tf.reduce_sum(tf.cast(full, tf.int64)) > 10
    raw = {name: tf.ragged.boolean_mask(value, full) for name, value in raw.items()}
    longer = dict(raw)
    for column in features.columns:
        if column.history == "liked":  # two events more, that are older
            longer[column.name] = tf.concat([raw[column.name][:, 1:], raw[column.name]], axis=1)
    expected = pad(features, transform.transform_fn(raw))
    for name, value in pad(features, transform.transform_fn(longer)).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_the_stored_rows_are_worth_comparing(stored: Rows):
    """Every input varies, and histories are full."""
    for name in next(iter(stored.values())):
        assert len({row[name].tobytes() for row in stored.values()}) > 1, name
    assert all(row["seen_item"].all() for row in stored.values())
