"""A small shop: generated events, every source they can come in, and ways to read what is made."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline

from pipeline.checks import check
from pipeline.declaration import Declaration
from pipeline.events import REJECTED, ParseEvents
from pipeline.examples import ExamplesBySplit
from pipeline.options import checked
from pipeline.run import run
from pipeline.sources import ReadSource
from tfrec import interactions as of_data_set
from tfrec.features import ITEM_KEY, SPLITS, USER_KEY

Row = dict[str, Any]  # a raw event; None is a missing value, a list has many values

USERS, ITEMS = 24, 30
EVENTS_OF_USER, TRAIN_OF_USER = 12, 9  # 80 % of 12 in whole events
BRANDS = ["acme", "bolt", "crux", "dune", "echo"]


def events(seed: int = 5) -> list[Row]:
    """Events of all users. No user meets an item twice, so that the two identify an event."""
    chance = random.Random(seed)
    items = {f"i{i:02}": _item(i, chance) for i in range(ITEMS)}
    rows = []
    for u in range(USERS):
        user = {
            "user": f"u{u:02}",
            "age": None if u % 5 == 0 else 18 + (7 * u) % 50,
            "favourite": None if u % 7 == 0 else chance.choice(BRANDS),
            "zip": f"z{u % 9}",
        }
        time = 1_600_000_000 + 86_400 * (u % 3) + chance.randrange(1_000)
        for index, item in enumerate(_chosen(list(items), chance)):
            # Some events share their second, but never across two splits.
            time += chance.choice([0, 0, 60, 3_600]) if index < TRAIN_OF_USER else 60
            rows.append({**user, "item": item, "time": time, **items[item], **_event(chance)})
    return rows


def _item(index: int, chance: random.Random) -> Row:
    return {
        "title": f"Title, no. {index}",
        "genres": chance.sample(["drama", "farce", "noir", "war"], chance.randrange(4)),
        "brand": BRANDS[index % 5] if index % 6 else None,
        "price": None if index % 8 == 3 else round(chance.uniform(1, 90), 2),
    }


def _event(chance: random.Random) -> Row:
    return {
        "rating": chance.choice([1, 2, 3, 4, 4, 5, 5, None]),
        "dwell": round(chance.uniform(0, 300), 1),
        "device": chance.choice(["phone", "phone", "phone", "desktop", "desktop", "tablet", None]),
        "weight": chance.choice([0.5, 1.0, 2.0]),
    }


def _chosen(items: list[str], chance: random.Random) -> list[str]:
    """Popular items more often: the last ones are rare."""
    keys = {item: chance.random() * (1 + i) for i, item in enumerate(items)}
    return sorted(items, key=keys.__getitem__)[:EVENTS_OF_USER]


FEATURES: dict[str, Any] = {
    "user": {"kind": "category", "role": "user"},
    "item": {"kind": "category", "role": "item", "min_count": 4, "oov_buckets": 3},
    "genres": {"kind": "category", "role": "item", "separator": "|"},
    "genre": {
        "kind": "category", "role": "item", "column": "genres", "separator": "|", "length": 1,
        "fill": "none",
    },
    "brand": {"kind": "category", "role": "item"},
    "favourite": {"kind": "category", "role": "user", "vocabulary": "brand"},
    "zip": {"kind": "category", "role": "user", "hash_buckets": 5},
    "device": {"kind": "category", "role": "context", "fill": "unknown", "top_k": 2},
    "price": {"kind": "number", "role": "item"},
    "price_scaled": {"kind": "number", "role": "item", "column": "price", "normalise": "min_max"},
    "price_log": {"kind": "number", "role": "item", "column": "price", "normalise": "log"},
    "price_filled": {
        "kind": "number", "role": "item", "column": "price", "normalise": "none", "fill": 7.5
    },
    "no_price": {
        "kind": "number", "role": "item", "column": "price", "normalise": "is_missing"
    },
    "age": {"kind": "buckets", "role": "user", "buckets": 4},
    "hour": {"kind": "hour", "role": "context"},
    "weekday": {"kind": "weekday", "role": "context"},
    "when": {"kind": "number", "role": "context", "column": "time", "normalise": "min_max"},
}  # fmt: skip


def declare(**blocks: Any) -> Declaration:
    """The shop's declaration with other blocks; None leaves a block out."""
    values: dict[str, Any] = {
        "name": "shop",
        "source": {"format": "csv", "path": "nowhere.csv"},
        "user": "user",
        "item": "item",
        "time": "time",
        "features": FEATURES,
        "labels": {
            "like": {"column": "rating", "at_least": 4},
            "dwell": {"column": "dwell", "task": "regression", "weight": 0.5},
        },
        "weight": "weight",
        "histories": {
            "liked": {"length": 3, "features": ["item", "genres", "price"], "where": "like"},
            "seen": {"length": 5, "features": ["item"], "gaps": True},
        },
        "crosses": [
            {"features": ["user", "genres"], "buckets": 50},
            {"features": ["age", "device"], "buckets": 40},
            {"features": ["liked_item", "item"], "buckets": 60},
        ],
        "split": {"kind": "user_time"},
        "show": ["title"],
        "shards": 2,
        **blocks,
    }
    return checked_declaration({key: value for key, value in values.items() if value is not None})


def tiny(path: Any, **blocks: Any) -> Declaration:
    """The least declaration: one feature, one label."""
    values = {
        "name": "tiny",
        "source": {"format": "csv", "path": str(path)},
        "features": {"item": {"kind": "category", "role": "item"}},
        "labels": {"like": {"column": "rating", "at_least": 4}},
        "split": {"kind": "random"},
        "shards": 1,
        **blocks,
    }
    return checked_declaration({key: value for key, value in values.items() if value is not None})


def checked_declaration(values: dict[str, Any]) -> Declaration:
    declaration = Declaration.parse(values, "test.yaml")
    check(declaration, "test.yaml")
    return declaration


def csv_text(rows: Iterable[Row], delimiter: str = ",") -> str:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "|".join(v) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue()


def write_csv(rows: Iterable[Row], path: Path, delimiter: str = ",") -> str:
    data = csv_text(rows, delimiter).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def write_parquet(rows: Iterable[Row], path: Path) -> str:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def write_tfrecord(rows: Iterable[Row], path: Path) -> str:
    options = tf.io.TFRecordOptions("GZIP" if path.suffix == ".gz" else "")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for row in rows:
            writer.write(_tf_example(row).SerializeToString())
    return str(path)


def _tf_example(row: Row) -> Any:
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        values = value if isinstance(value, list) else [value]
        if value is None:
            del example.features.feature[name]
        elif isinstance(value, int):
            feature.int64_list.value[:] = values
        elif isinstance(value, float):
            feature.float_list.value[:] = values
        else:
            feature.bytes_list.value[:] = [v.encode() for v in values]
    return example


def states(declaration: Declaration, root: Path, **options: Any) -> dict[str, str]:
    """What became of every step of a run."""
    found: dict[str, str] = {}
    run(
        declaration,
        root,
        PipelineOptions(["--runner=FnApiRunner"]),
        tell=lambda name, state, seconds, lines: found.update({name: state}),
        **options,
    )
    return found


def with_blocks(declaration: Declaration, **blocks: Any) -> Declaration:
    values = declaration.model_dump(exclude_unset=True)
    return Declaration.parse({**values, **blocks}, "changed")


def prepare(declaration: Declaration, output: Path, *options: str) -> dict[str, Any]:
    """The pipeline until the data set, which is `output/transform`; what ingest has to say."""
    return run(declaration, output, PipelineOptions(checked([*options])))["ingest"]


def batches(rows: Iterable[Row]) -> list[tuple[str | None, str, pa.RecordBatch]]:
    """What a source yields of text rows, in two batches."""
    text = [{k: _text(v) for k, v in row.items()} for row in rows]
    half = len(text) // 2
    parts = [part for part in (text[:half], text[half:]) if part]
    return [(None, "test", pa.RecordBatch.from_pylist(part)) for part in parts]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "|".join(value) if isinstance(value, list) else str(value)


def raw_examples(
    declaration: Declaration, rows: list[Row] | None, folder: Path
) -> dict[str, list[Row]]:
    """Raw examples by split: of text rows, or of the declared source.

    Sorted by content, since a PCollection has no order; NaN is None.
    """
    with TestPipeline(options=PipelineOptions(checked([]))) as pipeline:
        if rows is None:
            raw = pipeline | ReadSource(declaration, list(ParseEvents(declaration).layout.types))
        else:
            raw = pipeline | beam.Create(batches(rows))
        parsed = raw | beam.ParDo(ParseEvents(declaration)).with_outputs(REJECTED, main="events")
        for split, examples in (parsed.events | ExamplesBySplit(declaration)).items():
            path = str(folder / split)
            listed = examples | f"list {split}" >> beam.combiners.ToList()
            _ = listed | f"keep {split}" >> beam.Map(_dump, path)
    return {
        split: sorted(_plain(pickle.loads((folder / split).read_bytes())), key=repr)
        for split in SPLITS
    }


def _dump(value: Any, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(value))


def _plain(found: list[pa.RecordBatch]) -> list[Row]:
    rows = [row for batch in found for row in batch.to_pylist()]
    return [{name: [_value(v) for v in values] for name, values in row.items()} for row in rows]


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return None if value != value else value


def keys(examples: Iterable[Row]) -> list[tuple[str, str]]:
    """(user, item) of every example, sorted."""
    return sorted((example[USER_KEY][0], example[ITEM_KEY][0]) for example in examples)


def by_key(examples: Iterable[Row]) -> dict[tuple[str, str], Row]:
    return {(example[USER_KEY][0], example[ITEM_KEY][0]): example for example in examples}


def stored(directory: Path, split: str) -> dict[tuple[str, str], dict[str, np.ndarray[Any, Any]]]:
    """Stored examples of a split by (user, item), with no other code than protobuf's."""
    fields = json.loads((directory / "features.json").read_text())["features"]
    single = [(f["kind"], f["name"]) for f in fields if f["length"] is None]
    names = {
        "fields:ids": [name for kind, name in single if kind == "category"],
        "fields:numbers": [name for kind, name in single if kind == "number"],
    }
    examples = {}
    for path in sorted(directory.glob(f"examples/{split}-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            fields = tf.train.Example.FromString(record).features.feature
            values = {}
            for name, field in fields.items():
                kind = field.WhichOneof("kind")
                found = np.array(getattr(field, kind).value if kind else [])
                if name in names:
                    parts = np.split(found, len(found))
                    values |= dict(zip(names[name], parts, strict=True))
                else:
                    values[name] = found
            key = (values[USER_KEY][0].decode(), values[ITEM_KEY][0].decode())
            assert key not in examples
            examples[key] = values
    return examples


def interactions(directory: Path, splits: Iterable[str]) -> list[tuple[str, str]]:
    """(user, item) of all events of some splits."""
    parts = of_data_set.interactions(directory, splits)
    return [pair for users, items in parts for pair in zip(users, items, strict=True)]


def shards(directory: Path, *splits: str) -> dict[str, bytes]:
    """Content of the stored files."""
    paths = [p for split in splits for p in directory.glob(f"examples/{split}-*")]
    assert paths
    return {path.name: path.read_bytes() for path in paths}


def vocabulary(directory: Path, table: str) -> list[tuple[int, int, str]]:
    """(id, count, value) of a table."""
    lines = (directory / "vocabulary" / f"{table}.tsv").read_text().splitlines()
    assert lines[0] == "id\tcount\tvalue"
    return [(int(a), int(b), c) for a, b, c in (line.split("\t") for line in lines[1:])]


class Command:
    """`python -m pipeline run` with these arguments, running."""

    def __init__(self, *arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> tuple[int, str, str]:
        """Exit status, standard output and standard error, when it is done."""
        said, complained = self._process.communicate(timeout=600)
        return self._process.returncode, said, complained

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
