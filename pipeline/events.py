"""Raw columns to typed events. Rows that cannot be parsed are counted, with a reason each."""

from __future__ import annotations

import datetime
import math
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
from tfrec.features import ENDS_OF_LINES, ITEM_KEY, TIME_KEY, USER_KEY
from tfrec.strict import UserError

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_INTEGER = r"^\s*[-+]?\d{1,18}\s*$"
_FRACTION = r"^\s*[-+]?\d{1,15}\.\d*\s*$"
_EXACT = 2.0**53  # below it a float64 tells integers apart
_LATEST = 1e18  # seconds; int64 ends a little later

_TEXTS = (
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    pa.types.is_large_string, pa.types.is_string_view,
)  # fmt: skip

Type = Literal["string", "number", "time"]

REJECTED = "rejected"
MALFORMED = "another number of fields than its header"


@dataclass(frozen=True)
class Layout:
    """Which raw columns an event has, and their types.

    Attributes:
        inputs: columns that the transform reads.
        labels: label names; their values follow the columns in an event.
        shown: columns for the item catalogue.
        types: of every raw column.
        separators: of columns that may hold many values.
        keys: column by stored key: user, item and time, without which a row is of no use.
    """

    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    shown: tuple[str, ...]
    types: dict[str, Type]
    separators: dict[str, str]
    keys: dict[str, str]

    @classmethod
    def of(cls, declaration: Declaration) -> Layout:
        """Layout of the declared data set."""
        types: dict[str, Type] = {}
        separators = {}
        for name, feature in declaration.features.items():
            column = declaration.column(name)
            types[column] = "string" if feature.tokens else "number"
            if feature.separator:
                separators[column] = feature.separator
        if declaration.time and any(history.gaps for history in declaration.histories.values()):
            types.setdefault(declaration.time, "time")
        inputs = tuple(types)
        for label in declaration.labels.values():
            types.setdefault(label.column, "string" if label.equals is not None else "number")
        if declaration.weight:
            types.setdefault(declaration.weight, "number")
        by = declaration.split.by if declaration.split else None
        for text in (declaration.user, declaration.item, *declaration.show, by):
            if text:
                types.setdefault(text, "string")
        if declaration.time:
            types[declaration.time] = "time"
        keys = {
            USER_KEY: declaration.user, ITEM_KEY: declaration.item, TIME_KEY: declaration.time
        }  # fmt: skip
        return cls(
            inputs,
            tuple(declaration.tasks),
            tuple(declaration.show),
            types,
            separators,
            {key: column for key, column in keys.items() if column},
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
        self.labelled = {label.column for label in declaration.labels.values()}
        self.weight = declaration.weight
        self.positive = declaration.negatives.label if declaration.negatives else None
        self.layout = Layout.of(declaration)

    def process(self, element: Batch) -> Iterator[Any]:
        split, path, raw = element
        malformed = int((raw.schema.metadata or {}).get(MALFORMED_ROWS.encode(), 0))
        if malformed:
            reason = f"{path}: {MALFORMED}"
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
                examples.setdefault(reason, _shown(values.filter(bad)[0].as_py()))
                keep = pc.and_(keep, pc.invert(bad))

        for name, kind in self.layout.types.items():
            values = raw.column(name)
            try:
                if kind == "string":
                    separator = self.layout.separators.get(name)
                    columns[name] = strings_of(values, separator or "|")
                    if separator and (bad := _cut_apart(values, separator)):
                        mark = f"a value of the list has the separator {separator!r} in it"
                        reject(bad, f"column {name!r}: {mark} (declare another one)", values)
                else:
                    parse = numbers_of if kind == "number" else _times
                    told = digits_of(values) if name in self.labelled else values
                    columns[name], bad = parse(told)
                    reject(bad, f"column {name!r}: not a {kind}", values)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(
                    f"{path}: column {name!r}: {values.type} cannot be read as a {kind} ({error})"
                ) from error
        for name in self.layout.keys.values():
            values = columns[name]
            empty = _blank(values) if pa.types.is_string(values.type) else pc.is_null(values)
            reject(empty, f"column {name!r}: empty", values)
            if pa.types.is_string(values.type):
                columns[name] = _key(values)
        if self.weight:
            weights = columns[self.weight]
            reject(pc.is_nan(weights), f"column {self.weight!r}: empty weight", weights)
            reject(pc.less(weights, 0), f"column {self.weight!r}: negative weight", weights)
        for name, label in self.labels.items():
            values = columns[label.column]
            if label.equals is not None:
                same_text = pc.equal(pc.utf8_trim_whitespace(values), label.equals.strip())
                values = pc.if_else(_blank(values), None, pc.cast(same_text, pa.float32()))
                values = pc.fill_null(values, float("nan"))
            elif pa.types.is_string(values.type):
                values, bad = numbers_of(digits_of(values))
                reject(bad, f"column {label.column!r}: not a number", columns[label.column])
            if label.at_least is not None:
                same = pa.float32() if pa.types.is_floating(values.type) else pa.float64()
                above = pc.greater_equal(values, pa.scalar(label.at_least, same))
                missing = pc.is_null(values, nan_is_null=True)
                values = pc.if_else(missing, float("nan"), pc.cast(above, pa.float32()))
            values = values.cast(pa.float32(), safe=False)
            if label.task == "binary":
                odd = pc.invert(
                    pc.or_(pc.is_in(values, pa.array([0, 1], pa.float32())), pc.is_nan(values))
                )
                reject(odd, f"label {name!r}: neither 0 nor 1 (set at_least)", values)
            columns[f"label:{name}"] = values
        if self.positive:
            columns[f"label:{self.positive}"] = pa.repeat(pa.scalar(1, pa.float32()), raw.num_rows)
        for reason, count in rejected.items():
            yield beam.pvalue.TaggedOutput(REJECTED, (reason, (count, examples[reason])))
        yield split, pa.RecordBatch.from_pydict(columns).filter(keep)


def _shown(value: Any) -> str:
    """A rejected value as a person reads it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None or value != value else str(value)


def _key(values: pa.Array) -> pa.Array:
    """Keys as the transform reads them, so that equal keys have equal ids."""
    return pc.replace_substring_regex(pc.ascii_trim_whitespace(values), ENDS_OF_LINES, " ")


def is_list(values: pa.Array) -> bool:
    """Whether every row is a list."""
    return pa.types.is_list(values.type) or pa.types.is_large_list(values.type)


def has_lists(values: pa.Array) -> bool:
    """Whether some row holds several values."""
    return is_list(values) and (pc.max(pc.list_value_length(values)).as_py() or 0) > 1


def _blank(values: pa.Array) -> pa.Array:
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)


def strings_of(values: pa.Array, separator: str) -> pa.Array:
    """Strings, "" for null and NaN; lists are joined."""
    if is_list(values):
        ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(values), 0)).cast(pa.int32())
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
        lists = pa.ListArray.from_arrays(offsets, _texts(pc.list_flatten(values)))
        if lists.values.null_count:
            rows = [[text for text in row if text is not None] for row in lists.to_pylist()]
            lists = pa.array(rows, lists.type)
        return pc.binary_join(lists, separator)
    return pc.fill_null(_texts(values), "")


def _cut_apart(values: pa.Array, separator: str) -> pa.Array | None:
    """Which rows hold a list with a value that would be cut; None where rows hold one text each.

    A tf.Example has its one text in a list, too, and there it is a joined one.
    """
    if not has_lists(values):
        return None
    cut = pc.match_substring(_texts(pc.list_flatten(values)), separator)
    rows = pc.list_parent_indices(values).filter(pc.fill_null(cut, False))
    return pc.is_in(pa.array(range(len(values)), rows.type), rows)


def _texts(values: pa.Array) -> pa.Array:
    """Strings, null for null and NaN.

    Whole floats are as integers are: a column of ids has floats where one is missing.
    """
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    numbers = values.cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), _EXACT))
    integers = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
    texts = pc.coalesce(integers, values.cast(pa.string()))
    return pc.if_else(pc.is_nan(numbers), None, texts)


def flat(values: pa.Array) -> pa.Array:
    """One value per row, all text as pa.string(): tf.Examples hold lists, of one number here."""
    if is_list(values):
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        if (pc.max(lengths).as_py() or 0) > 1:
            return strings_of(values, "|")  # several numbers: unparseable, and shown as they are
        indices = pc.cumulative_sum(lengths)
        indices = pc.if_else(pc.equal(lengths, 1), pc.subtract(indices, 1), None)
        values = pc.list_flatten(values).take(indices)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if any(is_text(values.type) for is_text in _TEXTS):
        values = values.cast(pa.string())
    return values


def digits_of(values: pa.Array) -> pa.Array:
    """Values, where texts have 1 for true and 0 for false, in any case, as booleans do."""
    values = flat(values)
    if not pa.types.is_string(values.type):
        return values
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    values = pc.if_else(pc.equal(texts, "true"), "1", values)
    return pc.if_else(pc.equal(texts, "false"), "0", values)


def numbers_of(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """float32 with NaN for missing, and which rows are no finite number."""
    values = flat(values)
    bad = pa.array([False] * len(values))
    if pa.types.is_string(values.type):
        numeric = pc.fill_null(pc.match_substring_regex(values, _NUMBER), False)
        bad = pc.invert(pc.or_(_blank(values), numeric))
        values = pc.if_else(numeric, pc.utf8_trim_whitespace(values), None)
    numbers = values.cast(pa.float64(), safe=False)  # float32 tells fewer integers apart anyway
    numbers = pc.fill_null(numbers, float("nan")).cast(pa.float32())
    return numbers, pc.or_(bad, pc.is_inf(numbers))


def _times(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """int64 whole seconds since 1970, null for missing, and which rows are no time."""
    values = flat(values)
    none = pa.array([False] * len(values))
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return values.cast(pa.timestamp("s"), safe=False).cast(pa.int64()), none
    if pa.types.is_signed_integer(values.type):
        return values.cast(pa.int64()), none
    if pa.types.is_string(values.type):
        integer = pc.fill_null(pc.match_substring_regex(values, _INTEGER), False)
        text = pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+")
        seconds = pc.if_else(integer, text, None).cast(pa.int64())
        fraction = pc.fill_null(pc.match_substring_regex(values, _FRACTION), False)
        floors = pc.floor(pc.if_else(fraction, text, None).cast(pa.float64())).cast(pa.int64())
        seconds = pc.coalesce(seconds, floors)
        other = pc.if_else(pc.is_null(seconds), values, None).to_pylist()
        seconds = pc.coalesce(seconds, pa.array([iso_8601(o) for o in other], pa.int64()))
        return seconds, pc.and_(pc.is_null(seconds), pc.invert(_blank(values)))
    numbers = values.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    fits = pc.fill_null(pc.less(pc.abs(numbers), _LATEST), True)
    return pc.floor(pc.if_else(fits, numbers, None)).cast(pa.int64()), pc.invert(fits)


def iso_8601(text: str | None) -> int | None:
    """Whole seconds since 1970; UTC unless the text says otherwise."""
    try:
        when = datetime.datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return math.floor(when.timestamp())
