"""Whatever is wrong is said in one line, and nothing is left behind."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.options import checked
from pipeline.workspace import RECORD
from tests.pipeline import shop
from tfrec.strict import UserError

ROWS = [{"item": f"i{i % 20}", "rating": i % 5 + 1, "price": i} for i in range(200)]
PRICED: dict[str, Any] = {
    "item": {"kind": "category", "role": "item"},
    "price": {"kind": "number", "role": "item"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for the output and nothing else."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def fails(place: Path, declaration: Any, *options: str) -> str:
    """The message of a run that fails, and leaves nothing but whole outputs of earlier steps."""
    before = content(place)
    with pytest.raises(UserError) as caught:
        shop.prepare(declaration, place / "out", *options)
    if content(place) != before:
        left = {path.name for path in (place / "out").iterdir()}
        assert left <= {"record.jsonl", "ingest", "statistics", "schema", "validation"}
        assert all((place / "out" / step / "step.json").is_file() for step in left - {RECORD})
    message = str(caught.value)
    assert "\n" not in message
    assert "[while running" not in message
    return message


def content(place: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in place.rglob("*")}


def test_a_missing_column(tmp_path: Path, place: Path):
    """Found by a worker that hands over no more than the text of a traceback."""
    path = shop.write_parquet(ROWS, tmp_path / "e.parquet")
    features = {**PRICED, "cost": {"kind": "number", "role": "item", "column": "prise"}}
    source = {"format": "parquet", "path": path}
    declaration = shop.tiny(path, source=source, features=features)
    options = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    message = fails(place, declaration, *options)
    assert message == f"{path}: has no column 'prise'; did you mean 'price'?"


def test_a_missing_file(place: Path):
    assert fails(place, shop.tiny("/nowhere.csv")) == "source: no file matches '/nowhere.csv'"


def test_too_many_rejected_rows(tmp_path: Path, place: Path):
    """Among them those of a column whose name is like another reason."""
    name = "another number of fields"
    rows = [{**row, name: "noon" if i < 30 else i} for i, row in enumerate(ROWS)]
    path = tmp_path / "e.csv"
    path.write_text(shop.csv_text(rows) + "i1\n" * 10)
    assert fails(place, shop.tiny(path, time=name, max_rejected=0.1)) == (
        "40 of 210 rows rejected (19.05%, max_rejected is 10.00%); "
        f"most: column '{name}': not a time, such as 'noon' (30 rows)"
    )


def test_a_header_without_rows(tmp_path: Path, place: Path):
    path = tmp_path / "e.csv"
    path.write_text("item,rating,at\n")
    declaration = shop.tiny(path, time="at", item="item", split={"kind": "time"})
    assert fails(place, declaration) == "the source has no rows"


def test_an_empty_split(tmp_path: Path, place: Path):
    source: dict[str, Any] = {"format": "csv"}
    for split, rows in (("train", 0), ("validation", 20), ("test", 30)):
        lines = shop.csv_text(ROWS).splitlines()[: 1 + rows]
        (tmp_path / split).write_text("\n".join(lines))
        source[split] = str(tmp_path / split)
    assert fails(place, shop.tiny("", source=source, split=None)) == (
        "split train is empty (train 0, validation 20, test 30); "
        "give it more data or change `split`"
    )


def test_an_empty_vocabulary(tmp_path: Path, place: Path):
    path = shop.write_csv(ROWS, tmp_path / "e.csv")
    features = {"item": {"kind": "category", "role": "item", "min_count": 900}}
    message = fails(place, shop.tiny(path, features=features))
    assert message.startswith("vocabulary 'item' is empty: no value of column 'item' occurs 900")


def test_columns_without_any_value(tmp_path: Path, place: Path):
    """Of a feature, that no tf.Example has; and of a label."""
    rows = [{**row, "rating": None} for row in ROWS]
    path = shop.write_tfrecord(rows, tmp_path / "e.tfrecord")
    features = {**PRICED, "cost": {"kind": "number", "role": "item"}}
    declaration = shop.tiny(path, source={"format": "tfrecord", "path": path}, features=features)
    message = fails(place, declaration)
    assert message == "no value in train of column 'cost', 'rating'; check the source"


def test_a_truncated_file(tmp_path: Path, place: Path):
    path = Path(shop.write_tfrecord(ROWS, tmp_path / "e.tfrecord"))
    path.write_bytes(path.read_bytes()[:-200])
    source = {"format": "tfrecord", "path": str(path)}
    message = fails(place, shop.tiny(path, source=source))
    assert (
        message == f"{path}: cannot be read to its end (Not a valid TFRecord. Fewer than 12 bytes)"
    )


def test_a_row_longer_than_is_read_at_a_time(tmp_path: Path, place: Path):
    path = shop.write_csv([*ROWS, {**ROWS[0], "item": "i" * 3_000_000}, *ROWS], tmp_path / "e.csv")
    message = fails(place, shop.tiny(path))
    assert message == (
        f"{path}: cannot be read to its end (a row is longer than 1,048,576 bytes; shorten it, or "
        "give Parquet)"
    )


def test_the_output_is_there(tmp_path: Path, place: Path):
    declaration = shop.tiny(shop.write_csv(ROWS, tmp_path / "e.csv"))
    (place / "out").mkdir()
    (place / "out" / "precious").touch()
    assert "exists and is no pipeline's; name another --output" in fails(place, declaration)


def test_the_output_cannot_be_there(tmp_path: Path, place: Path):
    declaration = shop.tiny(shop.write_csv(ROWS, tmp_path / "e.csv"))
    (place / "out").touch()
    assert "exists" in fails(place, declaration)
    with pytest.raises(UserError, match=rf"^{place}/out/deeper cannot be made: "):
        shop.prepare(declaration, place / "out" / "deeper")


WITH_HISTORY: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "time": "time",
    "histories": {"seen": {"length": 3, "features": ["item"]}},
    "crosses": [{"features": ["seen_item", "item"], "buckets": 50}],
    "split": {"kind": "user_time"},
    "shards": 2,
}


def test_a_new_data_set_replaces_the_old_one_when_it_is_whole(tmp_path: Path, place: Path):
    """Two runs of the same events, in another order, are the same."""
    rows = shop.events()
    path = Path(shop.write_csv(rows, tmp_path / "e.csv"))
    declaration = shop.tiny(path, **WITH_HISTORY)
    data = place / "out" / "transform"
    shop.prepare(declaration, place / "out")
    old = content(data / "examples")
    path.write_text("item,nothing\n")
    with pytest.raises(UserError, match="no column 'rating'"):
        shop.prepare(declaration, place / "out")
    assert content(data / "examples") == old
    random.Random(8).shuffle(rows)
    shop.write_csv(rows, path)
    (data / "left over").touch()
    shop.prepare(declaration, place / "out")
    assert content(data / "examples") == old
    assert len(old) == 6
    assert not (data / "left over").exists()
    assert [p.name for p in place.iterdir()] == ["out"]
    assert [p.name for p in (place / "out").glob(".*")] == []


TINY = """
name: tiny
source: {{format: csv, path: {path}}}
features:
  item: {{kind: category, role: item}}
  price: {{kind: number, role: item}}
labels: {{like: {{column: rating, at_least: 4}}}}
split: {{kind: random}}
"""


def command_fails(place: Path, config: Path, *options: str) -> str:
    """What the command says when it fails; a single line, and nothing is left but the record."""
    before = content(place)
    with shop.Command("--config", config, "--output", place / "out", *options) as command:
        status, said, complained = command.result()
    assert (status, said) == (1, "")
    assert content(place).keys() - before <= {str(place / "out"), str(place / "out" / RECORD)}
    (line,) = complained.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def test_the_command_with_a_truncated_file(tmp_path: Path, place: Path):
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(shop.csv_text(ROWS).encode())[:-20])
    (tmp_path / "tiny.yaml").write_text(TINY.format(path=path))
    message = command_fails(place, tmp_path / "tiny.yaml")
    assert message.startswith(f"{path}: cannot be read to its end (Compressed file ended")


def test_the_command_with_a_broken_declaration(tmp_path: Path, place: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(path="e.csv").replace("kind: random", "kind: random, sede: 1"))
    message = command_fails(place, path)
    assert message == f"{path}: unknown key 'split.sede'; did you mean 'seed'?"
    assert not content(place)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--direct_num_worker=2", "did you mean '--direct_num_workers'?"),
        ("--forc", "did you mean '--force'?"),
        ("--zzz", "unknown option --zzz; neither --help nor Beam knows it"),
        ("--direct_num_workers=two", "--direct_num_workers: invalid int value: 'two'"),
    ],
)
def test_options(option: str, message: str):
    with pytest.raises(UserError) as caught:
        checked([option])
    assert message in str(caught.value)
    assert checked(["--runner=Other", option]) == ["--runner=Other", option]


def test_the_command_with_an_unknown_option(tmp_path: Path, place: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(path=shop.write_csv(ROWS, tmp_path / "e.csv")))
    message = command_fails(place, path, "--direct_num_worker=2")
    assert message == "unknown option --direct_num_worker; did you mean '--direct_num_workers'?"
    assert not content(place)
