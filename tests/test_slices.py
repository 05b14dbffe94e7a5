"""Parts of a split: who is in which, and what they are called."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from sklearn.metrics import log_loss

from tests.events import COLOURS
from tfrec import evaluate
from tfrec.catalogue import vocabulary
from tfrec.data import evaluation_batches
from tfrec.evaluation import Evaluator
from tfrec.features import NUMBERS, Features
from tfrec.figures import Report
from tfrec.interactions import interactions
from tfrec.runs import Run
from tfrec.slices import Slices, _quarters
from tfrec.strict import UserError


class Split:
    """The shop's test split, and what its events really were."""

    def __init__(self, shop: Path) -> None:
        self.shop, self.features = shop, Features.load(shop)
        ((self.inputs, _, _, self.keys),) = evaluation_batches(shop, self.features, "test", 10_000)
        with (shop.parents[1] / "events.csv").open(newline="") as file:
            rows = {(row["customer"], row["product"]): row for row in csv.DictReader(file)}
        pairs = zip(self.keys["user"].numpy(), self.keys["item"].numpy(), strict=True)
        self.rows = [rows[user.decode(), item.decode()] for user, item in pairs]

    def slices(self, *wanted: str) -> dict[str, Any]:
        found = Slices(wanted, self.shop, self.features, "test")
        member = found.member(self.inputs, self.keys)
        assert member.shape == (len(self.rows), len(found.names))
        return dict(zip(found.names, member.T, strict=True))


@pytest.fixture(scope="module")
def split(shop: Path) -> Split:
    return Split(shop)


def test_an_example_is_in_the_slices_of_all_its_values(split: Split) -> None:
    found = split.slices("colours")
    assert set(found) == {*(f"colours={c}" for c in COLOURS), "colours=(unknown)", "colours=(none)"}
    for colour in COLOURS:
        expected = [colour in row["colours"].split("|") for row in split.rows]
        assert found[f"colours={colour}"].tolist() == expected
    assert not found["colours=(none)"].any()
    assert sum(part.sum() for part in found.values()) > len(split.rows)


def test_one_value_is_the_same_part_alone(split: Split) -> None:
    alone = split.slices("colours=red", "customer=c3")
    assert list(alone) == ["colours=red", "customer=c3"]
    np.testing.assert_array_equal(alone["colours=red"], split.slices("colours")["colours=red"])
    expected = [row["customer"] == "c3" for row in split.rows]
    assert alone["customer=c3"].tolist() == expected


def test_of_many_values_the_most_frequent_are_told_apart(split: Split) -> None:
    found = split.slices("customer")
    assert len(found) == 20 + 3
    total = np.sum(list(found.values()), axis=0)
    np.testing.assert_array_equal(total, 1)  # everyone is somewhere, and in one place
    assert found["customer=(others)"].sum() == len(split.rows) * 4 / 24


def test_numbers_have_quarters_and_ranges(split: Split) -> None:
    found = split.slices("price")
    assert sum(found.values()).max() == 1
    sizes = [part.sum() for part in found.values()]
    assert sum(sizes) == len(split.rows)
    assert max(sizes) < 0.35 * len(split.rows)
    prices = split.inputs["price"].numpy()
    middle = split.slices("price=-0.5..0.5")
    expected = (prices >= -0.5) & (prices <= 0.5)
    np.testing.assert_array_equal(middle["price=-0.5..0.5"], expected)
    np.testing.assert_array_equal(split.slices("price=0.1..")["price=0.1.."], prices >= 0.1)


def test_buckets_are_told_by_their_edges(split: Split) -> None:
    found = split.slices("price_band")
    *buckets, none = found
    assert none == "price_band=(none)"
    prices = np.array([float(row["unit price"] or "nan") for row in split.rows])
    np.testing.assert_array_equal(found[none], np.isnan(prices))
    edges = [float(name.split("from ")[-1].split("=")[-1].split(" to ")[0]) for name in buckets[1:]]
    assert buckets[0] == f"price_band=below {edges[0]:g}"
    assert buckets[1] == f"price_band={edges[0]:g} to below {edges[1]:g}"
    assert buckets[3] == f"price_band=from {edges[2]:g}"
    for name, low, high in zip(buckets, [-np.inf, *edges], [*edges, np.inf], strict=True):
        expected = (prices >= low - 1e-5) & (prices < high - 1e-5)
        np.testing.assert_array_equal(found[name], expected)


def test_buckets_are_asked_for_by_values_and_ranges_of_the_source(split: Split) -> None:
    """The part is of whole buckets, and its name says which."""
    found = list(split.slices("price_band").items())
    (_, first), (second_name, second), (third_name, third), _, _ = found
    low, high = second_name.removeprefix("price_band=").split(" to below ")
    inside = (float(low) + float(high)) / 2
    end = third_name.split(" to below ")[1]
    asked = [f"price_band={inside}", f"price_band={inside}..{high}", f"price_band=..{low}"]
    one, two, three = split.slices(*asked).items()
    assert one[0] == f"price_band={inside} → {low} to below {high}"
    np.testing.assert_array_equal(one[1], second)
    assert two[0] == f"price_band={inside}..{high} → {low} to below {end}"
    np.testing.assert_array_equal(two[1], second | third)
    assert three[0] == f"price_band=..{low} → below {high}"
    np.testing.assert_array_equal(three[1], first | second)


def test_histories_have_parts_by_their_length(split: Split) -> None:
    ((inputs, _, _, keys),) = evaluation_batches(split.shop, split.features, "train", 10_000)
    lengths = (inputs["bought_before_product"].numpy() > 0).sum(axis=1)
    parts = Slices(["bought_before=0..1", "bought_before"], split.shop, split.features, "train")
    named = dict(zip(parts.names, parts.member(inputs, keys).T, strict=True))
    np.testing.assert_array_equal(named.pop("bought_before=0..1"), lengths <= 1)
    assert len(named) > 2
    np.testing.assert_array_equal(sum(named.values()), 1)
    for name, part in named.items():
        low, below, high = name.removeprefix("bought_before=").partition("below ")
        expected = lengths < int(high) if below else True
        edge = low.removeprefix("from ").removesuffix(" to ")
        expected &= lengths >= int(edge or 0)
        np.testing.assert_array_equal(part, expected)


def test_what_is_in_histories_and_crosses_is_asked_for_by_value(split: Split) -> None:
    (red,) = split.slices("bought_before_colours=red").values()
    reds = split.features.feature("colours").table
    ids = {c: n for n, c in enumerate(vocabulary(split.shop, split.features.table(reds))[0], 1)}
    events = split.inputs["bought_before_colours"].numpy()
    np.testing.assert_array_equal(red, (events == ids["red"]).any(axis=(1, 2)))
    assert 0 < red.sum() < len(red)
    (cross,) = split.slices("customer_x_colours=c3&red").values()
    expected = [r["customer"] == "c3" and "red" in r["colours"].split("|") for r in split.rows]
    assert cross.tolist() == expected


def test_new_users_and_rare_items_are_known_by_training_events(split: Split) -> None:
    parts = zip(*interactions(split.shop, ["train"]), strict=True)
    users, items = (Counter(np.concatenate(keys)) for keys in parts)
    assert set(users.values()) == {32}
    found = split.slices("user_events", "item_count", "item_count=0..12", "user_events=..31")
    assert found["user_events=10–99"].all()
    assert not found["user_events=..31"].any()
    counts = np.array([items[row["product"]] for row in split.rows])
    np.testing.assert_array_equal(found["item_count=1–9"], (counts >= 1) & (counts <= 9))
    np.testing.assert_array_equal(found["item_count=10–99"], (counts >= 10) & (counts <= 99))
    np.testing.assert_array_equal(found["item_count=0..12"], counts <= 12)
    assert 0 < (counts <= 12).sum() < len(counts)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["colour"], "no feature 'colour'; did you mean 'colours'"),
        (["colours=rad"], "colours has no value 'rad'; did you mean 'red'"),
        (["price=cheap"], "price is a number; expected LOW..HIGH, such as price=0..10"),
        (["price=3..1"], "price is a number; expected LOW..HIGH"),
        (["price_band=dear"], "price_band is a number; expected LOW..HIGH"),
        (["user_event"], "did you mean 'user_events'"),
        (["bought_befor"], "did you mean 'bought_before'"),
        (["customer_x_colours=c3"], "customer_x_colours needs a value of each of customer, colour"),
        (["customer_x_colours"], "such as customer_x_colours=A&B"),
    ],
)
def test_what_is_no_slice(split: Split, wanted: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split.slices(*wanted)


def test_a_part_that_is_there_already_is_passed_over(split: Split) -> None:
    once = split.slices("colours", "item_count")
    names = ["item_count=0", "colours=red", "item_count=1–9", "colours=(none)"]
    assert split.slices("colours", *names[1::2], "item_count", *names[::2]).keys() == once.keys()
    for name in names:  # what a part is called asks for it
        (found,) = split.slices(name).items()
        assert found[0] == name
        np.testing.assert_array_equal(found[1], once[name])
    more = split.slices("item_count", "item_count=0..12")
    assert list(more) == [name for name in once if name.startswith("item_count")] + [
        "item_count=0..12"
    ]


def changed(shop: Path, directory: Path, change: Callable[[tf.train.Example], None]) -> Path:
    """The shop with other examples of the test split."""
    shutil.copytree(shop, directory)
    for path in directory.glob("examples/test-*"):
        records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in records:
                change(example)
                writer.write(example.SerializeToString())
    return directory


def test_a_number_of_few_values_has_fewer_parts(shop: Path, tmp_path: Path) -> None:
    """Quarters whose edges are equal are one."""
    features = Features.load(shop)
    place = [feature.name for feature in features.packed[NUMBERS]].index("price")

    def rounded(example: tf.train.Example) -> None:
        values = example.features.feature[NUMBERS].float_list.value
        values[place] = float(values[place] > 0)

    data = changed(shop, tmp_path / "data", rounded)
    ((inputs, _, _, keys),) = evaluation_batches(data, features, "test", 10_000)
    parts = Slices(["price"], data, features, "test")
    member = dict(zip(parts.names, parts.member(inputs, keys).T, strict=True))
    prices = inputs["price"].numpy()
    assert list(member) == ["price=below 0", "price=0 to below 1", "price=from 1"]
    np.testing.assert_array_equal(member["price=0 to below 1"], prices == 0)
    np.testing.assert_array_equal(member["price=from 1"], prices == 1)


def test_numbers_that_lie_close_together_have_names_that_differ() -> None:
    known = np.float32(1) + np.arange(8, dtype=np.float32) * np.float32(1e-6)
    assert len(_quarters(known)) == 4
    assert _quarters(known[:0]) == {}


def test_a_value_may_be_called_as_a_part_is(shop: Path, split: Split, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop / "vocabulary", data / "vocabulary")
    path = data / "vocabulary" / "colours.tsv"
    text = path.read_text()
    for colour, name in (("red", "(none)"), ("blue", "(unknown)"), ("black", "(others)")):
        text = text.replace(f"\t{colour}\n", f"\t{name}\n")
    path.write_text(text)
    parts = Slices(["colours", "colours=(none)"], data, split.features, "test")
    member = dict(zip(parts.names, parts.member(split.inputs, split.keys).T, strict=True))
    assert {*parts.names} == {
        *(f"colours={name}" for name in ("(none)", "(unknown)", "(others)", "green")),
        "colours=((unknown))",
        "colours=((none))",
    }
    reds = split.slices("colours=red")["colours=red"]
    np.testing.assert_array_equal(member["colours=(none)"], reds)


def test_a_run_is_measured_by_slice(finished: tuple[Path, str], split: Split) -> None:
    run, _ = finished
    arguments = ["--run", str(run), "--slice", "colours", "--slice", "user_events"]
    arguments += ["--slice", "user_events=0..1", "--slice", "price_band=5"]
    done = CliRunner().invoke(evaluate.main, [*arguments, "--replicates", "50"])
    assert done.exit_code == 0, done.output
    report = Report.load(run / "evaluation" / "test.json")
    by_slice = {r["slice"]: r for r in report.records if r["name"] == "wide_deep"}
    whole, red = by_slice[None], by_slice["colours=red"]
    assert (whole["examples"], whole["users"]) == (len(split.rows), 24)
    reds = ["red" in row["colours"] for row in split.rows]
    assert red["examples"] == sum(reds)
    assert red["users"] == len({r["customer"] for r in np.array(split.rows)[reds]})
    assert by_slice["user_events=10–99"]["metrics"] == whole["metrics"]
    assert "user_events=0" not in by_slice  # nobody is in it
    assert done.output.count("no example of test is in it") == 1
    assert "slice user_events=0..1: no example of test is in it" in done.output
    low, high = red["intervals"]["log_loss"]
    assert low < red["metrics"]["log_loss"] < high
    assert f"{red['metrics']['log_loss']:.4f} ±{(high - low) / 2:.4f}" in done.output
    kept = json.loads((run / "metrics.json").read_text())["test"]
    assert kept["wide_deep"]["bought"] == whole["metrics"]

    loaded = Run.load(run)
    measuring = Evaluator(loaded.config.data, loaded.features, "test")
    ((inputs, labels, _, keys),) = measuring.read()
    scores = measuring.scorer(loaded.best_model())(inputs, keys)["bought"]
    expected = log_loss(labels["bought"].numpy()[reds], scores[reds].astype(np.float64))
    assert red["metrics"]["log_loss"] == pytest.approx(expected)
