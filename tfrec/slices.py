"""Parts of a split that are measured by themselves, such as new users or a genre.

- `FEATURE`: every value of a category, by its name; quarters of a number;
- `FEATURE=VALUE`, or `FEATURE=LOW..HIGH` of a number, as the model reads it: one part;
- `user_events`, `item_count`: by how many training events the user or the item has, in powers of
  ten; `user_events=0..4` for one part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.baselines import BATCH_SIZE
from tfrec.catalogue import vocabulary
from tfrec.data import evaluation_batches
from tfrec.features import Feature, Features
from tfrec.interactions import interactions
from tfrec.metrics import Array
from tfrec.strict import UserError, nearest

MOST = 20  # values of a category, those with most training events
COUNTS = {"user_events": "user", "item_count": "item"}  # and whose training events they count
_POWERS = ((0, 0), (1, 9), (10, 99), (100, 999), (1_000, 9_999), (10_000, np.inf))

_Member = Callable[[dict[str, Any], dict[str, Any]], Array]


class Slices:
    """Which parts an example is in.

    Args:
        wanted: as the user names them; a part that is there already is passed over.
        directory: of the data set, for its vocabularies and its training events.
        features: of the data set.
        split: that is measured on.

    Attributes:
        names: of the parts.

    Raises:
        UserError: a feature or a value that the data set does not have.
    """

    def __init__(
        self,
        wanted: Iterable[str],
        directory: str | Path,
        features: Features,
        split: str,
    ) -> None:
        self.directory, self.features, self.split = directory, features, split
        self.names: list[str] = []
        self._members: list[_Member] = []
        for text in wanted:
            name, equals, value = text.partition("=")
            parts, member = self._parts(name, value if equals else None)
            named = [f"{name}={part}" for part in parts]
            new = [place for place, part in enumerate(named) if part not in self.names]
            self.names += [named[place] for place in new]
            self._members.append(_some(member, new))

    def member(self, inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
        """Which parts examples are in.

        Args:
            inputs: of the model, by feature.
            keys: `user` and `item`.

        Returns:
            (n, parts) bool.
        """
        return np.concatenate([member(inputs, keys) for member in self._members], axis=1)

    def _parts(self, name: str, value: str | None) -> tuple[list[str], _Member]:
        if name in COUNTS:
            return self._by_count(name, value)
        known = {feature.name: feature for feature in self.features.features}
        if name not in known:
            raise UserError(f"slice: no feature {name!r}{nearest(name, [*known, *COUNTS])}")
        feature = known[name]
        if feature.kind == "number" and feature.length:
            raise UserError(f"slice: {name} has many numbers in an example, and so no parts")
        if feature.kind == "number":
            return self._by_number(feature, value)
        return self._by_value(feature, value)

    def _by_count(self, name: str, value: str | None) -> tuple[list[str], _Member]:
        key = COUNTS[name]
        users_and_items = interactions(self.directory, ("train",))
        counts = Counter(k.strip() for k in users_and_items[list(COUNTS.values()).index(key)])
        ranges = _ranges(name, value, {_shown(*pair): pair for pair in _POWERS})

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            found = [counts[k.decode().strip()] for k in keys[key].numpy()]
            return _within(np.array(found), ranges.values())

        return list(ranges), member

    def _by_number(self, feature: Feature, value: str | None) -> tuple[list[str], _Member]:
        # Of the first examples, which are stored in random order.
        batches = evaluation_batches(self.directory, self.features, self.split, BATCH_SIZE)
        known = next(iter(batches))[0][feature.name].numpy()
        ranges = _ranges(feature.name, value, _quarters(known[np.isfinite(known)]))

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            return _within(np.asarray(inputs[feature.name]), ranges.values())

        return list(ranges), member

    def _by_value(self, feature: Feature, value: str | None) -> tuple[list[str], _Member]:
        table = self.features.table(feature.table)
        values, counts = vocabulary(self.directory, table)
        ids = np.arange(1, 1 + len(values))
        if not table.learned:
            values = np.array([f"bucket {n} of {len(values)}" for n in ids], object)
        if value is not None and len(found := ids[values == value]):
            return [value], lambda inputs, keys: _any(inputs[feature.name], found)
        chosen = np.sort(ids[np.argsort(-counts, kind="stable")[:MOST]])
        others, unknown, none = (_new(name, values) for name in ("(others)", "(unknown)", "(none)"))
        # Ids to the number of the part: those that are looked at, others, unknown ones, none.
        names = [*values[chosen - 1], others, unknown, none]
        place = np.full(table.size, len(chosen) + 1)
        place[0] = len(chosen) + 2
        place[ids] = len(chosen)
        place[chosen] = np.arange(len(chosen))
        parts = list(range(len(chosen)))
        parts += [len(chosen)] * (len(chosen) < len(values))
        parts += [len(chosen) + 1] * (table.oov > 0) + [len(chosen) + 2]

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            of_example = _rows(inputs[feature.name])
            found = np.zeros((len(of_example), len(names)), bool)
            found[np.arange(len(of_example))[:, np.newaxis], place[of_example]] = True
            found[:, -1] = (of_example == 0).all(axis=1)  # padding beside values is none of them
            return found[:, parts]

        named = [names[part] for part in parts]
        if value is None:
            return named, member
        if value not in named:
            near = nearest(value, values[:10_000])
            raise UserError(f"slice: {feature.name} has no value {value!r}{near}")
        return [value], _some(member, [named.index(value)])


def _some(member: _Member, places: list[int]) -> _Member:
    """Of some parts alone."""
    return lambda inputs, keys: member(inputs, keys)[:, places]


def _rows(ids: Any) -> Array:
    """(n, values) all ids of each example."""
    found = np.asarray(ids)
    return found.reshape(len(found), math.prod(found.shape[1:]))


def _any(ids: Any, wanted: Array) -> Array:
    """(n, 1) whether examples have one of the ids."""
    return np.isin(_rows(ids), wanted).any(axis=1, keepdims=True)


def _new(name: str, values: Array) -> str:
    """The name of a part that is no value, and that no value has."""
    while (values == name).any():
        name = f"({name})"
    return name


def _quarters(known: Array) -> dict[str, tuple[float, float]]:
    """Ranges of about equal counts by name; fewer than four where many values are equal."""
    if not len(known):
        return {}
    edges = np.unique(np.quantile(known, [0.25, 0.5, 0.75], method="higher"))
    lows, highs = [-np.inf, *edges], [*np.nextafter(edges, -np.inf), np.inf]
    digits = next(d for d in range(4, 18) if len({f"{e:.{d}g}" for e in edges}) == len(edges))
    shown = [f"{edge:.{digits}g}" for edge in edges]
    names = [f"below {shown[0]}", *(f"from {edge}" for edge in shown)]
    return dict(zip(names, zip(lows, highs, strict=True), strict=True))


def _within(values: Array, ranges: Iterable[tuple[float, float]]) -> Array:
    """(n, ranges) whether values are in each; both ends belong to it."""
    return np.stack([(low <= values) & (values <= high) for low, high in ranges], axis=1)


def _ranges(
    name: str, value: str | None, named: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Those with names, or the one that is asked for: by its name, or as LOW..HIGH."""
    if value is None:
        return named
    return {value: named[value] if value in named else _range(name, value)}


def _range(name: str, text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        if not dots:
            return float(low), float(low)
        return float(low or -np.inf), float(high or np.inf)
    except ValueError:
        raise UserError(
            f"slice {name}={text}: {name} is a number; expected LOW..HIGH, such as "
            f"{name}=0..10, {name}=..10 or {name}=10.."
        ) from None


def _shown(low: float, high: float) -> str:
    if low == high:
        return f"{low:,}"
    return f"{low:,}–{high:,}" if np.isfinite(high) else f"{low:,} or more"
