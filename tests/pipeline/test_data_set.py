"""What a whole run leaves in the data set directory."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tfrec.data import evaluation_batches
from tfrec.features import SPLITS
from tfrec.slices import Slices


def each(data_set) -> list[tuple[str, Any, dict[str, Any]]]:
    """(split, event, stored example) of all splits."""
    return [
        (split, data_set.events[split][key], example)
        for split in SPLITS
        for key, example in data_set.splits[split].items()
    ]


def train_counts(data_set, column: str, missing: str = "") -> Counter[str]:
    counts: Counter[str] = Counter()
    for event in data_set.events["train"].values():
        value = event[column]
        counts.update(value if isinstance(value, list) else [value or missing])
    del counts[""]
    return counts


def check_ids(data_set, table: str, known: Counter[str], found: list[tuple[str, int]]) -> int:
    """Known values have ids in order of their counts, the others OOV ids. Counts the latter."""
    ids = data_set.ids(table)
    size = data_set.features.table(table).size
    assert set(ids) == set(known)
    in_order = [known[value] for value in sorted(ids, key=ids.__getitem__)]
    assert in_order == sorted(in_order, reverse=True)
    assert sorted(ids.values()) == list(range(1, len(known) + 1))
    unknown: dict[str, int] = {}
    for value, index in found:
        if value == "":
            assert index == 0
        elif value in ids:
            assert index == ids[value]
        else:
            assert len(known) < index < size
            assert unknown.setdefault(value, index) == index
    return len(unknown)


def test_report(data_set):
    assert data_set.report["rows_read"] == 288 + 2
    assert data_set.report["examples"] == {"train": 216, "validation": 24, "test": 48}
    reasons = list(data_set.report["rejected"].items())
    assert {(reason.split(": ", 1)[1], found) for reason, found in reasons} == {
        ("another number of fields than its header", (1, "")),
        ("not a number", (1, "dear")),
    }
    written = json.loads((data_set.directory / "report.json").read_text())
    assert written["rows_read"] == sum(written["examples"].values()) + sum(
        count for count, _ in written["rejected"].values()
    )
    assert {len(examples) for examples in data_set.splits.values()} == {216, 24, 48}


def test_nothing_else_is_left(data_set):
    names = {path.name for path in data_set.directory.iterdir()}
    assert names == {
        "declaration.json", "examples", "features.json", "interactions", "items", "report.json",
        "sample.tfrecord", "schema.pbtxt", "statistics", "step.json", "transform", "vocabulary",
    }  # fmt: skip
    folder = data_set.directory.parents[1]
    assert {path.name for path in folder.iterdir()} == {"events.csv", "out"}
    assert not list((folder / "out").glob(".*"))
    names = {path.name for path in (data_set.directory / "examples").iterdir()}
    assert names == {f"{split}-0000{i}-of-00002.tfrecord" for split in SPLITS for i in (0, 1)}
    assert all(path.stat().st_size for path in (data_set.directory / "examples").iterdir())


def test_ids_of_items(data_set):
    """min_count, and three OOV ids for what is rare or new."""
    counts = train_counts(data_set, "item")
    known = Counter({item: count for item, count in counts.items() if count >= 4})
    assert 0 < len(known) < len(counts)
    found = [(event["item"], example["item"][0]) for _, event, example in each(data_set)]
    assert check_ids(data_set, "item", known, found) > 1
    assert data_set.features.table("item").oov == 3
    lines = data_set.vocabulary("item")
    assert sum(count for _, count, _ in lines) == 216
    assert [value for _, _, value in lines[-3:]] == ["[oov 0]", "[oov 1]", "[oov 2]"]
    assert {value: count for _, count, value in lines[1:-3]} == known


def test_ids_of_a_shared_vocabulary(data_set):
    counts = train_counts(data_set, "brand") + train_counts(data_set, "favourite")
    found = []
    for _, event, example in each(data_set):
        found.append((event["brand"] or "", example["brand"][0]))
        found.append((event["favourite"] or "", example["favourite"][0]))
    check_ids(data_set, "brand", counts, found)
    assert ("", 0) in found
    lines = data_set.vocabulary("brand")
    assert lines[0] == (0, 2 * 216 - sum(counts.values()), "[padding]")
    assert {value: count for _, count, value in lines[1:-1]} == counts
    assert not (data_set.directory / "vocabulary" / "favourite.tsv").exists()


def test_top_k_and_fill(data_set):
    counts = train_counts(data_set, "device", "unknown")
    known = Counter(dict(counts.most_common(2)))
    assert set(known) == {"phone", "desktop"}
    found = [(e["device"] or "unknown", x["device"][0]) for _, e, x in each(data_set)]
    assert check_ids(data_set, "device", known, found) == 2
    assert all(index for _, index in found)
    assert data_set.vocabulary("device")[0] == (0, 0, "[padding]")
    assert data_set.vocabulary("device")[-1] == (
        3, counts["unknown"] + counts["tablet"], "[oov 0]"
    )  # fmt: skip


def test_many_values(data_set):
    counts = train_counts(data_set, "genres")
    found = []
    for _, event, example in each(data_set):
        ids = example["genres$ragged_values"]
        assert len(ids) == len(event["genres"])
        found += list(zip(event["genres"], ids, strict=True))
    check_ids(data_set, "genres", counts, found)
    lines = {value: count for _, count, value in data_set.vocabulary("genres")}
    assert lines == {"[padding]": 0, "[oov 0]": 0, **counts}


def test_many_values_with_fill(data_set):
    """A missing list is the filling value; `length` is kept for the reader to cut at."""
    ids = data_set.ids("genre")
    assert set(ids) == {*train_counts(data_set, "genres"), "none"}
    for _, event, example in each(data_set):
        expected = [ids[genre] for genre in event["genres"] or ["none"]]
        assert example["genre$ragged_values"].tolist() == expected


def test_hashes(data_set):
    ids = {(event["zip"], example["zip"][0]) for _, event, example in each(data_set)}
    assert len(ids) == 9  # one each
    assert {index for _, index in ids} <= set(range(1, 6))
    assert len({index for _, index in ids}) > 1
    lines = data_set.vocabulary("zip")
    assert [(index, value) for index, _, value in lines[1:]] == [(i, "") for i in range(1, 6)]
    assert sum(count for _, count, _ in lines) == 216


def test_buckets(data_set):
    """By quantiles of train; what is missing is 0."""
    ids: dict[int | None, set[int]] = {}
    for _, event, example in each(data_set):
        ids.setdefault(event["age"], set()).add(example["age"][0])
    assert ids.pop(None) == {0}
    in_order = [ids[age] for age in sorted(ids, key=lambda age: age or 0)]
    assert all(len(found) == 1 for found in in_order)
    flat = [min(found) for found in in_order]
    assert flat == sorted(flat)
    assert set(flat) == {1, 2, 3, 4}
    counts = {index: count for index, count, _ in data_set.vocabulary("age")}
    present = 216 - counts[0]
    assert counts[0] == sum(e["age"] is None for e in data_set.events["train"].values()) > 0
    for index in (1, 2, 3, 4):
        assert counts[index] / present == pytest.approx(0.25, abs=0.06)  # 19 ages of 9 events


def test_parts_of_the_time(data_set):
    """Ids from 1, of hours and of days from Monday; they have no vocabulary to learn."""
    found = set()
    for _, event, example in each(data_set):
        when = datetime.datetime.fromtimestamp(event["time"], datetime.UTC)
        assert example["hour"][0] == 1 + when.hour
        assert example["weekday"][0] == 1 + when.weekday()
        found.add(when.hour)
    assert len(found) > 3
    assert [value for _, _, value in data_set.vocabulary("hour")[1:]] == [str(h) for h in range(24)]
    days = [value for _, _, value in data_set.vocabulary("weekday")[1:]]
    assert (len(days), days[0], days[-1]) == (7, "Monday", "Sunday")


def test_examples_are_asked_for_by_their_values(data_set):
    """Also where ids have no vocabulary; a hash does not tell those values apart that share one."""
    directory, features = data_set.directory, data_set.features
    ((inputs, _, _, keys),) = evaluation_batches(directory, features, "test", 10_000)
    parts = Slices(["zip=z3", "weekday=Sunday", "age=40..", "zip"], directory, features, "test")
    member = dict(zip(parts.names, parts.member(inputs, keys).T, strict=True))
    pairs = zip(keys["user"].numpy(), keys["item"].numpy(), strict=True)
    events = [data_set.events["test"][user.decode(), item.decode()] for user, item in pairs]
    (name,) = (name for name in member if name.startswith("zip=z3"))
    assert name.startswith("zip=z3 → bucket ")
    assert name.endswith(" of 5")
    hashed = member[f"zip={name.split(' → ')[1]}"]
    np.testing.assert_array_equal(member[name], hashed)
    assert {"z3"} <= {e["zip"] for e, there in zip(events, hashed, strict=True) if there}
    dates = [datetime.datetime.fromtimestamp(e["time"], datetime.UTC) for e in events]
    assert member["weekday=Sunday"].tolist() == [date.weekday() == 6 for date in dates]
    (name,) = (name for name in member if name.startswith("age=40"))
    low = float(name.removeprefix("age=40.. → ").split()[1])
    ages = np.array([np.nan if e["age"] is None else e["age"] for e in events])
    assert low <= 40
    np.testing.assert_array_equal(member[name], ages >= low)


def test_numbers(data_set):
    train = data_set.events["train"].values()
    prices = [event["price"] for event in train if event["price"] is not None]
    mean, deviation, low, high = np.mean(prices), np.std(prices), min(prices), max(prices)
    times = [event["time"] for event in train]
    missing = 0
    for _, event, example in each(data_set):
        price = event["price"]
        found = {name: example[name][0] for name in ("price", "price_scaled", "price_log")}
        if price is None:
            missing += 1
            assert found == {"price": 0, "price_scaled": 0, "price_log": 0}
        else:
            assert found == {
                "price": pytest.approx((price - mean) / deviation, rel=1e-5, abs=1e-6),
                "price_scaled": pytest.approx((price - low) / (high - low), rel=1e-5, abs=1e-6),
                "price_log": pytest.approx(math.log1p(price), rel=1e-5),
            }
        assert example["no_price"][0] == (price is None)
        assert example["price_filled"][0] == pytest.approx(7.5 if price is None else price)
        share = (event["time"] - min(times)) / (max(times) - min(times))
        assert example["when"][0] == pytest.approx(share, abs=1e-6)
    assert missing > 10


def test_labels_weights_and_keys(data_set):
    missing = 0
    for _, event, example in each(data_set):
        like = example["label:like"][0]
        if event["rating"] is None:
            missing += 1
            assert math.isnan(like)
        else:
            assert like == (event["rating"] >= 4)
        assert example["label:dwell"][0] == pytest.approx(event["dwell"])
        assert example["weight:"][0] == event["weight"]
        assert example["key:time"][0] == event["time"]
    assert missing > 10


def history(event, data_set, length: int, liked: bool) -> list[Any]:
    """Earlier events of the same user; those of one second in any order."""
    before = [
        row
        for row in data_set.rows
        if row["user"] == event["user"] and row["time"] < event["time"]
        if not liked or (row["rating"] or 0) >= 4
    ]
    return sorted(before, key=lambda row: row["time"])[-length:]


def test_histories_use_the_ids_of_what_they_repeat(data_set):
    by_item = {}
    for _, event, example in each(data_set):
        genres = example["genres$ragged_values"].tolist()
        by_item[event["item"]] = example["item"][0], genres, example["price"][0]
    longest = 0
    for _, event, example in each(data_set):
        seen = history(event, data_set, 5, liked=False)
        times = [row["time"] for row in history(event, data_set, 99, liked=False)]
        if len(set(times)) == len(times):
            expected = [by_item[row["item"]][0] for row in seen]
            assert example["seen_item$ragged_values"].tolist() == expected
        assert len(example["seen_item$ragged_values"]) == len(seen)
        gaps = [event["time"] - row["time"] for row in seen]
        expected = [1 + gap.bit_length() for gap in gaps]  # 1 second, 2 and 3, 4 to 7, …
        assert example["seen_gap$ragged_values"].tolist() == expected
        liked = history(event, data_set, 99, liked=True)
        if len({row["time"] for row in liked}) == len(liked):
            events = [by_item[row["item"]] for row in liked[-3:]]
            longest = max(longest, len(events))
            assert example["liked_item$ragged_values"].tolist() == [e[0] for e in events]
            lengths = example["liked_genres$row_lengths_1"].tolist()
            assert lengths == [len(e[1]) for e in events]
            genres = example["liked_genres$ragged_values"].tolist()
            assert genres == [index for e in events for index in e[1]]
            prices = example["liked_price$ragged_values"].tolist()
            assert prices == pytest.approx([e[2] for e in events])
    assert longest == 3


def test_crosses(data_set):
    """One id per pair of values, the same pair the same id; nothing where a value is missing."""
    pairs: dict[str, dict[Any, set[int]]] = {"genres": {}, "device": {}, "liked": {}}
    for _, _, example in each(data_set):
        user, item, age = (int(example[name][0]) for name in ("user", "item", "age"))
        crossed = {
            "genres": [(user, g) for g in example["genres$ragged_values"].tolist()],
            "device": [(age, int(example["device"][0]))] if age else [],
            "liked": [(i, item) for i in example["liked_item$ragged_values"].tolist()],
        }
        names = {
            "genres": "user_x_genres", "device": "age_x_device", "liked": "liked_item_x_item"
        }  # fmt: skip
        for cross, keys in crossed.items():
            ids = example[f"{names[cross]}$ragged_values"].tolist()
            assert len(ids) == len(keys)
            for key, index in zip(keys, ids, strict=True):
                pairs[cross].setdefault(key, set()).add(index)
    for cross, buckets in (("genres", 50), ("device", 40), ("liked", 60)):
        found = pairs[cross].values()
        assert all(len(ids) == 1 for ids in found)
        assert set.union(*found) <= set(range(1, buckets + 1))
        assert len(set.union(*found)) > min(len(pairs[cross]), buckets) / 3
