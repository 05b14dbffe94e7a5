"""Negatives for data of positive events: items that a user does not have."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from pipeline.declaration import Declaration
from pipeline.events import Layout
from tfrec.features import LABEL_PREFIX

Event = tuple[Any, ...]  # (given split, *columns of the parsed batch)
Item = tuple[str, int, tuple[Any, ...]]  # key, training events, columns by the newest of them

_ATTEMPTS = 20  # before all items are gone through, since the user has most of them


class CountItems(beam.CombineFn):
    """Combines ((time, order), columns) of an item's training events to their count and newest."""

    def create_accumulator(self) -> tuple[int, Any]:
        return 0, None

    def add_input(self, accumulator: tuple[int, Any], event: Any) -> tuple[int, Any]:
        return self.merge_accumulators([accumulator, (1, event)])

    def merge_accumulators(self, accumulators: Iterable[tuple[int, Any]]) -> tuple[int, Any]:
        counts, newest = zip(*accumulators, strict=True)
        return sum(counts), max((event for event in newest if event is not None), default=None)

    def extract_output(self, accumulator: tuple[int, Any]) -> tuple[int, tuple[Any, ...]]:
        count, newest = accumulator
        return count, newest[1]


class ItemColumns:
    """Which columns of an event tell its item, and which the label.

    Args:
        declaration: of the data set, with `negatives`.
    """

    def __init__(self, declaration: Declaration) -> None:
        negatives, item = declaration.negatives, declaration.item
        assert negatives and item
        layout = Layout.of(declaration)
        names = [None, *layout.types, *(LABEL_PREFIX + label for label in layout.labels)]
        of_items = [n for n, feature in declaration.features.items() if feature.role == "item"]
        columns = dict.fromkeys([item, *map(declaration.column, of_items)])
        self.item = names.index(item)
        self.time = names.index(declaration.time) if declaration.time else None
        self.label = names.index(LABEL_PREFIX + negatives.label)
        self.positions = [names.index(column) for column in columns]

    def described(self, event: Event) -> tuple[str, Any]:
        """(item, ((time, order among equal times), columns)) of an event."""
        values = tuple(event[position] for position in self.positions)
        time = event[self.time] if self.time is not None else 0
        return event[self.item], ((time, repr(values)), values)

    def negative(self, event: Event, item: Item) -> Event:
        """The same event with another item, and the label 0."""
        changed = list(event)
        for position, value in zip(self.positions, item[2], strict=True):
            changed[position] = value
        changed[self.label] = 0.0
        return tuple(changed)


class Sampler:
    """Draws items that a user does not have, the same ones whatever the runner.

    Args:
        items: that can be drawn.
        per_positive: how many for an event.
        by_popularity: in proportion to the training events of an item, or each as likely.
        seed: of the draws.
    """

    def __init__(
        self, items: Sequence[Item], per_positive: int, by_popularity: bool, seed: int
    ) -> None:
        self.items = sorted(items)
        self.keys = [item[0] for item in self.items]
        weights = [item[1] if by_popularity else 1 for item in self.items]
        self.weights = np.array(weights, np.int64)
        self.ends = np.cumsum(self.weights)
        self.per_positive, self.seed = per_positive, seed

    def draw(self, event: Event, own: set[str]) -> list[Item]:
        """Different items for an event; fewer where the user has nearly all.

        Args:
            event: which decides the draw, together with the seed.
            own: keys of the user's items, in any split.
        """
        if not self.keys:
            return []
        rng = np.random.default_rng([self.seed, zlib.crc32(repr(event).encode())])
        found: dict[int, None] = {}
        for _ in range(_ATTEMPTS):
            drawn = rng.integers(self.ends[-1], size=2 * self.per_positive)
            for place in np.searchsorted(self.ends, drawn, side="right").tolist():
                if self.keys[place] not in own:
                    found[place] = None
                if len(found) == self.per_positive:
                    return [self.items[place] for place in found]
        # Efraimidis & Spirakis 2006: the least of exponential times are a weighted sample.
        times = rng.exponential(size=len(self.keys)) / self.weights
        left = (p for p in np.argsort(times).tolist() if p not in found and self.keys[p] not in own)
        found |= dict.fromkeys(left)
        return [self.items[place] for place in list(found)[: self.per_positive]]
