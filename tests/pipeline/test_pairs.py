"""Users and items and nothing else: no labels, no times."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from tests.pipeline import shop
from tfrec import catalogue
from tfrec.data import evaluation_batches, training_batches
from tfrec.features import Features
from tfrec.models.registry import find
from tfrec.strict import UserError

LENGTH = 4
CHANCE = random.Random(6)
PAIRS = {f"u{u}": CHANCE.sample([f"i{i}" for i in range(12)], 8) for u in range(15)}
SPLIT = {
    "train": [(u, i) for u, items in PAIRS.items() for i in items[:6]],
    "test": [(u, i) for u, items in PAIRS.items() for i in items[6:]],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    source: dict[str, Any] = {"format": "csv"}
    for split, events in SPLIT.items():
        rows = [{"user": user, "item": item} for user, item in events]
        source[split] = shop.write_csv(rows, folder / f"{split}.csv")
    declaration = shop.checked_declaration(
        {
            "name": "pairs",
            "source": source,
            "user": "user",
            "item": "item",
            "features": {
                "who": {"kind": "category", "role": "user", "column": "user"},
                "what": {"kind": "category", "role": "item", "column": "item"},
            },
            "histories": {"met": {"length": LENGTH, "features": ["what"]}},
            "shards": 1,
        }
    )
    shop.prepare(declaration, folder / "out")
    return folder / "out" / "transform"


def test_features(pairs: Path):
    features = Features.load(pairs)
    assert features.labels == ()
    assert (features.user_id, features.item_id, features.time_key) == ("who", "what", None)
    assert features.counts == {"train": 90, "test": 30}


def test_no_history_has_its_own_item_or_a_later_one(pairs: Path):
    """All of the user's other training items, up to the length, and never one of test."""
    features = Features.load(pairs)
    items = catalogue.load(pairs, features).keys
    for split in SPLIT:
        events = set()
        for inputs, labels, _, keys in evaluation_batches(pairs, features, split, 1_000):
            assert labels == {}
            assert set(keys["time"].numpy()) == {0}
            for user, item, ids in zip(keys["user"], keys["item"], inputs["met_what"], strict=True):
                event = user.numpy().decode(), item.numpy().decode()
                events.add(event)
                met = {items[index - 1] for index in ids.numpy()}
                assert len(met) == LENGTH
                assert met <= set(PAIRS[event[0]][:6]) - {event[1]}
        assert events == set(SPLIT[split])


def test_training_batches_without_labels(pairs: Path):
    batches = training_batches(pairs, Features.load(pairs), 90, seed=1, epochs=range(1))
    ((inputs, labels, weights),) = list(batches)
    assert labels == {}
    assert set(inputs) == {"who", "what", "met_what"}
    np.testing.assert_array_equal(weights, np.ones(90))


def test_interactions_without_times(pairs: Path):
    table = pyarrow.parquet.read_table(pairs / "interactions")
    assert set(table.column_names) == {"user", "item", "split"}
    for split, events in SPLIT.items():
        assert sorted(shop.interactions(pairs, [split])) == sorted(events)


@pytest.mark.parametrize("model", ["dnn", "rnn", "mmoe"])
def test_models_that_learn_labels_refuse_it(pairs: Path, model: str):
    with pytest.raises(UserError, match=rf"^model {model} needs [^\n]*label[^\n]* 'pairs'"):
        find(model).check(Features.load(pairs))
