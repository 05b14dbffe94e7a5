"""Events to raw examples: the split, and the history of every event."""

from __future__ import annotations

import bisect
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.blocks import SplitDeclaration
from pipeline.declaration import TRAIN_EVENTS, Declaration
from pipeline.events import Layout
from pipeline.histories import History, Others, Past
from pipeline.negatives import CountItems, Event, Item, ItemColumns, Sampler
from pipeline.ordered import Ordered
from pipeline.progress import advance
from tfrec.features import LABEL_PREFIX, SPLITS, WEIGHT

ROWS_PER_BATCH = 1_000
QUANTILES = 1_001  # of the times, that splits are cut at

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
                | "quantiles" >> beam.ApproximateQuantiles.Globally(num_quantiles=QUANTILES)
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


def count_splits(
    declaration: Declaration, batches: Iterable[tuple[str | None, pa.RecordBatch]]
) -> dict[str, int]:
    """How many of a few events fall into every split that is to have some, without Beam.

    Args:
        declaration: of the data set.
        batches: of parsed events.
    """
    make = MakeExamples(declaration)
    rows = [row for batch in batches for row in _rows(batch)]
    cuts: tuple[int, ...] | None = None
    if declaration.split and declaration.split.kind == "time":
        assert make.time is not None
        times = np.array([row[make.time] for row in rows], np.int64)
        quantiles = np.quantile(times, np.linspace(0, 1, QUANTILES), method="lower")
        cuts = _cut_times(quantiles.tolist(), declaration.split.cuts)
    groups: dict[Any, list[Event]] = {}
    for row in rows:
        groups.setdefault(None if make.user is None else row[make.user], []).append(row)
    found: Counter[str] = Counter()
    for events in groups.values():
        found.update(split for _, split in make.split(make.ordered(events), cuts))
    return {split: found[split] for split in declaration.given_splits}


def _rows(element: tuple[str | None, pa.RecordBatch]) -> Iterator[Event]:
    split, batch = element
    columns = [column.to_pylist() for column in batch.columns]
    return ((split, *values) for values in zip(*columns, strict=True))


def _cut_times(quantiles: list[int], cuts: tuple[float, float]) -> tuple[int, ...]:
    """Latest times of train and validation; () where there are no events."""
    last = len(quantiles) - 1
    return tuple(quantiles[math.ceil(cut * last - 1e-9)] for cut in cuts if quantiles)


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
        self.user = at(declaration.user) if declaration.user else None
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
            columns = declaration.history_columns(name)
            where = at(LABEL_PREFIX + history.where) if history.where else None
            parts = [(f"{name}_{c}", at(c), _TYPES[layout.types[c]]) for c in columns]
            self.histories.append(History(history.length, where, self.time, parts))

    def _split_column(self, names: list[str | None]) -> int | None:
        split, user = self.declaration.split, self.declaration.user
        if not split or split.kind != "random":
            return None
        by = split.by or user
        return names.index(by) if by else None

    def start_bundle(self) -> None:
        self.buffers: dict[str, list[Example]] = {name: [] for name in self.declaration.outputs}

    def process(
        self,
        events: Iterable[Event],
        cuts: tuple[int, ...] | None,
        items: list[Item] | None = None,
    ) -> Iterator[Any]:
        if items is not None and self.sampler is None:
            drawn = self.declaration.negatives
            assert drawn
            popular = drawn.by == "popularity"
            self.sampler = Sampler(items, drawn.per_positive, popular, drawn.seed)
        rows = self.ordered(events)
        for output, example in self._with_negatives(rows, cuts):
            buffer = self.buffers[output]
            buffer.append(example)
            if len(buffer) >= ROWS_PER_BATCH:
                yield beam.pvalue.TaggedOutput(output, self._batch(output))

    def finish_bundle(self) -> Iterator[Any]:
        for output, buffer in self.buffers.items():
            if buffer:
                value = WindowedValue(self._batch(output), 0, [GlobalWindow()])
                yield beam.pvalue.TaggedOutput(output, value)

    def ordered(self, events: Iterable[Event]) -> Ordered:
        """Events of a group in order of time, which may be too many for the memory."""
        time = self.time
        if time is None:
            return Ordered(events, lambda row: 0)
        return Ordered(events, lambda row: (row[time], repr(row)))

    def _with_negatives(
        self, rows: Ordered, cuts: tuple[int, ...] | None
    ) -> Iterator[tuple[str, Example]]:
        """All examples; where there are negatives, training events are in two outputs."""
        if self.sampler is None:
            yield from self._examples(rows, cuts)
            return
        own = {row[self.items.item] for row in rows}
        for split, (event, histories) in self._examples(rows, cuts):
            yield split, (event, histories)
            if split == "train":
                yield TRAIN_EVENTS, (event, histories)
            for item in self.sampler.draw(event, own):
                yield split, (self.items.negative(event, item), histories)

    def split(self, rows: Ordered, cuts: tuple[int, ...] | None) -> Iterator[tuple[Event, str]]:
        """Events in order, each with its split."""
        split, last = self.declaration.split, len(rows) - 1
        first, second = (math.floor(len(rows) * c + 1e-9) for c in split.cuts) if split else (0, 0)
        copies: Counter[str] = Counter()  # equal rows are to fall apart
        for index, row in enumerate(rows):
            if split is None:
                yield row, row[0]
            elif split.kind == "user_time":
                yield row, SPLITS[(index >= first) + (index >= second)]
            elif split.kind == "leave_one_out":
                is_test = index == last and last > 0
                yield row, SPLITS[2 * is_test or (index == last - 1 and last > 1)]
            elif split.kind == "time":
                assert cuts is not None and self.time is not None
                yield row, SPLITS[bisect.bisect_left(cuts, row[self.time])]
            elif self.by is not None:
                yield row, _random_split(split, row[self.by])
            else:
                key = repr(row)
                copies[key] += 1
                yield row, _random_split(split, f"{copies[key]}:{key}")

    def _examples(
        self, rows: Ordered, cuts: tuple[int, ...] | None
    ) -> Iterator[tuple[str, Example]]:
        """(output, example) of all rows.

        The history of a sequence has training events only, since all of it is learned.
        """
        if self.declaration.examples == "sequences":
            yield from self._sequences(rows, cuts)
            return
        pasts: list[Past | Others]
        if self.time is None:
            pasts = [Others(history, self._train(rows, cuts)) for history in self.histories]
        else:
            pasts = [Past(history) for history in self.histories]
        for row, split in self.split(rows, cuts):
            yield split, (row, [past.before(row) for past in pasts])
            for past in pasts:
                past.add(row)

    def _sequences(
        self, rows: Ordered, cuts: tuple[int, ...] | None
    ) -> Iterator[tuple[str, Example]]:
        everything = [Past(history) for history in self.histories]
        learned = [Past(history) for history in self.histories]
        held = sum(self.histories[0].holds(row) for row in self._train(rows, cuts))
        for row, split in self.split(rows, cuts):
            if split == "train":
                yield TRAIN_EVENTS, (row, [[] for _ in self.histories])
                held -= self.histories[0].holds(row)
                if not held and self.histories[0].holds(row):  # the newest one
                    yield "train", (row, [past.before(row) for past in learned])
                for past in learned:
                    past.add(row)
            else:
                yield split, (row, [past.before(row) for past in everything])
            for past in everything:
                past.add(row)

    def _train(self, rows: Ordered, cuts: tuple[int, ...] | None) -> Iterator[Event]:
        return (row for row, split in self.split(rows, cuts) if split == "train")

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
        for row, split in self.make.split(self.make.ordered(events), cuts):
            if split == "train":
                yield self.items.described(row)


_TYPES = {"string": pa.large_binary(), "number": pa.float32(), "time": pa.int64()}


def _random_split(split: SplitDeclaration, key: Any) -> str:
    share = zlib.crc32(f"{split.seed}:{key}".encode()) / 2**32
    first, second = split.cuts
    return SPLITS[(share >= first) + (share >= second)]
