"""Events to raw examples: the split, and the history of every event."""

from __future__ import annotations

import bisect
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.blocks import SplitDeclaration
from pipeline.declaration import TRAIN_EVENTS, Declaration
from pipeline.events import Layout
from pipeline.negatives import CountItems, Event, Item, ItemColumns, Sampler
from pipeline.progress import advance
from tfrec.features import LABEL_PREFIX, SPLITS, WEIGHT

ROWS_PER_BATCH = 1_000

Example = tuple[Event, list[list[Event]]]  # an event and its histories


class ExamplesBySplit(beam.PTransform):
    """Makes raw examples of parsed events.

    The result is a dict of PCollections, by `Declaration.outputs`, of record batches with one list
    per row: the transform's inputs, labels, weight and keys, and `<history>_<column>` in order.

    Args:
        declaration: of the data set.
    """

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self.declaration = declaration

    def expand(self, batches: beam.PCollection) -> dict[str, beam.PCollection]:
        declaration = self.declaration
        layout = Layout.of(declaration)
        rows = batches | "rows" >> beam.FlatMap(_rows)
        split = declaration.split
        cuts: Any = None
        if split and split.kind == "time":
            position = 1 + list(layout.types).index(declaration.time or "")
            cuts = beam.pvalue.AsSingleton(
                rows
                | "times" >> beam.Map(lambda row: row[position])
                | "quantiles" >> beam.ApproximateQuantiles.Globally(num_quantiles=1001)
                | "cuts" >> beam.Map(_cut_times, split.cuts)
            )
        by_user = declaration.histories or declaration.negatives
        if by_user or (split and split.kind in ("user_time", "leave_one_out")):
            user = 1 + list(layout.types).index(declaration.user or "")
            groups = (
                rows
                | "key by user" >> beam.Map(lambda row: (row[user], row))
                | "by user" >> beam.GroupByKey()
                | "events" >> beam.Values()
            )
        else:
            groups = batches | "each batch" >> beam.Map(lambda batch: list(_rows(batch)))
        items: Any = None
        if declaration.negatives:
            items = beam.pvalue.AsList(
                groups
                | "items of training" >> beam.ParDo(TrainingItems(declaration), cuts)
                | "count items" >> beam.CombinePerKey(CountItems())
                | "as items" >> beam.MapTuple(lambda key, found: (key, *found))
            )
        make = beam.ParDo(MakeExamples(declaration), cuts, items)
        examples = groups | "examples" >> make.with_outputs(*declaration.outputs)
        return {name: examples[name] for name in declaration.outputs}


def _rows(element: tuple[str | None, pa.RecordBatch]) -> Iterator[Event]:
    split, batch = element
    columns = [column.to_pylist() for column in batch.columns]
    return ((split, *values) for values in zip(*columns, strict=True))


def _cut_times(quantiles: list[int], cuts: tuple[float, float]) -> tuple[int, ...]:
    """Latest times of train and validation; () where there are no events."""
    last = len(quantiles) - 1
    return tuple(quantiles[math.ceil(cut * last - 1e-9)] for cut in cuts if quantiles)


@dataclass(frozen=True)
class _History:
    """A declared history, by positions in an event.

    Attributes:
        length: most events it keeps.
        where: label that must be 1, if there is one.
        time: of an event, if it has one.
        parts: (name, position, type) of what it keeps of an event, the item first.
    """

    length: int
    where: int | None
    time: int | None
    parts: list[tuple[str, int, pa.DataType]]

    def item(self, event: Event) -> str:
        return event[self.parts[0][1]].strip()

    def holds(self, event: Event) -> bool:
        """Whether it is of the declared kind, and has an item: an id of 0 is padding."""
        return bool(self.item(event)) and (self.where is None or event[self.where] == 1)

    def of(self, event: Event, held: list[Event]) -> list[Event]:
        """What `event` sees of the events that are held, which are in order."""
        if self.time is not None:
            before = bisect.bisect_left(held, event[self.time], key=itemgetter(self.time))
            return held[max(before - self.length, 0) : before]
        own = self.item(event)
        return list(islice((other for other in held if self.item(other) != own), self.length))


class MakeExamples(beam.DoFn):
    """Sorts the events of one group, splits them and adds their histories.

    An event's history holds events strictly before it in time, so that events of the same
    second do not see one another. Equal times are ordered by content: the result does not
    depend on the order of the source. Without times, a history holds training events in an order
    by hash, but for those of the event's own item: neither the event itself nor one of another
    split can be in it.
    """

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self.declaration = declaration
        layout = Layout.of(declaration)
        names = [None, *layout.types, *(LABEL_PREFIX + label for label in layout.labels)]
        at = names.index
        self.time = at(declaration.time) if declaration.time else None
        self.by = self._split_column(names)
        self.scalars: list[tuple[str, int, pa.DataType]] = []
        for column in layout.inputs:
            self.scalars.append((column, at(column), _TYPES[layout.types[column]]))
        for label in layout.labels:
            self.scalars.append((LABEL_PREFIX + label, at(LABEL_PREFIX + label), pa.float32()))
        if declaration.weight:
            self.scalars.append((WEIGHT, at(declaration.weight), pa.float32()))
        for key, keyed in layout.keys.items():
            self.scalars.append((key, at(keyed), _TYPES[layout.types[keyed]]))
        self.sampler: Sampler | None = None  # made of all items when the first events come
        if declaration.negatives:
            self.items = ItemColumns(declaration)
        self.histories = []
        for name, history in declaration.histories.items():
            columns = dict.fromkeys(declaration.column(feature) for feature in history.features)
            where = at(LABEL_PREFIX + history.where) if history.where else None
            parts = [(f"{name}_{c}", at(c), _TYPES[layout.types[c]]) for c in columns]
            self.histories.append(_History(history.length, where, self.time, parts))

    def _split_column(self, names: list[str | None]) -> int | None:
        split, user = self.declaration.split, self.declaration.user
        if not split or split.kind != "random":
            return None
        by = split.by or user
        return names.index(by) if by else None

    def start_bundle(self) -> None:
        self.buffers: dict[str, list[Example]] = {name: [] for name in self.declaration.outputs}

    def process(
        self, events: Iterable[Event], cuts: tuple[int, ...] | None, items: list[Item] | None
    ) -> Iterator[Any]:
        if items is not None and self.sampler is None:
            drawn = self.declaration.negatives
            assert drawn
            popular = drawn.by == "popularity"
            self.sampler = Sampler(items, drawn.per_positive, popular, drawn.seed)
        rows = self.sorted(events)
        for output, example in self._with_negatives(rows, self.splits(rows, cuts)):
            buffer = self.buffers[output]
            buffer.append(example)
            if len(buffer) >= ROWS_PER_BATCH:
                yield beam.pvalue.TaggedOutput(output, self._batch(output))

    def finish_bundle(self) -> Iterator[Any]:
        for output, buffer in self.buffers.items():
            if buffer:
                value = WindowedValue(self._batch(output), 0, [GlobalWindow()])
                yield beam.pvalue.TaggedOutput(output, value)

    def sorted(self, events: Iterable[Event]) -> list[Event]:
        """Events of a group in order of time."""
        rows = list(events)
        if self.time is not None:
            time = self.time
            rows.sort(key=lambda row: (row[time], repr(row)))
        return rows

    def _with_negatives(
        self, rows: list[Event], splits: list[str]
    ) -> Iterator[tuple[str, Example]]:
        """All examples; where there are negatives, training events are in two outputs."""
        if self.sampler is None:
            yield from self._examples(rows, splits)
            return
        own = {row[self.items.item] for row in rows}
        for split, (event, histories) in self._examples(rows, splits):
            yield split, (event, histories)
            if split == "train":
                yield TRAIN_EVENTS, (event, histories)
            for item in self.sampler.draw(event, own):
                yield split, (self.items.negative(event, item), histories)

    def splits(self, rows: list[Event], cuts: tuple[int, ...] | None) -> list[str]:
        split = self.declaration.split
        if split is None:
            return [row[0] for row in rows]
        if split.kind == "user_time":
            first, second = (math.floor(len(rows) * cut + 1e-9) for cut in split.cuts)
            return [SPLITS[(i >= first) + (i >= second)] for i in range(len(rows))]
        if split.kind == "leave_one_out":
            return (
                (["train"] * (len(rows) - 2) + ["validation", "test"])[-len(rows) :]
                if len(rows) > 2
                else ["train", "test"][: len(rows)]
            )
        if split.kind == "time":
            assert cuts is not None and self.time is not None
            return [SPLITS[bisect.bisect_left(cuts, row[self.time])] for row in rows]
        if self.by is not None:
            return [_random_split(split, row[self.by]) for row in rows]
        copies: Counter[str] = Counter()  # equal rows are to fall apart
        splits = []
        for row in rows:
            key = repr(row)
            copies[key] += 1
            splits.append(_random_split(split, f"{copies[key]}:{key}"))
        return splits

    def _examples(self, rows: list[Event], splits: list[str]) -> Iterator[tuple[str, Example]]:
        """(output, example) of all rows.

        The history of a sequence has training events only, since all of it is learned.
        """
        train = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
        held = self._held(sorted(train, key=_content_hash) if self.time is None else rows)
        sequences = self.declaration.examples == "sequences"
        for row, split in zip(rows, splits, strict=True):
            if sequences and split == "train":
                yield TRAIN_EVENTS, (row, [[] for _ in self.histories])
            else:
                yield split, self._example(row, held)
        if sequences:
            held = self._held(train)
            for newest in held[0][-1:]:
                yield "train", self._example(newest, held)

    def _held(self, events: list[Event]) -> list[list[Event]]:
        return [[event for event in events if history.holds(event)] for history in self.histories]

    def _example(self, event: Event, held: list[list[Event]]) -> Example:
        pairs = zip(self.histories, held, strict=True)
        return event, [history.of(event, events) for history, events in pairs]

    def _batch(self, output: str) -> pa.RecordBatch:
        examples, self.buffers[output] = self.buffers[output], []
        advance("examples made", len(examples))
        arrays, names = [], []
        offsets = pa.array(range(len(examples) + 1), pa.int64())
        for name, index, kind in self.scalars:
            values = pa.array([row[index] for row, _ in examples], kind)
            arrays.append(pa.LargeListArray.from_arrays(offsets, values))
            names.append(name)
        for position, history in enumerate(self.histories):
            for name, index, kind in history.parts:
                lists = [[event[index] for event in past[position]] for _, past in examples]
                arrays.append(pa.array(lists, pa.large_list(kind)))
                names.append(name)
        return pa.RecordBatch.from_arrays(arrays, names)


class TrainingItems(beam.DoFn):
    """What the training events of a group say of their items, see `ItemColumns.described`."""

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self.make, self.items = MakeExamples(declaration), ItemColumns(declaration)

    def process(self, events: Iterable[Event], cuts: tuple[int, ...] | None) -> Iterator[Any]:
        rows = self.make.sorted(events)
        for row, split in zip(rows, self.make.splits(rows, cuts), strict=True):
            if split == "train":
                yield self.items.described(row)


_TYPES = {"string": pa.large_binary(), "number": pa.float32(), "time": pa.int64()}


def _content_hash(event: Event) -> tuple[int, str]:
    content = repr(event)
    return zlib.crc32(content.encode()), content


def _random_split(split: SplitDeclaration, key: Any) -> str:
    share = zlib.crc32(f"{split.seed}:{key}".encode()) / 2**32
    first, second = split.cuts
    return SPLITS[(share >= first) + (share >= second)]
