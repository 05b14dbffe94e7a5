"""From examples to figures, where nobody tells which examples belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import FEATURES, batch, tensors
from tfrec.figures import Report, aligned
from tfrec.measuring import Measuring

COUNT = 600
INPUTS = batch(COUNT)
LABELS = np.random.default_rng(1).integers(0, 2, COUNT).astype(np.float32)
ITEMS = np.array([f"i{n % 7}".encode() for n in range(COUNT)])


class Stored(Measuring):
    """Examples in some order, read some at a time."""

    def __init__(self, order: Any, size: int, labels: Any = LABELS, weights: Any = None) -> None:
        counts, weighted = {"test": len(order)}, weights is not None
        features = dataclasses.replace(FEATURES, counts=counts, weighted=weighted)
        super().__init__("", features, "test")
        self.order, self.size, self.labels = order, size, labels
        self.weights = weights if weighted else np.ones(len(order), np.float32)

    def read(self) -> Iterator[Any]:
        for start in range(0, len(self.order), self.size):
            some = self.order[start : start + self.size]
            inputs = {name: values[some] for name, values in INPUTS.items()}
            keys = {"item": ITEMS[some], "time": np.zeros(len(some), np.int64)}
            yield (
                tensors(inputs),
                tensors({"like": self.labels[some]}),
                *tensors({"w": self.weights[start : start + self.size]}).values(),
                tensors(keys),
            )


def measured(stored: Stored) -> Report:
    def score(inputs: Any, keys: Any) -> Any:
        return {"like": 1 / (1 + np.exp(-inputs["age"].numpy()))}

    return stored.measured("model", score, replicates=200, alone=True)


def test_the_order_of_the_examples_does_not_matter() -> None:
    """A run and its export read other stores, and are the same examples all the same."""
    order = np.arange(COUNT)
    first = measured(Stored(order, 250))
    second = measured(Stored(np.random.default_rng(2).permutation(order), 90))
    assert first.digests == second.digests
    for name, values in first.records[0]["replicates"].items():
        assert second.records[0]["replicates"][name] == pytest.approx(values, rel=1e-5), name
    others = measured(Stored(order, 250, 1 - LABELS))
    assert first.digests != others.digests


def test_examples_that_differ_by_their_weight_alone_are_told_apart() -> None:
    """Else a run and its export, which read other stores, would not be paired."""
    order = np.tile(np.arange(60), 10)
    weights = np.random.default_rng(3).exponential(size=COUNT).astype(np.float32)
    shuffled = np.random.default_rng(2).permutation(COUNT)
    first, second = (
        measured(Stored(order[places], 250, weights=weights[places])).records[0]["replicates"]
        for places in (np.arange(COUNT), shuffled)
    )
    for name, values in first.items():
        assert second[name] == pytest.approx(values, rel=1e-5), name


def test_examples_that_are_equal_in_all_stand_for_themselves() -> None:
    """Ten copies of each of a few are as many as they are: the interval tells so."""
    copies = np.tile(np.arange(60), 10)
    (low, high) = measured(Stored(copies, 250)).records[0]["intervals"]["log_loss"]
    few = measured(Stored(np.arange(60), 250)).records[0]["intervals"]["log_loss"]
    assert high - low == pytest.approx((few[1] - few[0]) / 10**0.5, rel=0.25)


def test_tables_tell_the_curve_and_what_intervals_are_over_and_align_wide_characters() -> None:
    text = measured(Stored(np.arange(COUNT), 250)).text()
    assert "model, ± 95% over examples" in text
    curve = measured(Stored(np.arange(COUNT), 250)).records[0]["curve"]
    told = [line.split() for line in text.split("model, reliability")[1].splitlines()]
    assert [c for words in told if words[0] == "observed" for c in words[1:]] == [
        f"{found['observed']:.4f}" for found in curve
    ]
    lines = aligned([["part", "count"], ["日本語", "10"], ["plain", "7"]])
    assert lines == ["part    count", "日本語     10", "plain       7"]
