"""The Beam graph that makes examples of raw examples."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

from pipeline import writers
from pipeline.declaration import Declaration
from pipeline.description import packed_fields, raw_columns, tables_of_fields
from pipeline.events import Layout
from pipeline.graph import Keep
from pipeline.ingest import ReadExamples, example_schema
from pipeline.shared import Shared
from pipeline.transform import make_preprocessing_fn
from tfrec.features import IDS, LABEL_PREFIX, WEIGHT

SAMPLE_ROWS = 100
SHARDS = 8
ROWS_OF_SHARD = 250_000  # which are sorted in memory


class Flow:
    """The Beam graph of the step `transform`.

    Args:
        declaration: of the data set.
        counts: of examples, by split.
        ingested: output of the step `ingest`.
        shared: where workers read and write.
        analyse: makes the transform function of the batches that are learned from, the
            configuration of their tensors and the preprocessing_fn.
    """

    def __init__(
        self,
        declaration: Declaration,
        counts: dict[str, int],
        ingested: Path,
        shared: Shared,
        analyse: Callable[..., Any],
    ) -> None:
        self.declaration, self.ingested, self.shared = declaration, ingested, shared
        self.analyse = analyse
        self.shards = {
            split: declaration.shards or max(SHARDS, math.ceil(count / ROWS_OF_SHARD))
            for split, count in counts.items()
        }

    def build(self, pipeline: beam.Pipeline, keep: Keep) -> None:
        declaration, schema = self.declaration, example_schema(self.declaration)
        outputs = {
            name: pipeline | f"{name} examples" >> ReadExamples(self.ingested, name, self.shared)
            for name in declaration.outputs
        }
        metadata = raw_metadata(declaration)
        representations = InferTensorRepresentationsFromMixedSchema(metadata.schema)
        config = TensorAdapterConfig(schema, representations)
        layout = Layout.of(declaration)
        passed = {LABEL_PREFIX + name for name in layout.labels} | {WEIGHT, *layout.keys}
        sample = (
            outputs[declaration.given_splits[-1]]
            | "serving columns" >> beam.Map(lambda b: b.select(list(raw_spec(declaration))))
            | "encode raw" >> beam.FlatMap(writers.encode)
            | "sample" >> beam.combiners.Top.Smallest(SAMPLE_ROWS, key=_content_hash)
        )
        keep("sample", sample)
        with tft_beam.Context(
            temp_dir=f"{self.shared.temporary}/tft", passthrough_keys=passed & set(schema.names)
        ):
            learned = self._learned(pipeline, schema)
            transform = self.analyse(learned, config, make_preprocessing_fn(declaration))
            graph = f"{self.shared.output}/transform"
            _ = transform | tft_beam.WriteTransformFn(graph)
            _ = metadata | tft_beam.WriteMetadata(f"{graph}/metadata", pipeline)
            transformed = {
                name: self._transform_one(name, (batches, config), transform)
                for name, batches in outputs.items()
            }
        self._count(transformed, keep)

    def _learned(self, pipeline: beam.Pipeline, schema: pa.Schema) -> beam.PCollection:
        """Raw examples to analyse, with empty histories: nothing is learned from these.

        They are read by themselves, so that the runner need not hold them for the transform.
        """
        histories = {column.name for column in raw_columns(self.declaration) if column.history}
        columns = [name for name in schema.names if name not in histories]
        read = ReadExamples(self.ingested, self.declaration.learned_from, self.shared, columns)
        return (
            pipeline
            | "learned examples" >> read
            | "empty histories" >> beam.Map(_with_empty_lists, schema)
        )

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
                >> beam.Map(
                    lambda batch, meta: writers.encode(batch, meta.schema),
                    beam.pvalue.AsSingleton(metadata.deferred_metadata),
                )
                | f"write {name}"
                >> writers.WriteShards(
                    f"{self.shared.output}/examples",
                    name,
                    self.shards[name],
                    f"{self.shared.temporary}/{name}",
                )
            )
        return batches

    def _count(self, outputs: dict[str, beam.PCollection], keep: Keep) -> None:
        """Counts every id, and finds the longest lists; those of histories are in examples only."""
        declaration = self.declaration
        tables = tables_of_fields(declaration)
        ids = outputs[declaration.learned_from] | "ids" >> beam.FlatMap(
            writers.ids_by_table, tables, packed_fields(declaration).get(IDS, [])
        )
        counts = ids | "count ids" >> beam.CombinePerKey(writers.CountIds())
        keep("ids", counts | "ids by table" >> beam.combiners.ToDict())
        lists = [
            outputs[name]
            | f"lists of {name}" >> beam.FlatMap(writers.longest_lists, _depths(declaration))
            for name in dict.fromkeys((declaration.learned_from, "train"))
        ]
        longest = lists | "lists" >> beam.Flatten() | "longest" >> beam.CombinePerKey(max)
        keep("lengths", longest | "lengths" >> beam.combiners.ToDict())


def raw_metadata(declaration: Declaration) -> dataset_metadata.DatasetMetadata:
    """The transform's inputs, as tf.Transform describes them."""
    return dataset_metadata.DatasetMetadata.from_feature_spec(raw_spec(declaration))


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
    depths = {name: 0 for name, feature in declaration.features.items() if feature.many}
    depths.update({cross.name: 0 for cross in declaration.crosses})
    return depths


def _with_empty_lists(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with all columns of a schema, those that it does not have as empty lists."""
    offsets = pa.repeat(pa.scalar(0, pa.int64()), batch.num_rows + 1)
    present = set(batch.schema.names)
    arrays = [
        batch.column(field.name)
        if field.name in present
        else pa.LargeListArray.from_arrays(offsets, pa.array([], field.type.value_type))
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema.names)


def _content_hash(example: bytes) -> tuple[int, bytes]:
    return zlib.crc32(example), example
