"""The Beam graph of the pipeline."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from apache_beam.io.parquetio import WriteToParquetBatched
from google.protobuf import text_format
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

from pipeline import writers
from pipeline.declaration import Declaration
from pipeline.description import (
    catalogue_columns,
    packed_fields,
    raw_columns,
    tables_of_fields,
)
from pipeline.events import REJECTED, Layout, ParseEvents
from pipeline.examples import ExamplesBySplit
from pipeline.sources import ReadSource
from pipeline.statistics import Statistics
from pipeline.transform import make_preprocessing_fn
from tfrec.features import IDS, ITEM_KEY, LABEL_PREFIX, TIME_KEY, USER_KEY, WEIGHT

SAMPLE_ROWS = 100

_INTERACTION = {
    "user": (USER_KEY, pa.string()),
    "item": (ITEM_KEY, pa.string()),
    "time": (TIME_KEY, pa.int64()),
}
_CATALOGUE = {"string": pa.string(), "number": pa.float32(), "time": pa.int64()}


class Flow:
    """The Beam graph.

    What is known only when it has run (counts, statistics) is kept in `work`, one pickle each.

    Args:
        declaration: of the data set.
        place: the data set directory in the making.
        work: a directory inside it, gone at the end.
    """

    def __init__(self, declaration: Declaration, place: Path, work: Path) -> None:
        self.declaration = declaration
        self.layout = Layout.of(declaration)
        self.place, self.work = str(place), work

    def build(self, pipeline: beam.Pipeline) -> None:
        declaration = self.declaration
        source = ReadSource(declaration, list(self.layout.types))
        raw = pipeline | "source" >> source
        parsed = raw | "parse" >> beam.ParDo(ParseEvents(declaration)).with_outputs(
            REJECTED, main="events"
        )
        read = raw | "count rows" >> beam.Map(lambda element: element[2].num_rows)
        self._keep("rows_read", read | "sum rows" >> beam.CombineGlobally(sum))
        rejected = parsed[REJECTED] | "rejected by reason" >> beam.CombinePerKey(_sum_rejected)
        self._keep("rejected", rejected | "reasons" >> beam.combiners.ToDict())
        if declaration.item:
            self._catalogue(parsed.events)
        made = parsed.events | "examples" >> ExamplesBySplit(declaration)
        outputs = {name: made[name] for name in declaration.outputs}
        if declaration.user and declaration.item:
            self._interactions(outputs)
        self._transform(pipeline, outputs)

    def _keep(self, name: str, value: beam.PCollection) -> None:
        """Stores a singleton for the end of the run."""
        path = str(self.work / f"{name}.pickle")
        _ = value | f"keep {name}" >> beam.Map(_dump, path)

    def _transform(self, pipeline: beam.Pipeline, outputs: dict[str, beam.PCollection]) -> None:
        declaration = self.declaration
        metadata = dataset_metadata.DatasetMetadata.from_feature_spec(raw_spec(declaration))
        (Path(self.place) / "schema.pbtxt").write_text(text_format.MessageToString(metadata.schema))
        representations = InferTensorRepresentationsFromMixedSchema(metadata.schema)
        config = TensorAdapterConfig(self._raw_arrow_schema(), representations)
        passed = {LABEL_PREFIX + name for name in self.layout.labels} | {WEIGHT, *self.layout.keys}
        for name, batches in outputs.items():
            statistics = batches | f"{name} statistics" >> beam.CombineGlobally(Statistics())
            self._keep(f"statistics_{name}", statistics)
        sample = (
            outputs[declaration.given_splits[-1]]
            | "serving columns" >> beam.Map(lambda b: b.select(list(raw_spec(declaration))))
            | "encode raw" >> beam.FlatMap(writers.encode)
            | "sample" >> beam.combiners.Top.Smallest(SAMPLE_ROWS, key=_content_hash)
        )
        self._keep("sample", sample)
        with tft_beam.Context(
            temp_dir=str(self.work / "tft"),
            passthrough_keys=passed & set(self._raw_arrow_schema().names),
        ):
            transform = (outputs[declaration.learned_from], config) | tft_beam.AnalyzeDataset(
                make_preprocessing_fn(declaration)
            )
            _ = transform | tft_beam.WriteTransformFn(f"{self.place}/transform")
            _ = metadata | tft_beam.WriteMetadata(f"{self.place}/transform/metadata", pipeline)
            transformed = {
                name: self._transform_one(name, (batches, config), transform)
                for name, batches in outputs.items()
            }
        self._count(transformed)

    def _transform_one(self, name: str, data: Any, transform: Any) -> beam.PCollection:
        """Transforms one output, and writes it if it is a split."""
        batches, metadata = (data, transform) | f"transform {name}" >> tft_beam.TransformDataset(
            output_record_batches=True
        )
        batches = batches | f"{name} with labels" >> beam.Map(writers.with_passthrough)
        if name in self.declaration.given_splits:
            _ = (
                batches
                | f"encode {name}"
                >> beam.FlatMap(
                    lambda batch, meta: writers.encode(batch, meta.schema),
                    beam.pvalue.AsSingleton(metadata.deferred_metadata),
                )
                | f"write {name}"
                >> writers.WriteShards(f"{self.place}/examples", name, self.declaration.shards)
            )
        return batches

    def _count(self, outputs: dict[str, beam.PCollection]) -> None:
        """Counts every id, and finds the longest lists; those of histories are in examples only."""
        declaration = self.declaration
        tables = tables_of_fields(declaration)
        ids = outputs[declaration.learned_from] | "ids" >> beam.FlatMap(
            writers.ids_by_table, tables, packed_fields(declaration).get(IDS, [])
        )
        counts = ids | "count ids" >> beam.CombinePerKey(writers.CountIds())
        self._keep("ids", counts | "ids by table" >> beam.combiners.ToDict())
        lists = [
            outputs[name]
            | f"lists of {name}" >> beam.FlatMap(writers.longest_lists, _depths(declaration))
            for name in dict.fromkeys((declaration.learned_from, "train"))
        ]
        longest = lists | "lists" >> beam.Flatten() | "longest" >> beam.CombinePerKey(max)
        self._keep("lengths", longest | "lengths" >> beam.combiners.ToDict())

    def _raw_arrow_schema(self) -> pa.Schema:
        kinds = {"string": pa.large_binary(), "int64": pa.int64(), "float32": pa.float32()}
        fields = [(c.name, pa.large_list(kinds[c.dtype])) for c in raw_columns(self.declaration)]
        fields += [(LABEL_PREFIX + n, pa.large_list(pa.float32())) for n in self.layout.labels]
        if self.declaration.weight:
            fields.append((WEIGHT, pa.large_list(pa.float32())))
        for key in self.layout.keys:
            kind = pa.int64() if key == TIME_KEY else pa.large_binary()
            fields.append((key, pa.large_list(kind)))
        return self._ordered(fields)

    def _ordered(self, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
        """The order in which `MakeExamples` writes columns: scalars, then histories."""
        histories = {c.name for c in raw_columns(self.declaration) if c.history}
        return pa.schema(sorted(fields, key=lambda field: field[0] in histories))

    def _interactions(self, outputs: dict[str, beam.PCollection]) -> None:
        """One row per event: its user, item, time and split."""
        events = {**outputs, "train": outputs[self.declaration.learned_from]}
        tables = [
            events[split] | f"{split} interactions" >> beam.Map(_interaction_rows, split)
            for split in self.declaration.given_splits
        ]
        keys = self.layout.keys
        columns = {name: kind for name, (key, kind) in _INTERACTION.items() if key in keys}
        schema = pa.schema({**columns, "split": pa.string()})
        prefix = f"{self.place}/interactions/interactions"
        write = WriteToParquetBatched(prefix, schema, file_name_suffix=".parquet")
        _ = tables | "interactions" >> beam.Flatten() | "write interactions" >> write

    def _catalogue(self, events: beam.PCollection) -> None:
        """One row per item, as its newest event describes it."""
        item = self.declaration.item
        columns = [str(item), *catalogue_columns(self.declaration)]
        schema = pa.schema([(name, _CATALOGUE[self.layout.types[name]]) for name in columns])
        newest = (
            events
            | "items" >> beam.FlatMap(_item_rows, columns, self.declaration.time)
            | "newest" >> beam.CombinePerKey(max)
            | "catalogue" >> beam.MapTuple(lambda key, row: dict(zip(columns, row[2], strict=True)))
        )
        _ = newest | "write items" >> beam.io.WriteToParquet(
            f"{self.place}/items/items", schema, file_name_suffix=".parquet"
        )


def raw_spec(declaration: Declaration) -> dict[str, Any]:
    """Feature spec of the transform's inputs."""
    spec = {}
    for column in raw_columns(declaration):
        dtype = tf.dtypes.as_dtype(column.dtype)
        if column.history:
            spec[column.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        else:
            spec[column.name] = tf.io.FixedLenFeature([], dtype)
    return spec


def _depths(declaration: Declaration) -> dict[str, int]:
    """Features with lists of values, and how deep in the transformed batch they are."""
    depths = {name: 0 for name, feature in declaration.features.items() if feature.separator}
    depths.update({cross.name: 0 for cross in declaration.crosses})
    return depths


def _dump(value: Any, path: str) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(pickle.dumps(value))


def _content_hash(example: bytes) -> tuple[int, bytes]:
    return zlib.crc32(example), example


def _sum_rejected(values: Any) -> tuple[int, str]:
    counts, examples = zip(*values, strict=True)
    return sum(counts), min(examples)


def _interaction_rows(batch: pa.RecordBatch, split: str) -> pa.Table:
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
