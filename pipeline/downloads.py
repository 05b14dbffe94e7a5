"""Public data sets: fetched by checksum, and written as Parquet files that declarations read."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import wrap_file

from tfrec.strict import UserError, nearest

EVENTS = "events.parquet"
_BLOCK = 2**20
_SECONDS = 30  # without an answer
_YEAR = r"\((?P<year>\d{4})\)\s*$"


@dataclass(frozen=True)
class Download:
    """A file that someone publishes.

    Attributes:
        url: where.
        sha256: of its content.
        convert: writes the events that it holds to a Parquet file.
    """

    url: str
    sha256: str
    convert: Callable[[Path, Path], None]

    @property
    def file_name(self) -> str:
        """Last part of the URL."""
        return self.url.rpartition("/")[2]


def prepare(name: str, folder: Path) -> Path:
    """Fetches a data set and writes its events, unless they are there already.

    Args:
        name: of the data set.
        folder: where its folder is made.

    Returns:
        The Parquet file of its events.

    Raises:
        UserError: no such data set, no network, or another content than was published.
    """
    if name not in DOWNLOADS:
        raise UserError(f"no data set {name!r}{nearest(name, DOWNLOADS)}")
    download, place = DOWNLOADS[name], folder / name
    target = place / EVENTS
    if not target.exists():
        place.mkdir(parents=True, exist_ok=True)
        archive = _fetch(download, place)
        partial = target.with_suffix(".partial")
        try:
            download.convert(archive, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _fetch(download: Download, place: Path) -> Path:
    """The file as it is published; one that was put there by hand counts as well."""
    target = place / download.file_name
    if target.exists():
        with target.open("rb") as file:
            _check(download, hashlib.file_digest(file, "sha256").hexdigest(), str(target))
        return target
    partial = target.with_suffix(".partial")
    digest = hashlib.sha256()
    console = Console(stderr=True)
    try:
        with urllib.request.urlopen(download.url, timeout=_SECONDS) as answer:
            shown = wrap_file(
                answer,
                int(answer.headers.get("Content-Length") or 0),
                description=download.file_name,
                console=console,
                disable=not console.is_terminal,
            )
            with shown as stream, partial.open("wb") as file:
                while block := stream.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
        _check(download, digest.hexdigest(), download.url)
        partial.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{download.url}: cannot be downloaded ({reason}); put the file at {target}, its "
            f"sha256 is {download.sha256}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _check(download: Download, digest: str, what: str) -> None:
    if digest != download.sha256:
        raise UserError(
            f"{what}: is not the file that was published: its sha256 is {digest}, not "
            f"{download.sha256}"
        )


def _movielens_1m(archive: Path, target: Path) -> None:
    """Ratings with what is known of movies and users; fields are separated by `::`."""
    with zipfile.ZipFile(archive) as files:
        movies = _movies(_dat(files, "movies", ["movieId", "title", "genres"]))
        users = _dat(files, "users", ["userId", "gender", "age", "occupation", "zip"])
        with files.open("ml-1m/ratings.dat") as stream:
            lines = (line.decode("latin-1").rstrip("\r\n").split("::") for line in stream)
            _write(target, _batches(lines, _RATING), [("movieId", movies), ("userId", users)])


def _dat(files: zipfile.ZipFile, name: str, columns: list[str]) -> pa.Table:
    with files.open(f"ml-1m/{name}.dat") as stream:
        rows = [line.decode("latin-1").rstrip("\r\n").split("::") for line in stream]
    return pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))


def _movielens_25m(archive: Path, target: Path) -> None:
    """Ratings with titles, genres and years of the movies."""
    with zipfile.ZipFile(archive) as files:
        with files.open("ml-25m/movies.csv") as stream:
            movies = _movies(pa.Table.from_batches(_csv(stream)))
        with files.open("ml-25m/ratings.csv") as stream:
            _write(target, _csv(stream), [("movieId", movies)])


def _csv(stream: IO[bytes]) -> Iterator[pa.RecordBatch]:
    columns = dict.fromkeys(["userId", "movieId"], pa.string())
    convert = pyarrow.csv.ConvertOptions(column_types=columns)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    yield from pyarrow.csv.open_csv(stream, parse_options=parse, convert_options=convert)


def _movies(movies: pa.Table) -> pa.Table:
    """With the year, which ends the title."""
    year = pc.struct_field(pc.extract_regex(movies.column("title"), _YEAR), "year")
    return movies.append_column("year", year.cast(pa.int64()))


_RATING = {"userId": pa.string(), "movieId": pa.string(), "rating": pa.float64()}
_RATING |= {"timestamp": pa.int64()}


def _batches(
    rows: Iterator[list[str]], types: dict[str, pa.DataType], size: int = 100_000
) -> Iterator[pa.RecordBatch]:
    some: list[list[str]] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield _batch(some, types)
            some = []
    if some:
        yield _batch(some, types)


def _batch(rows: list[list[str]], types: dict[str, pa.DataType]) -> pa.RecordBatch:
    columns = zip(types.items(), zip(*rows, strict=True), strict=True)
    return pa.RecordBatch.from_pydict(
        {name: pa.array(values, pa.string()).cast(kind) for (name, kind), values in columns}
    )


def _write(
    target: Path, events: Iterator[pa.RecordBatch], sides: list[tuple[str, pa.Table]]
) -> None:
    """Writes events, each with the columns of the side tables that its keys name."""
    writer = None
    try:
        for events_batch in events:
            table = pa.Table.from_batches([events_batch])
            for key, side in sides:
                rows = pc.index_in(table.column(key), side.column(key).combine_chunks())
                for name in side.column_names:
                    if name != key:
                        table = table.append_column(name, side.column(name).take(rows))
            writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer:
            writer.close()


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
DOWNLOADS = {
    "movielens-1m": Download(
        f"{_GROUPLENS}/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        _movielens_1m,
    ),
    "movielens-25m": Download(
        f"{_GROUPLENS}/ml-25m.zip",
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        _movielens_25m,
    ),
}
