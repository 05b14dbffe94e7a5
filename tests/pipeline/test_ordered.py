"""Events of users who have more of them than memory holds."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline import examples, histories
from pipeline.examples import MakeExamples
from pipeline.ordered import Ordered
from tests.pipeline import shop


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_order(count: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Any number of times; equal ones as they came; nothing is left on disk."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chance = random.Random(count)
    events = [(chance.randrange(5), index) for index in range(count)]
    found = Ordered(iter(events), key=lambda event: event[0], most=8)
    assert len(found) == count
    for _ in range(2):
        assert list(found) == sorted(events, key=lambda event: event[0])
    assert len(list(tmp_path.rglob("*"))) == (0 if count < 9 else 1 + count // 9)
    del found
    assert not list(tmp_path.iterdir())


USER_OF_MANY = [
    {"user": "u", "item": f"i{i % 23}", "time": i // 3, "rating": i % 5 + 1} for i in range(400)
]


@pytest.mark.parametrize(
    "blocks",
    [
        {"time": "time", "split": {"kind": "user_time"}},
        {"time": "time", "split": {"kind": "leave_one_out"}},
        {"time": "time", "split": {"kind": "random", "by": "item"}},
        {"time": "time", "split": {"kind": "leave_one_out"}, "examples": "sequences"},
        {"split": {"kind": "random", "by": "item"}},
    ],
    ids=str,
)
def test_examples_are_the_same(blocks: dict[str, Any], monkeypatch: Any) -> None:
    """As those of events that are all in memory."""
    declaration = shop.tiny(
        "nowhere.csv", user="user", item="item",
        histories={"seen": {"length": 5, "features": ["item"], "where": "like"}}, **blocks,
    )  # fmt: skip
    expected = made(declaration)
    few = functools.partial(Ordered, most=20)
    monkeypatch.setattr(examples, "Ordered", few)
    monkeypatch.setattr(histories, "Ordered", few)
    assert made(declaration) == expected
    assert sum(map(len, expected.values())) >= 400
    assert any(row["seen_item"] for rows in expected.values() for row in rows)


def made(declaration: Any) -> dict[str, list[Any]]:
    """Examples by output, in order."""
    names = [*examples.Layout.of(declaration).types]
    rows = [
        (None, *(float(r[n]) if n == "rating" else r[n] for n in names), float(r["rating"] >= 4))
        for r in random.Random(1).sample(USER_OF_MANY, len(USER_OF_MANY))
    ]
    maker = MakeExamples(declaration)
    maker.start_bundle()
    found: dict[str, list[Any]] = {}
    for output in [*maker.process(rows, None), *maker.finish_bundle()]:
        tagged = getattr(output, "value", output)
        tag = output.tag if hasattr(output, "tag") else None
        batch = getattr(tagged, "value", tagged)
        found.setdefault(str(tag), []).extend(batch.to_pylist())
    return found
