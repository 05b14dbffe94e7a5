"""Parts of a split that are measured by themselves, such as new users or a genre.

- `FEATURE`: every value of a category, by its name; every bucket; quarters of a number;
- `FEATURE=VALUE`, or `FEATURE=LOW..HIGH` of a number, as the model reads it: one part;
- `FEATURE=VALUE`, or `FEATURE=LOW..HIGH`, of buckets, as they were before: those that hold them;
- `HISTORY`: quarters by the number of events in it; `HISTORY=LOW..HIGH` for one part;
- `CROSS=VALUE&VALUE`: a value of each feature that it is made of;
- `user_events`, `item_count`: by how many training events the user or the item has, in powers of
  ten; `user_events=0..4` for one part.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.baselines import BATCH_SIZE
from tfrec.buckets import Buckets
from tfrec.catalogue import vocabulary
from tfrec.data import evaluation_batches
from tfrec.features import Feature, Features, History
from tfrec.figures import asked_for
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
        self._known_buckets: dict[str, Buckets] = {}
        for text in wanted:
            name, equals, value = text.partition("=")
            parts, member = self._parts(name, value if equals else None)
            new = []
            for place, part in enumerate(parts):
                if f"{name}={part}" not in self.names:
                    self.names.append(f"{name}={part}")
                    new.append(place)
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
        histories = {history.name: history for history in self.features.histories}
        if name in histories:
            return self._by_history(histories[name], value)
        fields = (*self.features.features, *self.features.crosses)
        steps = {step.name: step for history in histories.values() for step in history.features}
        known = {feature.name: feature for feature in fields} | steps
        if name not in known:
            near = nearest(name, sliceable(self.features))
            raise UserError(f"slice: no feature {name!r}{near}")
        feature = known[name]
        many = feature.length or name in steps
        if feature.is_gap or (feature.kind == "number" and many):
            raise UserError(f"slice: {name} has many numbers in an example, and so no parts")
        if feature.kind == "number":
            return self._by_number(feature, value)
        return (self._by_cross if feature.parts else self._by_value)(feature, value)

    @functools.cached_property
    def _first(self) -> dict[str, Array]:
        """Inputs of the first examples, which are stored in random order."""
        batches = evaluation_batches(self.directory, self.features, self.split, BATCH_SIZE)
        return {name: values.numpy() for name, values in next(iter(batches))[0].items()}

    def _by_count(self, name: str, value: str | None) -> tuple[list[str], _Member]:
        key, counts = COUNTS[name], Counter[str]()
        for users, items in interactions(self.directory, ("train",)):
            counts.update(users if key == "user" else items)
        ranges = _ranges(name, value, {_shown(*pair): pair for pair in _POWERS})

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            found = [counts[k.decode()] for k in keys[key].numpy()]
            return _within(np.array(found), ranges.values())

        return list(ranges), member

    def _by_number(self, feature: Feature, value: str | None) -> tuple[list[str], _Member]:
        known = self._first[feature.name]
        ranges = _ranges(feature.name, value, _quarters(known[np.isfinite(known)]))

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            return _within(np.asarray(inputs[feature.name]), ranges.values())

        return list(ranges), member

    def _by_history(self, history: History, value: str | None) -> tuple[list[str], _Member]:
        mask = history.mask_feature.name
        ranges = _ranges(history.name, value, _quarters((self._first[mask] != 0).sum(axis=1)))

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            return _within((np.asarray(inputs[mask]) != 0).sum(axis=1), ranges.values())

        return list(ranges), member

    def _by_cross(self, cross: Feature, value: str | None) -> tuple[list[str], _Member]:
        values = (value or "").split("&")
        if value is None or len(values) != len(cross.parts):
            raise UserError(
                f"slice: {cross.name} needs a value of each of {', '.join(cross.parts)}, such as "
                f"{cross.name}={'&'.join('ABCDEFGH'[: len(cross.parts)])}"
            )
        parts = [self._parts(name, v) for name, v in zip(cross.parts, values, strict=True)]

        def member(inputs: dict[str, Any], keys: dict[str, Any]) -> Array:
            found = np.concatenate([member(inputs, keys) for _, member in parts], axis=1)
            return np.all(found, axis=1)[:, np.newaxis]

        return [asked_for(value, "&".join(name for (name,), _ in parts))], member

    def _by_value(self, feature: Feature, value: str | None) -> tuple[list[str], _Member]:
        table = self.features.table(feature.table)
        values, counts = vocabulary(self.directory, table)
        buckets = None
        if not values.any():  # neither a vocabulary nor hours or weekdays
            buckets = self._buckets(feature.mirrors or feature.name)
            values = buckets.names
        ids = np.arange(1, 1 + len(values))
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
        if value in named:
            return [value], _some(member, [named.index(value)])
        found, part = ids[values == value], value
        if buckets:
            found = self._in_buckets(buckets, feature.name, value)
            part = asked_for(value, buckets.told(found)) if len(found) else value
        if not len(found):
            near = nearest(value, values[:10_000])
            raise UserError(f"slice: {feature.name} has no value {value!r}{near}")
        return [part], lambda inputs, keys: _any(inputs[feature.name], found)

    def _buckets(self, name: str) -> Buckets:
        if name not in self._known_buckets:
            feature = self.features.feature(name)
            self._known_buckets[name] = Buckets(self.directory, self.features, feature)
        return self._known_buckets[name]

    def _in_buckets(self, buckets: Buckets, name: str, value: str) -> Array:
        """Ids of those that hold a value, or some of a range."""
        if buckets.edges is not None:
            return buckets.between(*_range(name, value))
        found = buckets.ids([value]) if buckets.hashed else np.zeros(0, np.int64)
        return np.unique(found[found > 0])


def sliceable(features: Features) -> list[str]:
    """Names of all that examples have parts by."""
    steps = (step for history in features.histories for step in history.features)
    fields = (*features.features, *features.crosses, *steps)
    histories = (history.name for history in features.histories)
    return [*(field.name for field in fields), *histories, *COUNTS]


def _some(member: _Member, places: list[int]) -> _Member:
    """Of some parts alone."""
    return lambda inputs, keys: member(inputs, keys)[:, places]


def _rows(ids: Any) -> Array:
    """(n, values) all ids of each example."""
    found = np.asarray(ids)
    return found.reshape(len(found), math.prod(found.shape[1:]))


def _any(ids: Any, wanted: Array) -> Array:
    """(n, 1) whether examples have one of the ids."""
    return np.any(np.isin(_rows(ids), wanted), axis=1)[:, np.newaxis]


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
    names = [f"below {shown[0]}", *map(" to below ".join, itertools.pairwise(shown))]
    names.append(f"from {shown[-1]}")
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
        ends = (float(low or -np.inf), float(high or np.inf)) if dots else (float(low), float(low))
        if not ends[0] <= ends[1]:
            raise ValueError
        return ends
    except ValueError:
        raise UserError(
            f"slice {name}={text}: {name} is a number; expected LOW..HIGH, such as "
            f"{name}=0..10, {name}=..10 or {name}=10.."
        ) from None


def _shown(low: float, high: float) -> str:
    if low == high:
        return f"{low:,}"
    return f"{low:,}–{high:,}" if np.isfinite(high) else f"{low:,} or more"
