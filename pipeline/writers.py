"""What the pipeline leaves in the data set directory."""

from __future__ import annotations

import pickle
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from pipeline.progress import advance
from tfrec.features import IDS, SPLITS

BYTES_OF_PIECES = 2**25  # of examples that a worker holds before it writes pieces of shards

Piece = tuple[str, int, int]  # file, where it begins, how long it is


class WriteShards(beam.PTransform):
    """Writes lists of serialized examples to `<directory>/<split>-0000i-of-0000n.tfrecord`.

    Examples do not go through the runner, which may hold in memory what it groups: pieces of the
    shards go to files, and the runner is told where they are. An example's place is the hash of
    its content: the order is as good as shuffled, and the same events give the same bytes on any
    runner. A retried shard replaces itself.

    Args:
        directory: local or remote, that all workers see.
        split: of the examples.
        shards: number of files.
        temporary: directory of the pieces, that all workers see; left to be deleted.
    """

    def __init__(self, directory: str, split: str, shards: int, temporary: str) -> None:
        super().__init__()
        self.directory, self.split, self.shards = directory, split, shards
        self.temporary = temporary

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        indices = examples.pipeline | beam.Create(
            [(index, None) for index in range(self.shards)]  # an empty shard is a file too
        )
        pieces = examples | "pieces" >> beam.ParDo(WritePieces(self.shards, self.temporary))
        return (
            (pieces, indices)
            | beam.Flatten()
            | beam.GroupByKey()
            | "write" >> beam.MapTuple(self._write)
        )

    def _write(self, index: int, pieces: Iterable[Piece | None]) -> None:
        name = f"{self.split}-{index:05d}-of-{self.shards:05d}.tfrecord"
        path = f"{self.directory}/{name}"
        partial = f"{path}.{uuid.uuid4().hex}"
        parts = map(_read_piece, filter(None, pieces))
        rows = sorted((zlib.crc32(example), example) for part in parts for example in part)
        tf.io.gfile.makedirs(self.directory)
        with tf.io.TFRecordWriter(partial) as writer:
            for _, example in rows:
                writer.write(example)
        tf.io.gfile.rename(partial, path, overwrite=True)
        advance("rows written", len(rows))


class WritePieces(beam.DoFn):
    """Lists of serialized examples to `(shard, where a piece of it is)`.

    Args:
        shards: number of them.
        directory: of the files, each with pieces of all shards.
    """

    def __init__(self, shards: int, directory: str) -> None:
        super().__init__()
        self.shards, self.directory = shards, directory

    def start_bundle(self) -> None:
        self.held: list[bytes] = []
        self.size = 0

    def process(self, examples: list[bytes]) -> Iterator[tuple[int, Piece]]:
        self.held += examples
        self.size += sum(map(len, examples))
        if self.size >= BYTES_OF_PIECES:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for piece in self._flush():
            yield WindowedValue(piece, 0, [GlobalWindow()])

    def _flush(self) -> Iterator[tuple[int, Piece]]:
        by_shard: dict[int, list[bytes]] = {}
        for example in self.held:
            by_shard.setdefault(zlib.crc32(example) % self.shards, []).append(example)
        self.start_bundle()
        if not by_shard:
            return
        tf.io.gfile.makedirs(self.directory)
        path, start = f"{self.directory}/{uuid.uuid4().hex}", 0
        found = []
        with tf.io.gfile.GFile(path, "wb") as file:
            for shard, examples in by_shard.items():
                data = pickle.dumps(examples)
                file.write(data)
                found.append((shard, (path, start, len(data))))
                start += len(data)
        yield from found


def _read_piece(piece: Piece) -> list[bytes]:
    path, start, size = piece
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(start)
        return pickle.loads(file.read(size))


def encode(batch: pa.RecordBatch, schema: Any = None) -> list[bytes]:
    """Serialized tf.Examples of a record batch, one per row; equal rows give equal bytes."""
    examples = RecordBatchToExamplesEncoder(schema).encode(batch)  # in an order of its own
    parse = tf.train.Example.FromString
    return [parse(example).SerializeToString(deterministic=True) for example in examples]


def with_passthrough(element: tuple[pa.RecordBatch, dict[str, pa.Array]]) -> pa.RecordBatch:
    """One record batch of tf.Transform's output and the columns that passed by it."""
    batch, passed = element
    present = set(batch.schema.names)
    extra = {name: array for name, array in passed.items() if name not in present}
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *extra.values()], [*batch.schema.names, *extra]
    )


class CountIds(beam.CombineFn):
    """Sums (ids, counts) pairs into one array: element i is the count of id i."""

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(0, np.int64)

    def add_input(self, total: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        ids, counts = pair
        if len(ids) and ids[-1] >= len(total):  # ids are sorted
            total = np.pad(total, (0, int(ids[-1]) + 1 - len(total)))
        total[ids] += counts
        return total

    def merge_accumulators(self, totals: Iterable[np.ndarray]) -> np.ndarray:
        merged = self.create_accumulator()
        for total in totals:
            short, long = sorted((merged, total), key=len)
            merged = long.copy()
            merged[: len(short)] += short
        return merged

    def extract_output(self, total: np.ndarray) -> np.ndarray:
        return total


def ids_by_table(
    batch: pa.RecordBatch, tables: dict[str, str], packed: list[str]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """(table, (sorted ids, counts)) of every feature in `tables` (feature → table).

    Those in `packed` are in this order under `IDS`.
    """

    def values(column: str) -> np.ndarray:
        return batch.column(column).flatten().to_numpy(zero_copy_only=False)

    single = (
        dict(zip(packed, values(IDS).reshape(-1, len(packed)).T, strict=True)) if packed else {}
    )
    for name, table in tables.items():
        ids = single[name] if name in single else values(name)
        yield table, np.unique(ids, return_counts=True)


def longest_lists(batch: pa.RecordBatch, depths: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(feature, most values in one list), at the given depth of nesting."""
    for name, depth in depths.items():
        column = batch.column(name)
        for _ in range(depth):
            column = column.flatten()
        yield name, int(max(np.diff(column.offsets.to_numpy()), default=0))


def split_counts(counts: dict[str, int]) -> str:
    """Counts of the splits as a person reads them."""
    return ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if split in counts)
