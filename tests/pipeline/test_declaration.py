from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.checks import read
from tests.pipeline import shop
from tfrec.strict import UserError

MOVIELENS = Path(__file__).parents[2] / "configs" / "movielens.yaml"

VALID = yaml.safe_load("""
name: shop
source: {format: csv, path: events.csv}
user: user
item: item
time: time
features:
  user: {kind: category, role: user}
  item: {kind: category, role: item, min_count: 2}
  price: {kind: number, role: item}
  age: {kind: buckets, buckets: 4, role: user}
labels:
  like: {column: rating, at_least: 4}
  dwell: {column: dwell, task: regression}
histories:
  liked: {length: 5, features: [item], where: like}
crosses:
  - {features: [user, age], buckets: 10}
split: {kind: user_time}
""")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid declaration with one value replaced; "…" takes the key away."""
    values = copy.deepcopy(VALID)
    *parents, last = path.split(".")
    block = values
    for part in parents:
        block = block[int(part)] if isinstance(block, list) else block.setdefault(part, {})
    if value == "…":
        del block[last]
    else:
        block[last] = value
    return values


def problem(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        shop.checked_declaration(values)
    message = str(caught.value)
    assert message.startswith("test.yaml: ")
    assert "\n" not in message
    return message


def test_the_declarations_of_the_project_are_valid():
    declaration = read(str(MOVIELENS))
    assert declaration.given_splits == ("train", "validation", "test")
    shop.checked_declaration(VALID)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("featurs", "features"),
        ("crossess", "crosses"),
        ("source.pth", "path"),
        ("split.fraction", "fractions"),
        ("features.item.min_cuont", "min_count"),
        ("features.kind.rol", "role"),
        ("labels.like.at_lest", "at_least"),
        ("histories.liked.lenght", "length"),
        ("crosses.0.bukets", "buckets"),
    ],
)
def test_unknown_keys_name_the_nearest_known_one(path: str, near: str):
    values = changed(path, 1)
    for feature in values["features"].values():  # one of them is new
        feature |= {"kind": "category", "role": "user"} if "kind" not in feature else {}
    message = problem(values)
    assert f"unknown key '{path}'" in message
    assert f"did you mean {near!r}?" in message


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("name", "…", ["'name' is missing"]),
        ("examples", "users", ["examples", "'sequences'"]),
        ("features", {}, ["features"]),
        ("labels", {}, ["histories.liked.where", "no label 'like'"]),
        ("features.item.kind", "categorical", ["features.item.kind", "'category'"]),
        ("source.format", "json", ["source.format", "'csv'"]),
        ("source.path", "…", ["source", "`path`"]),
        ("source.train", "a.csv", ["source", "either `path`, or `train`"]),
        ("source", {"format": "csv", "test": "t.csv"}, ["`train` is missing"]),
        ("source", {"format": "movielens", "path": "x"}, ["movielens takes no path"]),
        ("source.delimiter", "::", ["source.delimiter"]),
        ("source.missing", [None], ["source.missing.0", "not None; put it in quotes"]),  # [null]
        ("labels.like", {"column": "x", "equals": True}, ["not True; put it in quotes"]),
        ("split", "…", ["'split' is missing"]),
        ("source", {"format": "csv", "train": "a", "test": "b"}, ["split", "already gives"]),
        ("split.kind", "by_user", ["split.kind", "'user_time'"]),
        ("split.fractions", [0.8, 0.1, 0.2], ["`fractions`", "sum to 1"]),
        ("split.fractions", [1.2, -0.1, -0.1], ["`fractions`"]),
        ("split.fractions", [0.0, 0.5, 0.5], ["share of train is 0"]),
        ("user", "…", ["split.kind user_time", "'user'"]),
        ("time", "…", ["split.kind user_time", "'time'"]),
        ("histories.liked.features", ["itme"], ["no feature 'itme'", "'item'"]),
        ("histories.liked.features", [], ["histories.liked.features"]),
        ("histories.liked.features", ["price"], ["histories.liked", "category", "'price'"]),
        ("histories.liked.where", "lik", ["no label 'lik'", "'like'"]),
        ("histories.liked.where", "dwell", ["'dwell'", "not binary"]),
        ("crosses.0.features", ["user", "aeg"], ["no feature 'aeg'", "'age'"]),
        ("crosses.0.features", ["user", "liked_itme"], ["'liked_itme'", "'liked_item'"]),
        ("crosses.0.features", ["user", "price"], ["'price' is a number", "buckets"]),
        ("crosses.0.features", ["user"], ["crosses.0.features"]),
        ("features.price.min_count", 2, ["`min_count` belongs to kind category"]),
        ("features.price.buckets", 2, ["`buckets` belongs to kind buckets"]),
        ("features.item.normalise", "log", ["`normalise` belongs to kind number"]),
        ("features.age.buckets", "…", ["needs `buckets`"]),
        ("features.age.buckets", 1, ["features.age.buckets"]),
        ("features.price.fill", "none", ["`fill`", "is a number"]),
        ("features.price.fill", 1e300, ["`fill`", "beyond a float32's"]),
        (
            "features.hour",
            {"kind": "hour", "role": "context", "fill": 0},
            ["`fill` leaves nothing"],
        ),
        ("features.hour", {"kind": "hour", "role": "context", "buckets": 9}, ["belongs to kind"]),
        ("features.hour", {"kind": "hour", "role": "context", "column": "x"}, ["the time; leave"]),
        ("source", {"format": "parquet", "path": "x", "missing": ["?"]}, ["`missing` belongs to"]),
        ("features.item.length", 3, ["`length` needs a `separator`"]),
        ("features.item.hash_buckets", 9, ["`hash_buckets`", "no min_count"]),
        ("max_rejected", 1.5, ["max_rejected"]),
        ("shards", 0, ["shards"]),
        ("shards", 100_000, ["shards"]),
        ("split.seed", -1, ["split.seed", "greater than or equal to 0"]),
        ("negatives", {"per_positive": 2, "seed": -1}, ["negatives.seed", "or equal to 0"]),
        ("negatives", {"per_positive": 10**20}, ["negatives.per_positive"]),
        ("histories.liked.length", 10**20, ["histories.liked.length", "1000000"]),
        ("features.item", {"kind": "category", "role": "item", "hash_buckets": 2**31}, ["hash_b"]),
        ("features.item.oov_buckets", 10**20, ["features.item.oov_buckets"]),
        ("features.age.buckets", 10**20, ["features.age.buckets"]),
        ("crosses.0.buckets", 10**20, ["crosses.0.buckets"]),
        (
            "source",
            {"format": "movielens"},
            ["validation.serving", "the built-in movielens has no files"],
        ),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: Any, parts: list[str]):
    values = changed(path, value)
    values["validation"] = {"serving": "requests.csv"}
    message = problem(values)
    for part in parts:
        assert part in message, message


def test_a_history_needs_a_user():
    values = changed("user", "…")
    values["split"] = {"kind": "random"}
    assert "histories.liked: a history needs 'user'" in problem(values)


def test_labels_and_times_may_be_left_out():
    """Data of positive events, in no order."""
    values = {key: VALID[key] for key in ("name", "source", "user", "item", "features")}
    histories = {"met": {"length": 5, "features": ["item"]}}
    declared = {**values, "histories": histories, "split": {"kind": "random"}}
    assert shop.checked_declaration(declared).labels == {}


def test_parts_of_the_time_need_one():
    features = {"hour": {"kind": "hour", "role": "context"}}
    with pytest.raises(UserError, match=r"features\.hour: kind hour needs 'time'"):
        shop.tiny("events.csv", features={**shop.FEATURES, **features}, time=None)


def test_a_gap_needs_a_time():
    values = changed("histories.liked.gaps", True)
    shop.checked_declaration(values)
    del values["time"]
    values["split"] = {"kind": "random"}
    assert "histories.liked.gaps: a gap needs 'time'" in problem(values)


@pytest.mark.parametrize("missing", ["item", "time", "histories"])
def test_what_sequences_need(missing: str):
    values = changed("examples", "sequences")
    shop.checked_declaration(values)
    del values[missing]
    values["split"] = {"kind": "random"}
    name = "a history" if missing == "histories" else repr(missing)
    assert f"examples: sequences need {name}" in problem(values)


def test_a_history_starts_with_a_feature_of_one_value():
    values = changed("features.genres", {"kind": "category", "role": "item", "separator": "|"})
    values["histories"]["liked"]["features"] = ["genres", "item"]
    assert "the first one has to be the item's id" in problem(values)


@pytest.mark.parametrize("key", ["min_count", "top_k", "oov_buckets"])
def test_a_shared_vocabulary_has_one_setting(key: str):
    other = {"kind": "category", "role": "user", "vocabulary": "item", "min_count": 2}
    shop.checked_declaration(changed("features.last_item", other))
    message = problem(changed("features.last_item", {**other, key: 7}))
    assert "features.last_item: shares vocabulary 'item' with 'item'" in message
    assert key in message


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("labels.price", {"column": "p"}, "price"),
        ("features.liked_item", {"kind": "number", "role": "item"}, "liked_item"),
        ("labels.user_x_age", {"column": "p"}, "user_x_age"),
        ("crosses", [{"features": ["user", "age"], "buckets": 9}] * 2, "user_x_age"),
    ],
)
def test_names_do_not_clash(path: str, value: Any, name: str):
    assert f"the name {name!r} is both" in problem(changed(path, value))


def test_a_gap_has_a_name_of_its_own():
    values = changed("histories.liked.gaps", True)
    values["features"]["liked_gap"] = {"kind": "number", "role": "item"}
    assert "the name 'liked_gap' is both" in problem(values)
    values = changed("features.item.vocabulary", "liked_gap")
    values["histories"]["liked"]["gaps"] = True
    assert "the name 'liked_gap' is both" in problem(values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("features.item.vocabulary", "age"),  # the table of the buckets
        ("features.item.vocabulary", "user_x_age"),  # the table of the cross
        ("histories.liked_item", {"length": 2, "features": ["item"]}),
    ],
)
def test_tables_and_raw_columns_do_not_clash(path: str, value: Any):
    values = changed(path, value)
    values["features"]["other"] = {"kind": "number", "role": "item", "column": "liked_item_item"}
    assert "is both" in problem(values)


@pytest.mark.parametrize(
    ("path", "value", "column"),
    [
        ("features.code", {"kind": "category", "role": "item", "column": "price"}, "price"),
        ("features.code", {"kind": "number", "role": "item", "column": "item"}, "item"),
        ("features.day", {"kind": "category", "role": "context", "column": "time"}, "time"),
        ("weight", "item", "item"),
        ("weight", "time", "time"),
        ("user", "time", "time"),
    ],
)
def test_a_column_has_one_type(path: str, value: Any, column: str):
    message = problem(changed(path, value))
    assert f"column {column!r}" in message
    assert "is both" in message


def test_the_time_can_be_a_number_too():
    feature = {"kind": "number", "role": "context", "column": "time"}
    shop.checked_declaration(changed("features.when", feature))


@pytest.mark.parametrize("name", ["a/b", "a b", "label:like", "é", "-"])
@pytest.mark.parametrize("block", ["features", "labels", "histories", "vocabulary"])
def test_names_are_plain(block: str, name: str):
    values = copy.deepcopy(VALID)
    if block == "vocabulary":
        values["features"]["item"]["vocabulary"] = name
    else:
        values[block][name] = values[block][next(iter(values[block]))]
    message = problem(values)
    assert repr(name) in message
    assert "letters, digits" in message


@pytest.mark.parametrize("block", ["features", "labels", "histories", "vocabulary", "crosses"])
def test_names_are_not_endless(block: str):
    values, long = copy.deepcopy(VALID), 70 * "n"
    if block == "vocabulary":
        values["features"]["item"]["vocabulary"] = 2 * long
    elif block == "crosses":
        values["features"] |= {f"{long}{i}": values["features"]["item"] for i in (1, 2)}
        shop.checked_declaration(values)
        values["crosses"] = [{"features": [f"{long}1", f"{long}2"], "buckets": 9}]
    else:
        values[block][2 * long] = values[block][next(iter(values[block]))]
    assert re.search(r"the name 'n{40}…' has 14\d letters; 128 are allowed$", problem(values))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "name: \xff"])
def test_a_file_that_is_no_declaration(tmp_path: Path, text: str):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"broken\.yaml") as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_a_declaration_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.yaml: No such file"):
        read(str(tmp_path / "gone.yaml"))
