"""The items of the vocabulary, as models take them."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrec import catalogue
from tfrec.catalogue import Catalogue
from tfrec.data import evaluation_batches
from tfrec.features import SPLITS, Features
from tfrec.strict import UserError


@pytest.fixture(scope="module")
def loaded(data_set) -> Catalogue:
    return catalogue.load(data_set.directory, data_set.features)


def test_items_come_in_order_of_their_ids(data_set, loaded: Catalogue):
    size = data_set.features.table("item").vocabulary
    lines = data_set.vocabulary("item")[1 : size + 1]
    assert list(zip(loaded.counts, loaded.keys, strict=True)) == [(c, v) for _, c, v in lines]


def test_raw_columns_are_those_of_the_item_features(data_set, loaded: Catalogue):
    assert set(loaded.raw) == {"item", "genres", "brand", "price"}
    details = {row["item"]: row for row in data_set.rows}
    for index, key in enumerate(loaded.keys):
        row = details[key]
        price = math.nan if row["price"] is None else row["price"]
        assert loaded.raw["item"][index] == key
        assert loaded.raw["genres"][index] == "|".join(row["genres"])
        assert loaded.raw["brand"][index] == (row["brand"] or "")
        assert loaded.raw["price"][index] == pytest.approx(price, nan_ok=True)


def test_inputs_are_what_the_examples_of_the_item_hold(
    data_set, loaded: Catalogue, monkeypatch: pytest.MonkeyPatch
):
    """In chunks, the last of which is smaller."""
    monkeypatch.setattr(catalogue, "ROWS_AT_ONCE", 4)
    assert len(loaded.keys) % 4
    transform = tf.saved_model.load(str(data_set.directory / "transform" / "transform_fn"))
    inputs = {name: value.numpy() for name, value in loaded.inputs(transform).items()}
    assert set(inputs) == {feature.name for feature in data_set.features.of_role("item")}
    ids = {key.encode(): index for index, key in enumerate(loaded.keys)}
    met = set()
    for split in SPLITS:
        for stored, _, _, keys in evaluation_batches(
            data_set.directory, data_set.features, split, 1_000
        ):
            for row, item in enumerate(keys["item"].numpy()):
                if item in ids:
                    met.add(item)
                    for name, values in inputs.items():
                        np.testing.assert_array_equal(values[ids[item]], stored[name][row], name)
    assert met == set(ids)
    assert inputs["item"].tolist() == list(range(1, len(ids) + 1))


def test_an_item_without_a_row_has_missing_values(data_set, tmp_path: Path):
    """As a value has that a shared vocabulary knows of another feature."""
    brands = dataclasses.replace(data_set.features, item_id="brand")
    found = catalogue.load(data_set.directory, brands)
    assert sorted(found.keys) == sorted(data_set.ids("brand"))
    assert found.raw["item"].tolist() == found.keys.tolist()
    assert set(found.raw["genres"]) == {""}
    assert np.isnan(found.raw["price"]).all()


def without_id(features: Features) -> Features:
    return dataclasses.replace(features, item_id=None)


def hashed_id(features: Features) -> Features:
    return dataclasses.replace(features, item_id="zip")


@pytest.mark.parametrize(
    ("change", "message"),
    [(without_id, "'shop' has no ids of items; declare `item`"), (hashed_id, "'zip' is hashed")],
)
def test_items_without_a_vocabulary(data_set, change: Any, message: str):
    with pytest.raises(UserError, match=message) as caught:
        catalogue.load(data_set.directory, change(data_set.features))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vocabulary/item.tsv", "items/"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_files_are_named(data_set, name: str, damage: str, tmp_path: Path):
    shutil.copytree(data_set.directory, tmp_path / "out")
    (path,) = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and f"/{name}" in str(p)]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(UserError, match=r"^[^\n]*make (the data set|it) again$") as caught:
        catalogue.load(tmp_path / "out", data_set.features)
    assert str(tmp_path / "out") in str(caught.value)


def test_items_are_found_as_the_events_name_them(tmp_path: Path):
    """With space around them, and ends of lines, of which keys have none."""
    places = catalogue.Places(np.array(["p1", "p 2"], object), tmp_path)
    found = places(tf.constant([["p\r\n2", "\tp1\n", "p\n\n2 ", "p", "p  2"]]))
    assert found.numpy().tolist() == [[1, 0, 1, -1, -1]]
