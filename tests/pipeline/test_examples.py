"""Splits and histories, with a second way to work them out."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.declaration import TRAIN_EVENTS, Declaration
from pipeline.examples import MakeExamples
from tests.pipeline import shop
from tfrec.features import ITEM_KEY, SPLITS, USER_KEY

EVENTS = shop.events()
KINDS: dict[str, dict[str, Any]] = {
    "user_time": {"kind": "user_time", "fractions": [0.5, 0.25, 0.25]},
    "time": {"kind": "time", "fractions": [0.6, 0.3, 0.1]},
    "leave_one_out": {"kind": "leave_one_out"},
    "random": {"kind": "random", "fractions": [0.6, 0.2, 0.2]},
    "random by item": {"kind": "random", "by": "item", "fractions": [0.6, 0.2, 0.2]},
}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory) -> tuple[str, dict[str, list[shop.Row]]]:
    declaration = shop.declare(split=KINDS[request.param])
    return request.param, shop.raw_examples(declaration, EVENTS, tmp_path_factory.mktemp("raw"))


def of_user(examples: dict[str, list[shop.Row]]) -> dict[str, dict[str, list[int]]]:
    """Times by user and split."""
    times: dict[str, dict[str, list[int]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for split in SPLITS:
        for example in examples[split]:
            times[example[USER_KEY][0]][split] += example["time"]
    return times


def test_every_event_falls_into_one_split(made):
    _, splits = made
    examples = [example for split in SPLITS for example in splits[split]]
    assert all(splits.values())
    assert shop.keys(examples) == sorted((row["user"], row["item"]) for row in EVENTS)


def test_each_split_kind(made):
    kind, splits = made
    users = of_user(splits)
    all_times = {s: [time for times in users.values() for time in times[s]] for s in SPLITS}
    if kind == "user_time":
        for times in users.values():
            assert [len(times[split]) for split in SPLITS] == [6, 3, 3]
            assert max(times["train"]) <= min(times["validation"])
            assert max(times["validation"]) <= min(times["test"])
    elif kind == "leave_one_out":
        for times in users.values():
            assert [len(times[split]) for split in SPLITS] == [10, 1, 1]
            assert max(times["train"]) < times["validation"][0] < times["test"][0]
    elif kind == "time":
        assert max(all_times["train"]) < min(all_times["validation"])
        assert max(all_times["validation"]) < min(all_times["test"])
        shares = [len(all_times[split]) / len(EVENTS) for split in SPLITS]
        assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
    else:
        key = USER_KEY if kind == "random" else ITEM_KEY
        found = [{example[key][0] for example in splits[split]} for split in SPLITS]
        assert all(found)
        assert sum(map(len, found)) == len(set.union(*found))  # no user, or item, in two splits


def test_histories_hold_what_came_before(made):
    """Strictly before, liked only, the newest, oldest first; whatever the split."""
    _, splits = made
    by_user = defaultdict(list)
    for row in EVENTS:
        by_user[row["user"]].append(row)
    details = {row["item"]: row for row in EVENTS}
    full = 0
    for example in [example for split in SPLITS for example in splits[split]]:
        before = [r for r in by_user[example[USER_KEY][0]] if r["time"] < example["time"][0]]
        liked = [r for r in before if (r["rating"] or 0) >= 4]
        for name, events, length in (("seen_item", before, 5), ("liked_item", liked, 3)):
            items = example[name]
            times = {row["item"]: row["time"] for row in events}
            assert len(items) == len(set(items)) == min(length, len(events))
            assert sorted(items, key=times.__getitem__) == items  # stable: oldest first
            left_out = [times[i] for i in times if i not in items]
            assert max(left_out, default=0) <= min((times[i] for i in items), default=0)
            full += len(items) == length
        for item, genres, price in zip(
            example["liked_item"], example["liked_genres"], example["liked_price"], strict=True
        ):
            assert genres == "|".join(details[item]["genres"])
            assert price == pytest.approx(details[item]["price"])
    assert full > 50


def test_the_order_of_the_source_does_not_matter(made, tmp_path: Path):
    kind, splits = made
    rows = EVENTS[:]
    random.Random(1).shuffle(rows)
    assert shop.raw_examples(shop.declare(split=KINDS[kind]), rows, tmp_path) == splits


def test_the_future_does_not_leak(made, tmp_path: Path):
    """Other items and ratings after some time: no example up to then moves."""
    kind, splits = made
    now = sorted(row["time"] for row in EVENTS)[len(EVENTS) // 2]
    other = {"item": "new", "rating": 5, "genres": ["new"], "price": 1.0, "dwell": 9.0}
    rows = [row if row["time"] <= now else {**row, **other} for row in EVENTS]
    moved = shop.raw_examples(shop.declare(split=KINDS[kind]), rows, tmp_path)

    def past(examples: dict[str, list[shop.Row]]) -> dict[str, list[shop.Row]]:
        return {s: [e for e in examples[s] if e["time"][0] <= now] for s in SPLITS}

    assert past(moved) == past(splits)
    assert sum(map(len, past(moved).values())) > 100
    assert moved != splits


def test_rows_fall_into_random_splits_without_a_user(tmp_path: Path):
    rows = [{"item": f"i{i}", "rating": 5} for i in range(400)]
    split = {"kind": "random", "fractions": [0.5, 0.3, 0.2]}
    found = []
    for seed in (0, 0, 1):
        declaration = shop.tiny("nowhere", item="item", split={**split, "seed": seed})
        examples = shop.raw_examples(declaration, rows, tmp_path)
        assert sum(map(len, examples.values())) == 400
        found.append({s: {e[ITEM_KEY][0] for e in examples[s]} for s in SPLITS})
    assert found[0] == found[1] != found[2]
    shares = [len(found[0][split]) / 400 for split in SPLITS]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.08)


@pytest.mark.parametrize("count", [1, 10, 5_000])
def test_a_split_in_time_is_exact(count: int, tmp_path: Path):
    """Also where many events have to be counted, and in any order."""
    times = list(range(1_000_000_000, 1_000_000_000 + 40 * count, 40))
    random.Random(2).shuffle(times)
    rows = [{"item": "i", "rating": 5, "time": time} for time in times]
    split = {"kind": "time", "fractions": [0.55, 0.25, 0.2]}
    features = {"time": {"kind": "number", "role": "context"}}
    declaration = shop.tiny("nowhere", time="time", features=features, split=split)
    examples = shop.raw_examples(declaration, rows, tmp_path)
    ordered = sorted(times)
    first, second = round(count * 0.55 + 0.49), round(count * 0.8 + 0.49)
    expected = [ordered[:first], ordered[first:second], ordered[second:]]
    assert [sorted(e["time"][0] for e in examples[s]) for s in SPLITS] == expected


def test_events_of_one_time_fall_into_one_split_in_time(tmp_path: Path):
    rows = [{"item": f"i{i}", "rating": 5, "time": i // 20} for i in range(200)]
    declaration = shop.tiny("nowhere", time="time", item="item", split={"kind": "time"})
    examples = shop.raw_examples(declaration, rows, tmp_path)
    assert [len(examples[split]) for split in SPLITS] == [160, 20, 20]


def direct(declaration: Declaration, rows: list[tuple[Any, ...]]) -> list[tuple[str, shop.Row]]:
    """(split, raw example) of one user's events, which are (given split, *columns)."""
    maker = MakeExamples(declaration)
    maker.start_bundle()
    outputs = [*maker.process(rows, None), *maker.finish_bundle()]
    examples = []
    for output in outputs:
        assert isinstance(output, beam.pvalue.TaggedOutput)
        batch = getattr(output.value, "value", output.value)
        examples += [(output.tag, example) for example in batch.to_pylist()]
    return sorted(examples, key=repr)


ONE_USER: dict[str, Any] = {
    "user": "user",
    "time": "time",
    "labels": {"like": {"column": "rating", "at_least": 4}},
    "histories": {"liked": {"length": 2, "features": ["item"], "where": "like"}},
}
ROW = st.tuples(  # the order of the layout: item, rating, user, time, label
    st.none(), st.sampled_from(["a", "b", " "]), st.just(5.0), st.just("u"), st.integers(0, 5),
    st.sampled_from([0.0, 1.0, float("nan")]),
)  # fmt: skip


@given(st.lists(ROW, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_one_user_in_any_order(rows: list[tuple[Any, ...]], chance: random.Random):
    declaration = shop.tiny("nowhere", split={"kind": "leave_one_out"}, **ONE_USER)
    examples = direct(declaration, rows)
    shuffled = rows[:]
    chance.shuffle(shuffled)
    assert repr(direct(declaration, shuffled)) == repr(examples)
    counts = [sum(split == name for split, _ in examples) for name in SPLITS]
    assert counts == {1: [1, 0, 0], 2: [1, 0, 1]}.get(len(rows), [len(rows) - 2, 1, 1])
    # An event without its item is no event of a history.
    liked = [row for row in rows if row[5] == 1 and row[1].strip()]
    lengths = sorted(min(2, sum(e[4] < row[4] for e in liked)) for row in rows)
    assert sorted(len(example["liked_item"]) for _, example in examples) == lengths


GIVEN: dict[str, Any] = {
    "source": {"format": "csv", "train": "t.csv", "validation": "v.csv", "test": "s.csv"},
    "split": None,
}
PAIR = st.tuples(  # the same without a time, in a split
    st.sampled_from(SPLITS), st.sampled_from(["a", "b", "c", " "]), st.just(5.0), st.just("u"),
    st.sampled_from([0.0, 1.0, float("nan")]),
)  # fmt: skip


@given(st.lists(PAIR, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_history_without_times(rows: list[tuple[Any, ...]], chance: random.Random):
    """Liked training events of other items, whatever their order in the source."""
    declaration = shop.tiny("", **{**ONE_USER, "time": None}, **GIVEN)
    examples = direct(declaration, rows)
    shuffled = rows[:]
    chance.shuffle(shuffled)
    assert repr(direct(declaration, shuffled)) == repr(examples)
    assert sorted(split for split, _ in examples) == sorted(row[0] for row in rows)
    liked = [r[1] for r in rows if r[0] == "train" and r[4] == 1 and r[1].strip()]
    for _, example in examples:
        (own,) = example["item"]
        others = [item.encode() for item in liked if item.encode() != own]
        assert not Counter(example["liked_item"]) - Counter(others)
        assert len(example["liked_item"]) == min(2, len(others))


def test_random_splits_without_times(tmp_path: Path):
    """The events of a user come together from all splits, and only those of train are seen."""
    rows = [{**row, "row": index} for index, row in enumerate(EVENTS)]
    of_time = ("when", "hour", "weekday")
    declaration = shop.declare(
        time=None,
        features={name: f for name, f in shop.FEATURES.items() if name not in of_time},
        histories={
            "liked": {"length": 3, "features": ["item"], "where": "like"},
            "seen": {"length": 5, "features": ["item"]},
        },
        split={"kind": "random", "by": "row", "fractions": [0.6, 0.2, 0.2]},
    )
    splits = shop.raw_examples(declaration, rows, tmp_path)
    train = defaultdict(set)
    for user, item in shop.keys(splits["train"]):
        train[user].add(item)
    for split in SPLITS:
        assert len(splits[split]) > 30
        for example in splits[split]:
            others = train[example[USER_KEY][0]] - {example[ITEM_KEY][0]}
            assert set(example["seen_item"]) <= others
            assert len(example["seen_item"]) == min(5, len(others))
    assert sum(len(example["seen_item"]) for example in splits["test"]) > 100
    random.Random(2).shuffle(rows)
    assert shop.raw_examples(declaration, rows, tmp_path) == splits


TIMED = st.tuples(
    st.sampled_from(SPLITS), st.sampled_from(["a", "b", "c"]), st.just(5.0), st.just("u"),
    st.integers(0, 9), st.sampled_from([0.0, 1.0]),
)  # fmt: skip


@given(st.lists(TIMED, min_size=1, max_size=12))
def test_a_sequence(rows: list[tuple[Any, ...]]):
    """The newest liked training event and the liked ones before it, none of another split."""
    blocks = {**ONE_USER, **GIVEN, "item": "item", "examples": "sequences"}
    examples = direct(shop.tiny("", **blocks), rows)
    outputs = Counter(output for output, _ in examples)
    train = [row for row in rows if row[0] == "train"]
    liked = sorted((row[4], row[1].encode()) for row in train if row[5] == 1)
    assert outputs[TRAIN_EVENTS] == len(train)
    assert outputs["train"] == bool(liked)
    for output, example in examples:
        if output == TRAIN_EVENTS:
            assert example["liked_item"] == []
        elif output == "train":
            (newest,) = example["key:time"]
            assert newest == liked[-1][0]
            assert (newest, *example["item"]) in liked
            before = [pair for pair in liked if pair[0] < newest]
            seen = sorted(example["liked_item"])
            times = sorted(time for time, _ in before)[-2:]
            assert len(seen) == len(times)
            assert not Counter(seen) - Counter(i for t, i in before if t >= min(times))
    events = direct(shop.tiny("", **{**blocks, "examples": "events"}), rows)
    for split in ("validation", "test"):
        of_split = [example for name, example in events if name == split]
        assert of_split == [example for name, example in examples if name == split]


@given(
    st.integers(1, 60),
    st.sampled_from([(0.8, 0.1, 0.1), (0.7, 0.3, 0.0), (0.6666666, 0.3333333, 0.0), (1.0, 0, 0)]),
)
def test_no_event_is_lost_by_rounding(count: int, fractions: tuple[float, float, float]):
    split = {"kind": "user_time", "fractions": list(fractions)}
    declaration = shop.tiny("nowhere", split=split, **ONE_USER)
    rows = [(None, "a", 5.0, "u", time, 1.0) for time in range(count)]
    found = [tag for tag, _ in direct(declaration, rows)]
    assert len(found) == count
    assert set(found) <= set(declaration.given_splits)
    assert found.count("train") == pytest.approx(count * fractions[0], abs=1)


def test_given_splits_share_one_past(tmp_path: Path):
    """Histories reach across given files: the past of a test event is in train."""
    rows = sorted((row for row in EVENTS if row["user"] == "u01"), key=lambda row: row["time"])
    source: dict[str, Any] = {"format": "csv"}
    for split, part in zip(SPLITS, (rows[:6], rows[6:9], rows[9:]), strict=True):
        source[split] = shop.write_csv(part, tmp_path / f"{split}.csv")
    declaration = shop.declare(source=source, split=None)
    examples = shop.raw_examples(declaration, None, tmp_path)
    assert [len(examples[split]) for split in SPLITS] == [6, 3, 3]
    newest = max(examples["test"], key=lambda example: example["time"])
    assert newest["seen_item"] == [row["item"] for row in rows[-6:-1]]
    without = declaration.model_copy(update={"histories": {}, "crosses": []})
    plain = shop.raw_examples(without, None, tmp_path)
    assert {s: shop.keys(e) for s, e in plain.items()} == {
        s: shop.keys(e) for s, e in examples.items()
    }
