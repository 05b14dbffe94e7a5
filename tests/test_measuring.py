"""From examples to figures, where nobody tells which examples belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import FEATURES, batch, tensors
from tfrec.figures import Report
from tfrec.measuring import Measuring

COUNT = 600
INPUTS = batch(COUNT)
LABELS = np.random.default_rng(1).integers(0, 2, COUNT).astype(np.float32)
ITEMS = np.array([f"i{n % 7}".encode() for n in range(COUNT)])


class Stored(Measuring):
    """Examples in some order, read some at a time."""

    def __init__(self, order: Any, size: int, labels: Any = LABELS) -> None:
        super().__init__("", dataclasses.replace(FEATURES, counts={"test": len(order)}), "test")
        self.order, self.size, self.labels = order, size, labels

    def read(self) -> Iterator[Any]:
        for start in range(0, len(self.order), self.size):
            some = self.order[start : start + self.size]
            inputs = {name: values[some] for name, values in INPUTS.items()}
            keys = {"item": ITEMS[some], "time": np.zeros(len(some), np.int64)}
            yield (
                tensors(inputs),
                tensors({"like": self.labels[some]}),
                *tensors({"w": np.ones(len(some), np.float32)}).values(),
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


def test_examples_that_are_equal_in_all_stand_for_themselves() -> None:
    """Ten copies of each of a few are as many as they are: the interval tells so."""
    copies = np.tile(np.arange(60), 10)
    (low, high) = measured(Stored(copies, 250)).records[0]["intervals"]["log_loss"]
    few = measured(Stored(np.arange(60), 250)).records[0]["intervals"]["log_loss"]
    assert high - low == pytest.approx((few[1] - few[0]) / 10**0.5, rel=0.25)
