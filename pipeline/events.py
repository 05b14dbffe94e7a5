"""Raw columns to typed events. Rows that cannot be parsed are counted, with a reason each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.declaration import Declaration
from pipeline.progress import advance
from pipeline.sources import MALFORMED_ROWS, Batch

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_INTEGER = r"^\s*[-+]?\d{1,18}\s*$"
_TIME_FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d")

Type = Literal["string", "number", "time"]

REJECTED = "rejected"


@dataclass(frozen=True)
class Layout:
    """Which raw columns an event has, and their types.

    Attributes:
        inputs: columns that the transform reads.
        labels: label names; their values follow the columns in an event.
        shown: columns for the item catalogue.
        types: of every raw column.
        separators: of columns that may hold many values.
        needed: columns without which a row is of no use.
    """

    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    shown: tuple[str, ...]
    types: dict[str, Type]
    separators: dict[str, str]
    needed: tuple[str, ...]

    @classmethod
    def of(cls, declaration: Declaration) -> Layout:
        """Layout of the declared data set."""
        types: dict[str, Type] = {}
        separators = {}
        for name, feature in declaration.features.items():
            column = declaration.column(name)
            types[column] = "string" if feature.kind == "category" else "number"
            if feature.separator:
                separators[column] = feature.separator
        inputs = tuple(types)
        for label in declaration.labels.values():
            types.setdefault(label.column, "number")
        if declaration.weight:
            types.setdefault(declaration.weight, "number")
        needed = tuple(c for c in (declaration.user, declaration.item) if c)
        for column in (*needed, *declaration.show):
            types.setdefault(column, "string")
        if declaration.split and declaration.split.by:
            types.setdefault(declaration.split.by, "string")
        if declaration.time:
            types[declaration.time] = "time"
            needed += (declaration.time,)
        return cls(
            inputs, tuple(declaration.labels), tuple(declaration.show), types, separators, needed
        )


class ParseEvents(beam.DoFn):
    """Makes typed record batches of `(split, path, raw columns)`.

    Yields `(given split or None, batch)`: the layout's columns (string, float32 with NaN for
    missing, or int64 seconds), then `label:<name>` float32 with NaN for missing. Tagged output
    `rejected`: `((reason, kind), (rows, an example))`.
    """

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self.labels = declaration.labels
        self.weight = declaration.weight
        self.layout = Layout.of(declaration)

    def process(self, element: Batch) -> Iterator[Any]:
        split, path, raw = element
        malformed = int((raw.schema.metadata or {}).get(MALFORMED_ROWS.encode(), 0))
        if malformed:
            reason = f"{path}: another number of fields than its header"
            yield beam.pvalue.TaggedOutput(REJECTED, (reason, (malformed, "")))
        advance("rows read", raw.num_rows + malformed)
        if not raw.num_rows:
            return
        columns: dict[str, pa.Array] = {}
        keep = pa.array([True] * raw.num_rows)
        rejected: Counter[str] = Counter()
        examples: dict[str, str] = {}

        def reject(bad: pa.Array, reason: str, values: pa.Array) -> None:
            nonlocal keep
            bad = pc.and_(bad, keep)  # a row is counted once
            count = pc.sum(bad).as_py() or 0
            if count:
                rejected[reason] += count
                examples.setdefault(reason, str(values.filter(bad)[0].as_py()))
                keep = pc.and_(keep, pc.invert(bad))

        for name, kind in self.layout.types.items():
            values = raw.column(name)
            if kind == "string":
                columns[name] = _strings(values, self.layout.separators.get(name, "|"))
            else:
                parse, what = (_numbers, "number") if kind == "number" else (_times, "time")
                columns[name], bad = parse(values)
                reject(bad, f"column {name!r}: not a {what}", values)
        for name in self.layout.needed:
            values = columns[name]
            empty = pc.equal(values, "") if pa.types.is_string(values.type) else pc.is_null(values)
            reject(empty, f"column {name!r}: empty", values)
        if self.weight:
            reject(pc.is_nan(columns[self.weight]), f"column {self.weight!r}: empty weight", keep)
        for name, label in self.labels.items():
            values = columns[label.column]
            if not pa.types.is_floating(values.type):
                values, _ = _numbers(values)
            if label.at_least is not None:
                above = pc.cast(pc.greater_equal(values, label.at_least), pa.float32())
                values = pc.if_else(pc.is_nan(values), values, above)
            if label.task == "binary":
                odd = pc.invert(
                    pc.or_(pc.is_in(values, pa.array([0, 1], pa.float32())), pc.is_nan(values))
                )
                reject(odd, f"label {name!r}: neither 0 nor 1 (set at_least)", values)
            columns[f"label:{name}"] = values
        for reason, count in rejected.items():
            yield beam.pvalue.TaggedOutput(REJECTED, (reason, (count, examples[reason])))
        yield split, pa.RecordBatch.from_pydict(columns).filter(keep)


def _strings(values: pa.Array, separator: str) -> pa.Array:
    """Strings, "" for null; lists are joined."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        as_strings = values.cast(pa.list_(pa.string()))
        values = pc.binary_join(as_strings, separator)
    return pc.fill_null(values.cast(pa.string()), "")


def _flat(values: pa.Array) -> pa.Array:
    """One value per row: tf.Examples hold lists, of one number here."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        if (pc.max(lengths).as_py() or 0) <= 1:
            indices = pc.cumulative_sum(lengths)
            indices = pc.if_else(pc.equal(lengths, 1), pc.subtract(indices, 1), None)
            return pc.list_flatten(values).take(indices)
        return _strings(values, "|")  # several numbers: unparseable, and shown as they are
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return values.cast(pa.string())
    return values


def _numbers(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """float32 with NaN for missing, and which rows are no finite number."""
    values = _flat(values)
    if pa.types.is_null(values.type):
        values = values.cast(pa.float32())
    if pa.types.is_binary(values.type):
        values = values.cast(pa.string())
    none = pa.array([False] * len(values))
    if pa.types.is_string(values.type):
        missing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
        numeric = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
        bad = pc.invert(pc.or_(missing, numeric))
        text = pc.if_else(numeric, pc.utf8_trim_whitespace(values), None)
        numbers = text.cast(pa.float64())
    else:
        bad, numbers = none, values.cast(pa.float64())
    numbers = pc.fill_null(numbers, float("nan")).cast(pa.float32())
    return numbers, pc.or_(bad, pc.is_inf(numbers))


def _times(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """int64 seconds since 1970, null for missing, and which rows are no time."""
    values = _flat(values)
    if pa.types.is_timestamp(values.type):
        seconds = values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return seconds, pa.array([False] * len(values))
    if pa.types.is_binary(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        missing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
        integer = pc.fill_null(pc.match_substring_regex(values, _INTEGER), False)
        text = pc.if_else(integer, pc.utf8_trim_whitespace(values), None)
        seconds = text.cast(pa.int64())
        for form in _TIME_FORMATS:
            parsed = pc.strptime(values, format=form, unit="s", error_is_null=True)
            seconds = pc.coalesce(seconds, parsed.cast(pa.int64()))
        return seconds, pc.and_(pc.is_null(seconds), pc.invert(missing))
    numbers = values.cast(pa.float64())
    whole = pc.fill_null(pc.equal(pc.floor(numbers), numbers), True)
    seconds = pc.if_else(whole, pc.if_else(pc.is_finite(numbers), numbers, None), None)
    return seconds.cast(pa.int64()), pc.invert(whole)
