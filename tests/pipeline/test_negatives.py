"""Negatives of data of positive events: what is drawn, and what learns of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.ingest import Ingest
from pipeline.negatives import Sampler
from pipeline.workspace import Workspace
from tests.pipeline import shop
from tests.support import start
from tfrec.features import SPLITS, Features
from tfrec.strict import UserError

FEATURES: dict[str, Any] = {
    "user": {"kind": "category", "role": "user"},
    "item": {"kind": "category", "role": "item"},
    "genres": {"kind": "category", "role": "item", "separator": "|"},
    "price": {"kind": "number", "role": "item", "normalise": "none"},
    "device": {"kind": "category", "role": "context"},
}
EACH = 3


def declare(path: str, **blocks: Any) -> Any:
    values: dict[str, Any] = {
        "user": "user", "item": "item", "time": "time", "features": FEATURES, "labels": None,
        "histories": {"seen": {"length": 4, "features": ["item"]}},
        "negatives": {"per_positive": EACH}, "split": {"kind": "user_time"}, "shards": 2,
    }  # fmt: skip
    return shop.tiny(path, **{**values, **blocks})


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> tuple[Path, list[shop.Row]]:
    folder = tmp_path_factory.mktemp("negatives")
    rows = shop.events()
    shop.prepare(declare(shop.write_csv(rows, folder / "e.csv")), folder / "out")
    return folder / "out" / "transform", rows


def raw(data: Path, split: str) -> list[dict[str, Any]]:
    """Raw examples of a split."""
    table = pq.read_table(data.parent / "ingest" / "examples" / split)
    return [{k: v[0] if len(v) == 1 and k != "seen_item" else v for k, v in row.items()}
            for row in table.to_pylist()]  # fmt: skip


def test_events_and_negatives_are_counted(made: tuple[Path, list[shop.Row]]) -> None:
    data, rows = made
    report = json.loads((data / "report.json").read_text())
    events = report["events"]
    assert sum(events.values()) == report["rows_read"] == len(rows)
    assert report["negatives"] == EACH * len(rows)
    assert report["examples"] == {split: (1 + EACH) * n for split, n in events.items()}
    ingest = Ingest(declare("nowhere.csv"), Workspace(Path()), PipelineOptions([]))
    assert ingest.told(report)[0].startswith(
        "288 rows; train 216, validation 24, test 48; with 864 negatives: train 864, "
    )


def test_what_is_drawn(made: tuple[Path, list[shop.Row]]) -> None:
    """Items that the user has in no split, with their own columns and the event's others."""
    data, rows = made
    own: dict[str, set[str]] = {}
    details: dict[str, Any] = {}
    for row in rows:
        own.setdefault(row["user"], set()).add(row["item"])
        details[row["item"]] = row
    events = {(row["user"], row["item"]): row for row in rows}
    trained = {e["item"] for e in raw(data, "train") if e["label:positive"] == 1}
    for split in SPLITS:
        examples = raw(data, split)
        positives = [e for e in examples if e["label:positive"] == 1]
        negatives = [e for e in examples if e["label:positive"] == 0]
        assert len(negatives) == EACH * len(positives)
        by_time = {(e["key:user"], e["key:time"], e["device"]): e for e in positives}
        for example in positives:
            assert (example["user"].decode(), example["item"].decode()) in events
        drawn = Counter((e["user"], e["item"], e["key:time"], e["device"]) for e in negatives)
        for example in negatives:
            user, item = example["user"].decode(), example["item"].decode()
            assert item not in own[user]
            assert example["item"] in trained
            assert example["key:item"] == example["item"]
            assert example["genres"].decode() == "|".join(details[item]["genres"])
            price = details[item]["price"]
            assert example["price"] == pytest.approx(float("nan") if price is None else price,
                                                     nan_ok=True)  # fmt: skip
            positive = by_time[example["key:user"], example["key:time"], example["device"]]
            assert positive["seen_item"] == example["seen_item"]
        assert drawn


def test_only_events_are_learned_from(made: tuple[Path, list[shop.Row]]) -> None:
    """Vocabularies count them alone, and they alone are interactions."""
    data, rows = made
    events = [e for e in raw(data, "train") if e["label:positive"] == 1]
    counts = Counter(example["item"].decode() for example in events)
    for _, count, value in shop.vocabulary(data, "item")[1:-1]:
        assert count == counts[value]
    assert len(shop.interactions(data, SPLITS)) == len(rows)
    features = Features.load(data)
    assert [(label.name, label.task) for label in features.labels] == [("positive", "binary")]
    assert features.counts["train"] == (1 + EACH) * len(events)


def test_another_order_of_the_source(made: tuple[Path, list[shop.Row]], tmp_path: Path) -> None:
    data, rows = made
    shuffled = random.Random(3).sample(rows, len(rows))
    shop.prepare(declare(shop.write_csv(shuffled, tmp_path / "e.csv")), tmp_path / "out")
    again = tmp_path / "out" / "transform"
    assert shop.shards(again, *SPLITS) == shop.shards(data, *SPLITS)
    assert Features.load(again).fingerprint == Features.load(data).fingerprint


@pytest.mark.parametrize("model", ["lr", "two_tower"])
def test_models_learn_of_it(made: tuple[Path, list[shop.Row]], model: str, tmp_path: Path) -> None:
    """Of rankings by the negatives, of retrieval by the positives alone."""
    command = ["--data", str(made[0]), "--model", model, "--output", str(tmp_path / "run")]
    result = start(*command, "--set", "epochs=1", "--set", "batch_size=64", "--no-export")
    assert result.exit_code == 0, result.output


def items(count: int) -> list[Any]:
    return [(f"i{i}", i + 1, (f"i{i}",)) for i in range(count)]


def drawn(sampler: Sampler, own: set[str], times: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for time in range(times):
        names = [item[0] for item in sampler.draw((None, time), own)]
        assert len(set(names)) == len(names)
        found.update(names)
    return found


@pytest.mark.parametrize("by_popularity", [False, True])
def test_shares(by_popularity: bool) -> None:
    """Each as likely, or in proportion to the events; the user's own never."""
    sampler = Sampler(items(10), 1, by_popularity, seed=1)
    found = drawn(sampler, {"i0", "i9"}, 20_000)
    weights = np.arange(2, 10) if by_popularity else np.ones(8)
    expected = 20_000 * weights / weights.sum()
    assert "i0" not in found
    assert "i9" not in found
    assert [found[f"i{i}"] for i in range(1, 9)] == pytest.approx(expected, rel=0.1)


def test_a_user_with_nearly_all_items() -> None:
    sampler = Sampler(items(1_000), 4, True, seed=1)
    own = {f"i{i}" for i in range(1_000) if i not in (3, 5, 7)}
    assert set(drawn(sampler, own, 3)) == {"i3", "i5", "i7"}
    assert not drawn(sampler, own | {"i3", "i5", "i7"}, 3)
    assert not drawn(Sampler([], 4, False, seed=1), set(), 1)


def test_the_seed() -> None:
    samplers = [Sampler(items(1_000), 9, False, seed) for seed in (1, 1, 2)]
    first, again, other = (sampler.draw((1,), set()) for sampler in samplers)
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"item": None, "histories": None}, "negatives: need 'item'"),
        ({"labels": {"like": {"column": "rating"}}}, "negatives: .* leave one of the two out"),
        ({"examples": "sequences"}, "negatives: models of sequences draw their own"),
        ({"negatives": {"per_positive": 0}}, "negatives.per_positive: "),
        ({"negatives": {"per_positive": 1, "label": "user"}}, "both a feature and a label"),
    ],
)
def test_what_does_not_fit(blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        declare("e.csv", **blocks)
