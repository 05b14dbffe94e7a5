"""The same events give the same examples, however they are stored."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.sources import BLOCK_BYTES, ReadSource, _read
from tests.pipeline import shop
from tfrec.features import SPLITS
from tfrec.strict import UserError

EVENTS = shop.events()


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, list[shop.Row]]:
    folder = tmp_path_factory.mktemp("expected")
    return of_source(folder, format="csv", path=shop.write_csv(EVENTS, folder / "e.csv"))


def of_source(folder: Path, **source: Any) -> dict[str, list[shop.Row]]:
    examples = shop.raw_examples(shop.declare(source=source), None, folder)
    assert sum(map(len, examples.values())) == len(EVENTS)
    return examples


def test_csv_says_what_the_events_say(expected, tmp_path: Path):
    assert shop.raw_examples(shop.declare(), EVENTS, tmp_path) == expected
    examples = shop.by_key([e for split in SPLITS for e in expected[split]])
    for row in EVENTS:
        example = examples[row["user"], row["item"]]
        assert example["genres"] == ["|".join(row["genres"])]
        assert example["brand"] == [row["brand"] or ""]
        assert example["label:dwell"] == [pytest.approx(row["dwell"])]
        assert example["weight:"] == [row["weight"]]
        assert example["label:like"] == [row["rating"] and float(row["rating"] >= 4)]
        price = row["price"]
        assert example["price"] == [None if price is None else pytest.approx(price)]


def gzip_of_two_parts(folder: Path) -> dict[str, Any]:
    head, tail = shop.csv_text(EVENTS[:100]), shop.csv_text(EVENTS[100:]).split("\n", 1)[1]
    path = folder / "e.csv.gz"
    path.write_bytes(gzip.compress(head.encode()) + gzip.compress(tail.encode()))
    return {"path": str(path)}


def overlapping_globs(folder: Path) -> dict[str, Any]:
    parts = [shop.write_csv(EVENTS[i::3], folder / f"part-{i}.csv") for i in range(3)]
    return {"path": [parts[0], str(folder / "part-*.csv")]}


def without_a_header(folder: Path) -> dict[str, Any]:
    missing = [{key: "\\N" if v is None else v for key, v in row.items()} for row in EVENTS]
    text = shop.csv_text(missing, "\t")
    names, rows = text.split("\n", 1)
    (folder / "e.tsv").write_text(rows)
    return {
        "path": str(folder / "e.tsv"),
        "delimiter": "\t",
        "header": names.split("\t"),
        "missing": ["\\N", "?"],
    }


def iso_times_and_other_columns(folder: Path) -> dict[str, Any]:
    rows = []
    for row in EVENTS:
        time = datetime.datetime.fromtimestamp(row["time"], datetime.UTC).isoformat()
        rows.append(dict(sorted(row.items())) | {"time": time, "unused": "x"})
    return {"path": shop.write_csv(rows, folder / "e.csv")}


def tabs_and_windows(folder: Path) -> dict[str, Any]:
    text = shop.csv_text(EVENTS, "\t").replace("\n", "\r\n")
    (folder / "e.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    return {"path": str(folder / "e.tsv"), "delimiter": "\t"}


@pytest.mark.parametrize(
    "variant",
    [
        gzip_of_two_parts,
        overlapping_globs,
        iso_times_and_other_columns,
        tabs_and_windows,
        without_a_header,
    ],
)
def test_csv(variant: Callable[[Path], dict[str, Any]], expected, tmp_path: Path):
    assert of_source(tmp_path, format="csv", **variant(tmp_path)) == expected


def test_parquet(expected, tmp_path: Path):
    """Genres are a list column, times are integers, ages and prices have nulls."""
    path = shop.write_parquet(EVENTS, tmp_path / "e.parquet")
    assert of_source(tmp_path, format="parquet", path=path) == expected


def test_parquet_of_pandas(expected, tmp_path: Path):
    """Its strings and timestamps have types of their own."""
    frame = pd.DataFrame(EVENTS)
    frame["genres"] = frame["genres"].map("|".join)
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
    frame["device"] = frame["device"].astype("category")
    frame["rating"] = frame["rating"].map(lambda r: "" if r != r else str(int(r)))
    frame.to_parquet(tmp_path / "e.parquet", row_group_size=50)
    assert of_source(tmp_path, format="parquet", path=str(tmp_path / "e.parquet")) == expected


@pytest.mark.parametrize("name", ["e.tfrecord", "e.tfrecord.gz"])
def test_tfrecord(name: str, expected, tmp_path: Path):
    """Genres are a list of bytes; what is missing is not there."""
    path = shop.write_tfrecord(EVENTS, tmp_path / name)
    assert of_source(tmp_path, format="tfrecord", path=path) == expected


def test_given_files(expected, tmp_path: Path):
    """Files that are split as the pipeline would have split them."""
    source: dict[str, Any] = {}
    for split in SPLITS:
        keys = set(shop.keys(expected[split]))
        rows = [row for row in EVENTS if (row["user"], row["item"]) in keys]
        for part in (0, 1):
            shop.write_parquet(rows[part::2], tmp_path / f"{split}-{part}.parquet")
        source[split] = str(tmp_path / f"{split}-*.parquet")
    declaration = shop.declare(source={"format": "parquet", **source}, split=None)
    assert shop.raw_examples(declaration, None, tmp_path) == expected


def test_quoted_fields(tmp_path: Path):
    path = tmp_path / "e.csv"
    path.write_text('item,"rating"\n"a, ""b""\nc",5\n\nNA,1\n')
    features = {"item": {"kind": "category", "role": "item"}}
    declaration = shop.tiny(path, item="item", features=features, split={"kind": "random"})
    examples = shop.raw_examples(declaration, None, tmp_path)
    items = sorted(e["item"][0] for split in SPLITS for e in examples[split])
    assert items == ["NA", 'a, "b" c']  # a key's end of line is a space


def read(path: Path, **more: Any) -> tuple[list[str], int]:
    """Items and malformed rows that the reader finds."""
    declaration = shop.tiny(path, source={"format": "csv", "path": str(path), **more})
    batches = list(
        ReadSource(declaration, ["item", "rating"]).read(str(path), ["item"], declaration.source)
    )
    items = [item for batch in batches for item in batch.column("item").to_pylist()]
    return items, sum(int(batch.schema.metadata[b"malformed_rows"]) for batch in batches)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("item,rating\na,1\nb\nc,3,4\nd,4\n", (["a", "d"], 2)),
        ("item,rating\nb\nc,3,4\n", ([], 2)),
        ("item,rating\na,1\nb", (["a"], 1)),
        ("item,rating\n", ([], 0)),
        ("item,rating", ([], 0)),
        ("item,rating\n\n\n", ([], 0)),
        ("item,rating\na,1", (["a"], 0)),
    ],
)
def test_rows_with_another_number_of_fields(text: str, found: Any, tmp_path: Path):
    (tmp_path / "e.csv").write_text(text)
    assert read(tmp_path / "e.csv") == found


def test_malformed_rows_of_a_large_file(tmp_path: Path):
    rows = [f"item-{i:0100}" + (",1" if i % 100 else "") for i in range(30_000)]
    (tmp_path / "e.csv").write_text("\n".join(["item,rating", *rows]))
    items, malformed = read(tmp_path / "e.csv")
    assert (len(items), malformed) == (29_700, 300)


TEXTS = [
    "fine",
    'a "b" c',
    "two\nlines",
    "one, two\nthree, 4\nfive",
    "\n\n",
    "salt, 1\n" * 200,
    '"\n"',
]


def test_values_of_several_lines_in_a_large_file(tmp_path: Path):
    """Whatever block of it they are cut by."""
    path = tmp_path / "e.csv"
    rows = [{"item": f"{i} {TEXTS[i % 7]}", "rating": i % 5, "at": i} for i in range(9_000)]
    shop.write_csv(rows, path)
    assert path.stat().st_size > 2 * BLOCK_BYTES
    assert read(path) == ([row["item"] for row in rows], 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['"a,1', "b,2"], "line 2: the value after a quote has no end"),
        (["a,1", '"b,2', 'c",3', "d,4"], "line 3: the value after a quote takes in lines up to 4"),
        (["a,1", 'b,"2', '"c",3'], "line 3: .* ends inside of a field, in line 4"),
        (["a,1", '"b" c,2'], "line 3: the value after a quote goes on behind the closing one"),
        (['a,"x', *["b,y"] * 9, 'c,z"'], "line 2: .* takes in lines up to 12"),
        (['a,"x', *["b"] * 1_000, 'c,z"'], "line 2: .* has more than 1,000 lines"),
    ],
)
def test_a_stray_quote(rows: list[str], message: str, tmp_path: Path):
    """Is named, with its line; where it means nothing, the rows can be read."""
    path = tmp_path / "e.csv"
    path.write_text("\n".join(["item,rating", *rows]) + "\n")
    with pytest.raises(UserError, match=rf"^{path}, {message}.*; double the quotes") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    items, malformed = read(path, quotes=False)
    assert items == [row.split(",")[0] for row in rows if "," in row]
    assert len(items) + malformed == len(rows)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_there_twice(form: str, tmp_path: Path):
    """Is refused where it is read."""
    path = tmp_path / "e"
    names = ["item", "rating", "other", "other"]
    if form == "csv":
        path.write_text(",".join(names) + "\na,1,2,3\n")
    else:
        table = pa.Table.from_arrays([pa.array(["a"])] * 4, names)
        pa.parquet.write_table(table, path)
    declaration = shop.tiny(path, source={"format": form, "path": str(path)})
    source = ReadSource(declaration, ["item"])
    (batch, *_) = source.read(str(path), ["item"], declaration.source)
    assert batch.to_pylist() == [{"item": "a"}]
    with pytest.raises(UserError, match=rf"^{path}: has several columns 'other'; rename"):
        list(source.read(str(path), ["item", "other"], declaration.source))


def record_ends(data: bytes) -> set[int]:
    """Where a TFRecord file could end as well."""
    ends = {0}
    while (at := max(ends)) < len(data):
        ends.add(at + 16 + int.from_bytes(data[at : at + 8], "little"))
    return ends


@pytest.mark.parametrize("name", ["e.csv.gz", "e.tfrecord", "e.tfrecord.gz", "e.parquet"])
def test_a_file_that_is_cut_anywhere(name: str, tmp_path: Path):
    """None of it is believed."""
    form = name.split(".")[1]
    path = Path(getattr(shop, f"write_{form}")(EVENTS[:60], tmp_path / name))
    whole = path.read_bytes()
    declaration = shop.tiny(path, source={"format": form, "path": str(path)})
    source = ReadSource(declaration, ["item", "rating"])
    lengths = {*range(1, 60), *range(60, len(whole), 97), *range(len(whole) - 60, len(whole))}
    for length in lengths - (record_ends(whole) if name == "e.tfrecord" else set()):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"^{path}: cannot be read to its end \(.{{1,200}}\)$"):
            list(_read((None, str(path)), source.read, source.options))


@pytest.mark.parametrize("form", ["csv", "tfrecord", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00 what is this\n" * 9])
def test_a_file_of_another_kind(form: str, content: bytes, tmp_path: Path):
    path = tmp_path / "e"
    path.write_bytes(content)
    source = ReadSource(shop.tiny(path, source={"format": form, "path": str(path)}), ["item"])
    if form == "tfrecord" and not content:  # a TFRecord file without records
        assert list(_read((None, str(path)), source.read, source.options)) == []
        return
    with pytest.raises(UserError, match=rf"^{path}: [^\n]*$"):
        list(_read((None, str(path)), source.read, source.options))


def test_a_glob_in_the_first_part_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/e.csv", "b/e.csv", "e-1.csv", "e-2.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("item,rating\n")
    for pattern, expected in (("e-*.csv", ["e-1.csv", "e-2.csv"]), ("?/*", ["a/e.csv", "b/e.csv"])):
        files = ReadSource(shop.tiny(pattern), ["item"]).files
        assert [path for _, path in files] == expected


def test_a_pattern_without_files():
    with pytest.raises(UserError, match=r"^source: no file matches '/nowhere/x-\*\.csv'$"):
        ReadSource(shop.tiny("/nowhere/x-*.csv"), ["item"])
