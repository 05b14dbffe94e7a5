"""What the ids of buckets and hashes stand for: their transform is asked, which no table tells."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.catalogue import raw_rows
from tfrec.data import load_transform, pad
from tfrec.features import Column, Feature, Features, Table
from tfrec.metrics import Array

# Times that edges are looked for between: weeks apart, so that hours and weekdays are equal there.
_TIMES = (0, 10_000 * 604_800)


class Buckets:
    """Names of the ids of a feature without a vocabulary, and the ids of raw values.

    Args:
        directory: of the data set.
        features: of it.
        feature: a field of the example, not of a history, and no cross.

    Attributes:
        hashed: whether they are ids by hash of a text.
        edges: (n − 1,) where the buckets of a number begin, from the second one on; None where ids
            do not rise with the values, as those of hashes.
        names: (n,) of ids 1…n: `below 8.99`, `8.99 to below 15.2`, `from 15.2`; `bucket 1 of 5`
            without edges.
    """

    def __init__(self, directory: str | Path, features: Features, feature: Feature) -> None:
        self._features, self._feature = features, feature
        self._transform = load_transform(directory)
        self._table: Table = features.table(feature.table)
        columns = {column.name: column for column in features.columns}
        self._column: Column = columns[str(feature.column)]
        self.hashed = self._column.dtype == "string"
        self.edges = None if self.hashed else self._found_edges()
        self.names = np.array(self._named(), object)

    def ids(self, values: Any) -> Array:
        """Ids of raw values; 0 of missing ones.

        Args:
            values: (n,) of the feature's raw column.

        Returns:
            (n,), or (n, length) of a feature with many values.
        """
        raw = raw_rows(self._features, {self._column.name: np.asarray(values)}, len(values))
        inputs = pad(self._features, self._transform.transform_fn(raw))
        found: Array = inputs[self._feature.name].numpy()
        return found

    def between(self, low: float, high: float) -> Array:
        """Ids of the buckets that hold some of a range."""
        assert self.edges is not None
        ends = np.array([low, high], self.edges.dtype)  # a float32 can be more than its text
        first, last = np.searchsorted(self.edges, ends, side="right")
        return np.arange(first + 1, last + 2)

    def told(self, ids: Array) -> str:
        """What buckets beside each other hold together."""
        if self.edges is None:
            return ", ".join(self.names[ids - 1])
        return _named(*np.array([-np.inf, *self.edges, np.inf])[[ids[0] - 1, ids[-1]]])

    def _found_edges(self) -> Array | None:
        """By bisection between all values that there are, in as many steps as a float has bits."""
        real = self._column.dtype == "float32"
        ends = np.array([-_ordered(_MOST), _ordered(_MOST)] if real else _TIMES)
        value = _from_ordered if real else np.asarray
        lowest, highest = self.ids(value(ends))
        if lowest >= highest:
            return None
        wanted = np.arange(2, self._table.vocabulary + 1)
        low, high = np.full(len(wanted), ends[0]), np.full(len(wanted), ends[1])
        while (high - low > 1).any():
            middle = (low + high) // 2
            above = self.ids(value(middle)) >= wanted
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.where(wanted > highest, np.inf, value(high))

    def _named(self) -> list[str]:
        size = self._table.vocabulary
        if self.edges is None:
            return [f"bucket {n} of {size}" for n in range(1, size + 1)]
        ends = [-np.inf, *self.edges, np.inf]
        return [_named(low, high) for low, high in itertools.pairwise(ends)]


_MOST = np.finfo(np.float32).max


def _ordered(value: Any) -> int:
    """A positive float's place among all of them; that of a negative one is less than 0."""
    return int(np.float32(value).view(np.int32))


def _from_ordered(places: Array) -> Array:
    """float32 of each place."""
    positive = np.abs(places).astype(np.int32).view(np.float32)
    return np.where(places < 0, -positive, positive)


def _named(low: float, high: float) -> str:
    if np.isinf(low):
        return f"below {_text(high)}" if np.isfinite(high) else "any"
    return f"from {_text(low)}" if np.isinf(high) else f"{_text(low)} to below {_text(high)}"


def _text(value: float) -> str:
    return np.format_float_positional(np.float32(value), trim="-")
