"""What a sample of a raw column looks like, to people and to `init`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.events import flat, has_lists, is_list, iso_8601, numbers_of, strings_of

SEPARATORS = ("|", ";", ",", " ")
MOST_TOKENS = 20  # of a value that is a list, on average
SECONDS = (1e8, 4e9)  # 1973 to 2096
UNITS = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}  # in a second


@dataclass(frozen=True)
class Profile:
    """A raw column.

    Attributes:
        name: of the column.
        texts: its values as text, "" where missing, in the order of the rows.
        counts: how often each value occurs, without the missing ones.
        numbers: its values as numbers, without the missing ones; None unless all are numbers.
        times: they are seconds since 1970 or ISO 8601.
        unit: they look like as many milliseconds, or another of `UNITS`, since 1970.
        separator: between the values of a list, if it looks like one.
    """

    name: str
    texts: list[str]
    counts: Counter[str]
    numbers: np.ndarray | None
    times: bool
    unit: str | None
    separator: str | None

    @classmethod
    def of(cls, name: str, values: pa.ChunkedArray) -> Profile:
        """Profile of a sample's column.

        Raises:
            pyarrow.ArrowException: its type is one that no feature can be made of.
        """
        column = values.combine_chunks()
        if is_list(column) and not has_lists(column):
            column = flat(column)  # a tf.Example has lists of one value
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        separator = joint(column) if pa.types.is_nested(column.type) else None
        texts = [text.strip() for text in strings_of(column, separator or "|").to_pylist()]
        counts = Counter(filter(None, texts))
        numbers = _as_numbers(column, separator)
        low, high = (numbers.min(), numbers.max()) if numbers is not None else (0, 0)
        whole = numbers is not None and bool((numbers == np.floor(numbers)).all())
        dates = numbers is None and bool(counts) and all(map(_is_date, list(counts)[:1000]))
        return cls(
            name,
            texts,
            counts,
            numbers,
            dates or SECONDS[0] <= low <= high <= SECONDS[1],
            unit_of(low, high) if whole else None,
            separator or (_separator(counts) if numbers is None and not dates else None),
        )

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return len(self.texts) - self.counts.total()

    @property
    def binary(self) -> bool:
        """Whether its values are 0 and 1, or false and true."""
        if self.numbers is None:
            return {text.lower() for text in self.counts} == {"false", "true"}
        return set(np.unique(self.numbers)) == {0, 1}


def unit_of(low: float, high: float) -> str | None:
    """The unit in which both are times since 1970, if it is one of `UNITS`."""
    fits = (u for u, n in UNITS.items() if n * SECONDS[0] <= low and high <= n * SECONDS[1])
    return next(fits, None)


def joint(lists: pa.Array) -> str:
    """A separator that is in no value of the lists."""
    values = strings_of(pc.list_flatten(lists), "|")
    free = (s for s in SEPARATORS if not pc.any(pc.match_substring(values, s)).as_py())
    return next(free, SEPARATORS[0])


def _as_numbers(column: pa.Array, separator: str | None) -> np.ndarray | None:
    """Float64, since float32 holds no seconds; None where a value is no number."""
    if separator or pa.types.is_temporal(column.type):
        return None
    _, bad = numbers_of(column)
    if any(bad.to_pylist()):
        return None
    values = [float(text) for text in strings_of(column, "|").to_pylist() if text.strip()]
    return np.array(values) if values else None


def _is_date(text: str) -> bool:
    return bool(re.match(r"\d{4}-\d\d", text)) and iso_8601(text) is not None


def _separator(counts: Counter[str]) -> str | None:
    """What separates the values of a list: few values that come again in many combinations."""
    for separator in SEPARATORS:
        several = [text for text in counts if separator in text]
        tokens = [token for text in several for token in text.split(separator)]
        if (
            len(several) > 0.2 * len(counts)
            and len(tokens) <= MOST_TOKENS * len(several)
            and len(set(tokens)) < 0.5 * len(several)
        ):
            return separator
    return None
