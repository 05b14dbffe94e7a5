"""Texts, which are cut into words in training and serving alike."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from pipeline.declaration import Declaration
from tests.pipeline import shop
from tfrec.data import load_transform
from tfrec.features import IDS, Features
from tfrec.strict import UserError

TITLES = [
    "The Matrix (1999)", "the MATRIX: Reloaded", "Amélie — Le Fabuleux", "ÀMÉLIE's cat_dog",
    "東京 物語",
    "", "  ", "!?", "a a b", "Straße nach Süden",
]  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Path:
    """Every item has one of the titles, and a note; histories repeat their words."""
    folder = tmp_path_factory.mktemp("text")
    rows = [
        {**row, "title": TITLES[number % len(TITLES)], "note": f"of line\r\n{number % 2}"}
        for row in shop.events()
        for number in [int(row["item"][1:])]
    ]
    declaration = shop.tiny(
        shop.write_csv(rows, folder / "e.csv"),
        user="user",
        item="item",
        time="time",
        features={
            "item": {"kind": "category", "role": "item"},
            "title": {"kind": "text", "role": "item", "min_count": 20},
            "first": {"kind": "text", "role": "item", "column": "title", "length": 1},
            "note": {"kind": "category", "role": "item"},
        },
        histories={"seen": {"length": 2, "features": ["item", "title"]}},
        split={"kind": "user_time"},
    )
    shop.prepare(declaration, folder / "out")
    return folder / "out" / "transform"


def test_words_in_training(made: Path) -> None:
    features = Features.load(made)
    titles = {row["item"]: TITLES[int(row["item"][1:]) % len(TITLES)] for row in shop.events()}
    stored = {split: shop.stored(made, split) for split in ("train", "test")}
    counts = Counter(word for _, item in stored["train"] for word in words(titles[item]))
    ids = {value: index for index, _, value in shop.vocabulary(made, "title")}
    known = {word for word, count in counts.items() if count >= 20}
    assert {"amélie", "matrix", "1999", "東京", "straße", "s"} & known
    assert set(ids) == {"[padding]", "[oov 0]", *known}
    first = {value: index for index, _, value in shop.vocabulary(made, "first")}
    for split in stored.values():
        for (_, item), example in split.items():
            expected = [ids.get(word, len(ids) - 1) for word in words(titles[item])]
            assert example["title$ragged_values"].tolist() == expected
            expected = [first.get(word, len(first) - 1) for word in words(titles[item])]
            assert example["first$ragged_values"].tolist() == expected
    longest = max(len(words(title)) for title in TITLES)
    by_name = {feature.name: feature for feature in features.features}
    assert (by_name["title"].length, by_name["first"].length) == (longest, 1)
    assert features.histories[0].features[1].length == longest


def test_words_in_serving(made: Path) -> None:
    ids = {value: index for index, _, value in shop.vocabulary(made, "title")}
    rows = len(TITLES)
    nothing = tf.RaggedTensor.from_row_lengths(tf.constant([], tf.string), [0] * rows)
    seen = tf.RaggedTensor.from_row_lengths(tf.constant(TITLES[:4]), [4] + [0] * (rows - 1))
    outputs = load_transform(made).transform_fn(
        {
            "item": tf.constant([""] * rows), "title": tf.constant(TITLES),
            "note": tf.constant(["of line\n1", "of line 1"] * (rows // 2)),
            "seen_item": nothing, "seen_title": seen,
        }
    )  # fmt: skip
    expected = [[ids.get(word, len(ids) - 1) for word in words(title)] for title in TITLES]
    assert outputs["title"].to_list() == expected
    assert outputs["seen_title"].to_list()[0] == expected[2:4]  # the newest two
    (note,) = [index for index, _, value in shop.vocabulary(made, "note") if value == "of line 1"]
    packed = [feature.name for feature in Features.load(made).packed[IDS]]
    assert (outputs[IDS].numpy()[:, packed.index("note")] == note).all()


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"separator": "|"}, "`separator` belongs to kind category, not text"),
        ({"hash_buckets": 9, "min_count": 2}, "`hash_buckets` has no vocabulary"),
        ({"normalise": "log"}, "`normalise` belongs to kind number, not text"),
    ],
)
def test_what_does_not_fit(feature: dict[str, Any], message: str) -> None:
    values = shop.tiny("e.csv").model_dump(exclude_unset=True)
    values["features"]["title"] = {"kind": "text", "role": "item", **feature}
    with pytest.raises(UserError, match=message):
        Declaration.parse(values, "shop.yaml")
