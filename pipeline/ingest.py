"""The step `ingest`: raw events to raw examples, by split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.parquetio import WriteToParquetBatched

from pipeline.declaration import Declaration
from pipeline.description import catalogue_columns, raw_columns
from pipeline.events import REJECTED, Layout, ParseEvents
from pipeline.examples import ExamplesBySplit
from pipeline.graph import Keep, run_graph
from pipeline.rejected import ByReason, lines, rows_read, too_many
from pipeline.shared import Shared
from pipeline.sources import ReadSource, digests
from pipeline.step import Step
from pipeline.writers import split_counts
from tfrec.features import ITEM_KEY, LABEL_PREFIX, TIME_KEY, USER_KEY, WEIGHT
from tfrec.strict import UserError

REPORT = "report.json"
ROWS_PER_BATCH = 2_000

_INTERACTION = {
    "user": (USER_KEY, pa.string()),
    "item": (ITEM_KEY, pa.string()),
    "time": (TIME_KEY, pa.int64()),
}
_CATALOGUE = {"string": pa.string(), "number": pa.float32(), "time": pa.int64()}


class Ingest(Step):
    """Reads the source, splits it, gives every event its history.

    Leaves `examples/<output>/*.parquet` by `Declaration.outputs`, with one list per row and
    column; `items/` (one row per item, as its newest event describes it); `interactions/` (user,
    item, time and split of every event); and `report.json`, what was read and rejected.
    """

    name = "ingest"

    def settings(self) -> Any:
        """All but what a later step does with the columns."""
        declaration, layout = self.declaration, Layout.of(self.declaration)
        whole = declaration.model_dump(mode="json")
        blocks = (
            "source", "user", "item", "time", "weight", "labels", "negatives", "split", "examples",
            "show",
        )  # fmt: skip
        return [
            {block: whole[block] for block in blocks},
            [layout.inputs, layout.types, layout.separators],
            [{**whole["histories"][name], "features": None} for name in declaration.histories],
            [(c.name, c.dtype, c.history) for c in raw_columns(declaration)],
            catalogue_columns(declaration),
            declaration.max_rejected,
        ]

    def sources(self) -> dict[str, str]:
        return digests(self.declaration.source)

    def make(self, place: Path) -> dict[str, Any]:
        kept = run_graph(self._build, self.options, place)
        rejected = kept["rejected"]
        splits = self.declaration.given_splits
        events = {split: kept[f"events_{split}"] for split in splits}
        report = {
            "rows_read": rows_read(kept["rows_read"], rejected),
            "rejected": rejected,
            "events": events,
            "examples": {split: kept[f"rows_{split}"] for split in splits},
        }
        if self._drawn:
            report["negatives"] = sum(report["examples"].values()) - sum(events.values())
        self.check_counts(report)
        (place / REPORT).write_text(json.dumps(report, indent=1) + "\n")
        return report

    def _build(self, pipeline: beam.Pipeline, keep: Keep, shared: Shared) -> None:
        declaration, place = self.declaration, shared.output
        raw = pipeline | "source" >> ReadSource(declaration, list(Layout.of(declaration).types))
        parsed = raw | "parse" >> beam.ParDo(ParseEvents(declaration)).with_outputs(
            REJECTED, main="events"
        )
        read = raw | "count rows" >> beam.Map(lambda element: element[2].num_rows)
        keep("rows_read", read | "sum rows" >> beam.CombineGlobally(sum))
        keep("rejected", parsed[REJECTED] | "rejected" >> ByReason())
        if declaration.item:
            self._catalogue(parsed.events, place)
        made = parsed.events | "examples" >> ExamplesBySplit(declaration)
        outputs = {name: made[name] for name in declaration.outputs}
        schema = example_schema(declaration)
        for split, batches in self._events(outputs).items():
            rows = batches | f"{split} events" >> beam.Map(_count_events, self._drawn)
            keep(f"events_{split}", rows | f"sum {split} events" >> beam.CombineGlobally(sum))
        for name, batches in outputs.items():
            rows = batches | f"rows of {name}" >> beam.Map(lambda batch: batch.num_rows)
            keep(f"rows_{name}", rows | f"sum {name}" >> beam.CombineGlobally(sum))
            tables = batches | f"table of {name}" >> beam.Map(_table)
            _ = tables | f"write {name}" >> _write(f"{place}/examples/{name}/examples", schema)
        if declaration.user and declaration.item:
            self._interactions(outputs, place)

    @property
    def _drawn(self) -> str | None:
        """Label that tells events from drawn negatives."""
        negatives = self.declaration.negatives
        return LABEL_PREFIX + negatives.label if negatives else None

    def _events(self, outputs: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """By split, examples that hold each event once, and maybe drawn negatives."""
        events = {**outputs, "train": outputs[self.declaration.learned_from]}
        return {split: events[split] for split in self.declaration.given_splits}

    def _interactions(self, outputs: dict[str, beam.PCollection], place: str) -> None:
        """One row per event: its user, item, time and split."""
        tables = [
            batches | f"{split} interactions" >> beam.Map(_interaction_rows, split, self._drawn)
            for split, batches in self._events(outputs).items()
        ]
        keys = Layout.of(self.declaration).keys
        columns = {name: kind for name, (key, kind) in _INTERACTION.items() if key in keys}
        schema = pa.schema({**columns, "split": pa.string()})
        write = _write(f"{place}/interactions/interactions", schema)
        _ = tables | "interactions" >> beam.Flatten() | "write interactions" >> write

    def _catalogue(self, events: beam.PCollection, place: str) -> None:
        """One row per item, as its newest event describes it."""
        item, types = self.declaration.item, Layout.of(self.declaration).types
        columns = [str(item), *catalogue_columns(self.declaration)]
        schema = pa.schema([(name, _CATALOGUE[types[name]]) for name in columns])
        newest = (
            events
            | "items" >> beam.FlatMap(_item_rows, columns, self.declaration.time)
            | "newest" >> beam.CombinePerKey(max)
            | "catalogue" >> beam.MapTuple(lambda key, row: dict(zip(columns, row[2], strict=True)))
        )
        _ = newest | "write items" >> beam.io.WriteToParquet(
            f"{place}/items/items", schema, file_name_suffix=".parquet"
        )

    def check_counts(self, report: dict[str, Any]) -> None:
        """Checks that no row is lost, not too many are rejected, and every split has some.

        Args:
            report: what is to become `report.json`.

        Raises:
            UserError: one of these.
        """
        read = report["rows_read"]
        if not read:
            raise UserError("the source has no rows")
        if refusal := too_many(report["rejected"], read, self.declaration.max_rejected):
            raise UserError(refusal)
        rejected = sum(count for count, _ in report["rejected"].values())
        made = sum(report["events"].values())
        if made + rejected != read:
            raise UserError(
                f"{read:,} rows were read, but {made:,} became events and {rejected:,} were "
                "rejected: rows are lost or doubled, which no source explains; run it anew, and "
                "report it if it comes again"
            )
        for split, count in report["examples"].items():
            if not count:
                raise UserError(
                    f"split {split} is empty ({split_counts(report['examples'])}); "
                    "give it more data or change `split`"
                )

    def told(self, counts: dict[str, Any]) -> list[str]:
        events, examples = counts["events"], counts["examples"]
        made = split_counts(events)
        if drawn := counts.get("negatives"):
            made += f"; with {drawn:,} negatives: {split_counts(examples)}"
        elif examples != events:
            made += f"; as sequences: {split_counts(examples)}"
        return [f"{counts['rows_read']:,} rows; {made}", *lines(counts["rejected"])]


def example_schema(declaration: Declaration) -> pa.Schema:
    """Of raw examples, in the order in which they are made: scalars, then histories."""
    kinds = {"string": pa.large_binary(), "int64": pa.int64(), "float32": pa.float32()}
    layout = Layout.of(declaration)
    columns = raw_columns(declaration)
    fields = {c.name: kinds[c.dtype] for c in columns if not c.history}
    fields |= {LABEL_PREFIX + name: pa.float32() for name in layout.labels}
    if declaration.weight:
        fields[WEIGHT] = pa.float32()
    fields |= {key: pa.int64() if key == TIME_KEY else pa.large_binary() for key in layout.keys}
    fields |= {c.name: kinds[c.dtype] for c in columns if c.history}
    return pa.schema([(name, pa.large_list(kind)) for name, kind in fields.items()])


class ReadExamples(beam.PTransform):
    """Record batches of the raw examples of one output.

    Args:
        directory: output of `Ingest`.
        output: whose examples.
        shared: where workers find them.
        columns: to read; all unless given.
    """

    def __init__(
        self, directory: Path, output: str, shared: Shared, columns: list[str] | None = None
    ) -> None:
        super().__init__()
        folder = directory / "examples" / output
        names = sorted(path.name for path in folder.iterdir())
        self.files = [f"{shared.seen(folder)}/{name}" for name in names]
        self.columns = columns

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[pa.RecordBatch]:
        return (
            begin
            | "files" >> beam.Create(self.files)
            | "spread" >> beam.Reshuffle()
            | "read" >> beam.FlatMap(_read, self.columns)
        )


def _read(path: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    with beam.io.filesystems.FileSystems.open(path) as stream:
        yield from pq.ParquetFile(stream).iter_batches(ROWS_PER_BATCH, columns=columns)


def _write(prefix: str, schema: pa.Schema) -> beam.PTransform:
    return WriteToParquetBatched(prefix, schema, codec="zstd", file_name_suffix=".parquet")


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _events_of(batch: pa.RecordBatch, drawn: str | None) -> pa.RecordBatch:
    """Examples that are events, not drawn negatives."""
    return batch.filter(pc.equal(batch.column(drawn).flatten(), 1)) if drawn else batch


def _count_events(batch: pa.RecordBatch, drawn: str | None) -> int:
    return int(_events_of(batch, drawn).num_rows)


def _interaction_rows(batch: pa.RecordBatch, split: str, drawn: str | None) -> pa.Table:
    batch = _events_of(batch, drawn)
    columns = {
        name: batch.column(key).flatten().cast(kind)
        for name, (key, kind) in _INTERACTION.items()
        if key in batch.schema.names
    }
    return pa.table({**columns, "split": pa.repeat(split, batch.num_rows)})


def _item_rows(
    element: tuple[str | None, pa.RecordBatch], columns: list[str], time: str | None
) -> Iterator[tuple[str, tuple[int, str, tuple[Any, ...]]]]:
    """(item, (time, order among equal times, values)) of every event."""
    _, batch = element
    times = batch.column(time).to_pylist() if time else [0] * batch.num_rows
    parts = [batch.column(name).to_pylist() for name in columns]
    for when, *values in zip(times, *parts, strict=True):
        yield values[0], (when, repr(values), tuple(values))
