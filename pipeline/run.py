"""The whole pipeline: source to data set directory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromMixedSchema

from pipeline import writers
from pipeline.declaration import Declaration
from pipeline.events import REJECTED, Layout, ParseEvents
from pipeline.examples import ExamplesBySplit
from pipeline.sources import ReadSource
from pipeline.statistics import SplitStatistics, Statistics, to_proto
from pipeline.transform import make_preprocessing_fn
from tfrec.features import (
    ITEM_KEY,
    LABEL_PREFIX,
    SPLITS,
    USER_KEY,
    WEIGHT,
    Column,
    Feature,
    Features,
    History,
    Label,
    Table,
)
from tfrec.strict import UserError

SAMPLE_ROWS = 100
_DTYPES = {"string": tf.string, "number": tf.float32, "time": tf.int64}


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        rows_read: rows of the source.
        rejected: rows by reason, with an example value.
        examples: rows by split.
    """

    rows_read: int
    rejected: dict[str, tuple[int, str]]
    examples: dict[str, int]


def run(
    declaration: Declaration, output: Path, options: PipelineOptions, *, overwrite: bool = False
) -> Report:
    """Makes the data set directory of a declaration.

    It is made in a temporary place beside `output` and renamed when whole.

    Args:
        declaration: of the data set.
        output: directory to make.
        options: of Beam.
        overwrite: replaces a data set that is there already.

    Raises:
        UserError: the output exists, the source does not fit the declaration, too many rows are
            rejected, or a split or a vocabulary turned out empty.
    """
    with _replaced(output, overwrite) as place:
        work = place / "work"
        work.mkdir()
        (place / "examples").mkdir()
        flow = _Flow(declaration, place, work)
        pipeline = beam.Pipeline(options=options)
        flow.build(pipeline)
        pipeline.run().wait_until_finish()
        report = _Finish(declaration, place, work).finish()
        shutil.rmtree(work)
    return report


@contextmanager
def _replaced(output: Path, overwrite: bool) -> Iterator[Path]:
    """A new directory that takes the place of `output` when the body succeeds."""
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; name another --output, or pass --overwrite")
    if output.exists() and not (output / "features.json").is_file():
        raise UserError(f"{output} is no data set, so it is not overwritten")
    output.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    place.chmod(0o755)
    try:
        yield place
        if output.exists():
            old = place.with_name(place.name + ".old")
            output.rename(old)
            place.rename(output)
            shutil.rmtree(old)
        else:
            place.rename(output)
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Flow:
    """The Beam graph."""

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
        splits = parsed.events | "examples" >> ExamplesBySplit(declaration)
        splits = {name: splits[name] for name in declaration.given_splits}
        self._transform(pipeline, splits)

    def _keep(self, name: str, value: beam.PCollection) -> None:
        """Stores a singleton for the end of the run."""
        path = str(self.work / f"{name}.pickle")
        _ = value | f"keep {name}" >> beam.Map(_dump, path)

    def _transform(self, pipeline: beam.Pipeline, splits: dict[str, beam.PCollection]) -> None:
        declaration = self.declaration
        metadata = dataset_metadata.DatasetMetadata.from_feature_spec(raw_spec(declaration))
        (Path(self.place) / "schema.pbtxt").write_text(text_format.MessageToString(metadata.schema))
        representations = InferTensorRepresentationsFromMixedSchema(metadata.schema)
        config = TensorAdapterConfig(self._raw_arrow_schema(), representations)
        passed = {LABEL_PREFIX + name for name in self.layout.labels} | {WEIGHT, USER_KEY, ITEM_KEY}
        for split, batches in splits.items():
            statistics = batches | f"{split} statistics" >> beam.CombineGlobally(Statistics())
            self._keep(f"statistics_{split}", statistics)
        sample = (
            splits[list(splits)[-1]]
            | "serving columns" >> beam.Map(lambda b: b.select(list(raw_spec(declaration))))
            | "encode raw" >> beam.FlatMap(writers.encode)
            | "sample" >> beam.combiners.Top.Smallest(SAMPLE_ROWS, key=_content_hash)
        )
        self._keep("sample", sample)
        with tft_beam.Context(
            temp_dir=str(self.work / "tft"),
            passthrough_keys=passed & set(self._raw_arrow_schema().names),
        ):
            transform = (splits["train"], config) | tft_beam.AnalyzeDataset(
                make_preprocessing_fn(declaration)
            )
            _ = transform | tft_beam.WriteTransformFn(os.path.join(self.place, "transform"))
            _ = metadata | tft_beam.WriteMetadata(
                os.path.join(self.place, "transform", "metadata"), pipeline
            )
            for split, batches in splits.items():
                self._transform_split(split, (batches, config), transform)

    def _transform_split(self, split: str, data: Any, transform: Any) -> None:
        batches, metadata = (data, transform) | f"transform {split}" >> tft_beam.TransformDataset(
            output_record_batches=True
        )
        batches = batches | f"{split} with labels" >> beam.Map(writers.with_passthrough)
        if split == "train":
            tables = _tables_of_fields(self.declaration)
            ids = batches | "ids" >> beam.FlatMap(writers.ids_by_table, tables)
            counts = ids | "count ids" >> beam.CombinePerKey(writers.CountIds())
            self._keep("ids", counts | "ids by table" >> beam.combiners.ToDict())
            depths = _depths(self.declaration)
            longest = batches | "lists" >> beam.FlatMap(writers.longest_lists, depths)
            longest = longest | "longest" >> beam.CombinePerKey(max)
            self._keep("lengths", longest | "lengths" >> beam.combiners.ToDict())
        _ = (
            batches
            | f"encode {split}"
            >> beam.FlatMap(
                lambda batch, meta: writers.encode(batch, meta.schema),
                beam.pvalue.AsSingleton(metadata.deferred_metadata),
            )
            | f"write {split}"
            >> writers.WriteShards(
                os.path.join(self.place, "examples"), split, self.declaration.shards
            )
        )

    def _raw_arrow_schema(self) -> pa.Schema:
        kinds = {"string": pa.large_binary(), "int64": pa.int64(), "float32": pa.float32()}
        fields = [(c.name, pa.large_list(kinds[c.dtype])) for c in raw_columns(self.declaration)]
        fields += [(LABEL_PREFIX + n, pa.large_list(pa.float32())) for n in self.layout.labels]
        if self.declaration.weight:
            fields.append((WEIGHT, pa.large_list(pa.float32())))
        if self.declaration.user:
            fields.append((USER_KEY, pa.large_list(pa.large_binary())))
        if self.declaration.item:
            fields.append((ITEM_KEY, pa.large_list(pa.large_binary())))
        return self._ordered(fields)

    def _ordered(self, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
        """The order in which `MakeExamples` writes columns: scalars, then histories."""
        histories = {c.name for c in raw_columns(self.declaration) if c.history}
        return pa.schema(sorted(fields, key=lambda field: field[0] in histories))

    def _catalogue(self, events: beam.PCollection) -> None:
        """One row per item, as its newest event describes it."""
        declaration = self.declaration
        assert declaration.item
        columns = catalogue_columns(declaration)
        time = declaration.time
        newest = (
            events
            | "items" >> beam.FlatMap(_item_rows, declaration.item, columns, time)
            | "newest" >> beam.CombinePerKey(max)
        )
        rows = newest | "catalogue" >> beam.Map(
            lambda row: {declaration.item: row[0], **dict(zip(columns, row[1][1], strict=True))}
        )
        schema = pa.schema([(declaration.item, pa.string())] + [(c, pa.string()) for c in columns])
        _ = rows | "write items" >> beam.io.WriteToParquet(
            os.path.join(self.place, "items", "items"), schema, file_name_suffix=".parquet"
        )


class _Finish:
    """What is known only when the Beam graph has run: checks, vocabularies, features.json."""

    def __init__(self, declaration: Declaration, place: Path, work: Path) -> None:
        self.declaration, self.place, self.work = declaration, place, work

    def finish(self) -> Report:
        declaration = self.declaration
        statistics: dict[str, SplitStatistics] = {
            split: self._kept(f"statistics_{split}") for split in declaration.given_splits
        }
        counts = {split: s.rows for split, s in statistics.items()}
        rejected = self._kept("rejected")
        malformed = sum(n for reason, (n, _) in rejected.items() if "number of fields" in reason)
        report = Report(self._kept("rows_read") + malformed, rejected, counts)
        self._check_rejected(report)
        for split, count in counts.items():
            if not count:
                raise UserError(
                    f"split {split} is empty ({writers.split_counts(counts)}); "
                    "give it more data or change `split`"
                )
        output = tft.TFTransformOutput(str(self.place / "transform"))
        ids = self._kept("ids")
        tables = self._tables(output, ids)
        self._write_vocabularies(output, tables, ids)
        lengths = self._kept("lengths")
        features = describe(declaration, tables, lengths, counts, statistics["train"])
        features.save(self.place)
        folder = self.place / "statistics"
        folder.mkdir()
        (folder / "FeatureStats.pb").write_bytes(to_proto(statistics))
        with tf.io.TFRecordWriter(str(self.place / "sample.tfrecord")) as writer:
            for example in self._kept("sample"):
                writer.write(example)
        summary = {"rows_read": report.rows_read, "rejected": rejected, "examples": counts}
        (self.place / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
        declared = declaration.model_dump(mode="json", exclude_unset=True)
        (self.place / "declaration.json").write_text(json.dumps(declared, indent=1) + "\n")
        return report

    def _kept(self, name: str) -> Any:
        return pickle.loads((self.work / f"{name}.pickle").read_bytes())

    def _check_rejected(self, report: Report) -> None:
        rejected = sum(count for count, _ in report.rejected.values())
        if not report.rows_read:
            raise UserError("the source has no rows")
        share = rejected / report.rows_read
        if share > self.declaration.max_rejected:
            reason, (count, example) = max(report.rejected.items(), key=lambda item: item[1][0])
            shown = f", such as {example!r}" if example else ""
            raise UserError(
                f"{rejected:,} of {report.rows_read:,} rows rejected ({share:.2%}, max_rejected is "
                f"{self.declaration.max_rejected:.2%}); most: {reason}{shown} ({count:,} rows)"
            )

    def _tables(self, output: tft.TFTransformOutput, ids: dict[str, np.ndarray]) -> list[Table]:
        tables: dict[str, Table] = {}
        for name, feature in self.declaration.features.items():
            table = self.declaration.vocabulary(name)
            if feature.kind == "buckets":
                tables[name] = Table(name, feature.buckets or 0)
            elif feature.hash_buckets:
                tables[table] = Table(table, feature.hash_buckets)
            elif feature.kind == "category":
                size = output.vocabulary_size_by_name(table)
                if not ids[table][1 : size + 1].any():
                    raise UserError(
                        f"vocabulary {table!r} is empty: no value of column "
                        f"{self.declaration.column(name)!r} occurs {feature.min_count} times in "
                        "train; lower min_count or check the column"
                    )
                tables[table] = Table(table, size, feature.oov_buckets)
        for cross in self.declaration.crosses:
            tables[cross.name] = Table(cross.name, cross.buckets)
        return list(tables.values())

    def _write_vocabularies(
        self, output: tft.TFTransformOutput, tables: list[Table], ids: dict[str, np.ndarray]
    ) -> None:
        folder = self.place / "vocabulary"
        folder.mkdir()
        learned = {
            self.declaration.vocabulary(name)
            for name, feature in self.declaration.features.items()
            if feature.kind == "category" and not feature.hash_buckets
        }
        for table in tables:
            if table.name not in ids:
                continue
            tokens = None
            if table.name in learned:
                vocabulary = output.vocabulary_by_name(table.name)
                tokens = [token.decode("utf-8", "replace") for token in vocabulary]
            counts = np.zeros(table.size, np.int64)
            counts[: len(ids[table.name])] = ids[table.name]
            writers.write_vocabulary(folder / f"{table.name}.tsv", tokens, counts)


def raw_columns(
    declaration: Declaration, train: SplitStatistics | None = None
) -> tuple[Column, ...]:
    """Raw inputs of the transform.

    Args:
        declaration: of the data set.
        train: statistics of the training split, if known: a column that always had a value
            there is required of a request.
    """
    layout = Layout.of(declaration)
    dtypes: dict[str, Any] = {"string": "string", "number": "float32", "time": "int64"}
    columns = []
    for name in layout.inputs:
        missing = train.columns[name].missing if train else 0
        columns.append(Column(name, dtypes[layout.types[name]], None, required=not missing))
    for history, declared in declaration.histories.items():
        for name in dict.fromkeys(declaration.column(f) for f in declared.features):
            dtype = dtypes[layout.types[name]]
            columns.append(Column(f"{history}_{name}", dtype, history, required=False))
    return tuple(columns)


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


def catalogue_columns(declaration: Declaration) -> list[str]:
    """Raw columns of the item catalogue, beside the item's own."""
    columns = [
        declaration.column(name)
        for name, feature in declaration.features.items()
        if feature.role == "item"
    ]
    return [c for c in dict.fromkeys([*columns, *declaration.show]) if c != declaration.item]


def describe(
    declaration: Declaration,
    tables: list[Table],
    lengths: dict[str, int],
    counts: dict[str, int],
    train: SplitStatistics,
) -> Features:
    """The description that models are built from."""

    def length(name: str) -> int | None:
        if not declaration.features[name].separator:
            return None
        return declaration.features[name].length or max(lengths[name], 1)

    fields = {}
    for name, feature in declaration.features.items():
        if feature.kind == "number":
            fields[name] = Feature(name, "number", feature.role)
        else:
            table = name if feature.kind == "buckets" else declaration.vocabulary(name)
            fields[name] = Feature(name, "category", feature.role, table, length(name))
    histories = []
    for history, declared in declaration.histories.items():
        steps = [
            Feature(
                f"{history}_{name}",
                fields[name].kind,
                "user",
                fields[name].table,
                fields[name].length,
                mirrors=name,
            )
            for name in declared.features
        ]
        histories.append(History(history, declared.length, tuple(steps)))
    crosses = tuple(
        Feature(c.name, "category", "context", c.name, max(lengths[c.name], 1))
        for c in declaration.crosses
    )
    return Features(
        name=declaration.name,
        features=tuple(fields.values()),
        tables=tuple(tables),
        labels=tuple(Label(name, label.task) for name, label in declaration.labels.items()),
        columns=raw_columns(declaration, train),
        crosses=crosses,
        histories=tuple(histories),
        weighted=declaration.weight is not None,
        user_key=declaration.user,
        item_key=declaration.item,
        counts={split: counts[split] for split in SPLITS if split in counts},
    )


def _tables_of_fields(declaration: Declaration) -> dict[str, str]:
    return {
        name: name if feature.kind == "buckets" else declaration.vocabulary(name)
        for name, feature in declaration.features.items()
        if feature.kind != "number"
    }


def _depths(declaration: Declaration) -> dict[str, int]:
    """Features with lists of values, and how deep in the transformed batch they are."""
    depths = {name: 0 for name, feature in declaration.features.items() if feature.separator}
    depths.update({cross.name: 0 for cross in declaration.crosses})
    return depths


def _dump(value: Any, path: str) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(pickle.dumps(value))


def _content_hash(example: bytes) -> tuple[int, bytes]:
    import zlib

    return zlib.crc32(example), example


def _sum_rejected(values: Any) -> tuple[int, str]:
    counts, examples = zip(*values, strict=True)
    return sum(counts), min(examples)


def _item_rows(
    element: tuple[str | None, pa.RecordBatch], item: str, columns: list[str], time: str | None
) -> Iterator[tuple[str, tuple[int, tuple[str, ...]]]]:
    _, batch = element
    batch = pa.RecordBatch.from_arrays(
        [batch.column(item), *(batch.column(c).cast(pa.string()) for c in columns)],
        [item, *columns],
    ) if time is None else batch
    times = batch.column(time).to_pylist() if time else [0] * batch.num_rows
    parts = [batch.column(c).cast(pa.string()).to_pylist() for c in columns]
    for key, when, *values in zip(batch.column(item).to_pylist(), times, *parts, strict=True):
        yield key, (when, tuple("" if v is None or v == "nan" else v for v in values))
