"""A first declaration from a look at the data, and what a check of it finds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.__main__ import main
from pipeline.checks import read
from pipeline.init import draft
from pipeline.scan import Finding, scan
from pipeline.sources import head
from tests.pipeline import shop
from tfrec.features import Features
from tfrec.strict import UserError


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def titled() -> list[shop.Row]:
    """The shop's events, with texts, the number of the row, and a column that says nothing."""
    return [
        {"row": index, **row, "genres": [*(row["genres"] or []), "all"], "shop": "one"}
        for index, row in enumerate(shop.events())
    ]


@pytest.mark.parametrize("form", ["events.csv", "events.tsv.gz", "events.parquet"])
def test_columns_are_told_by_their_values(tmp_path: Path, form: str) -> None:
    path, rows = tmp_path / form, titled()
    if form.endswith("parquet"):
        shop.write_parquet(rows, path)
    else:
        shop.write_csv(rows, path, "\t" if ".tsv" in form else ",")
    text = draft(str(path))
    values = yaml.safe_load(text)
    assert {key: values[key] for key in ("user", "item", "time", "split", "show")} == {
        "user": "user",
        "item": "item",
        "time": "time",
        "split": {"kind": "user_time"},
        "show": ["title"],
    }
    features = values["features"]
    roles = {name: feature["role"] for name, feature in features.items()}
    assert roles == {
        **dict.fromkeys(("user", "age", "favourite", "zip"), "user"),
        **dict.fromkeys(("item", "genres", "brand", "price"), "item"),
        **dict.fromkeys(("dwell", "device", "weight"), "context"),
    }
    assert {n for n, f in features.items() if f["kind"] == "number"} == {"price", "dwell"}
    assert features["genres"]["separator"] == "|"
    assert values["labels"] == {"rating": {"column": "rating", "at_least": 4.0}}
    history = values["histories"]["before"]
    assert history["features"] == ["item", "genres", "brand"]
    assert history["where"] == "rating"
    assert "# row: left out: the number of the row" in text
    assert "# shop: left out: one value only" in text


def test_what_it_writes_makes_a_data_set(tmp_path: Path) -> None:
    """Also of columns whose names are no names of features."""
    path, target = tmp_path / "events.csv", tmp_path / "first.yaml"
    names = {"device": "Gerät, neu", "brand": "марка", "rating": "star rating"}
    rows = [{names.get(key, key): value for key, value in row.items()} for row in titled()]
    shop.write_csv(rows, path)
    result = call("init", "--data", path, "--output", target)
    assert (result.exit_code, target.exists()) == (0, True), result.output
    assert call("check", "--config", target).exit_code == 0
    declaration = read(str(target))
    assert declaration.name == "first"  # as its file is called
    report = shop.prepare(declaration, tmp_path / "data")
    assert sum(report["examples"].values()) == len(titled())
    features = Features.load(tmp_path / "data" / "transform")
    assert features.item_id == "item"
    assert [label.name for label in features.labels] == ["star_rating"]
    before = target.read_bytes()
    again = call("init", "--data", path, "--output", target)
    assert again.exit_code == 1
    assert "is there already" in again.output
    assert target.read_bytes() == before


def test_columns_of_any_name(tmp_path: Path) -> None:
    """Features and labels have plain names of their own."""
    header = ["user id", "item-id", "time", "товар", "prénom", "a b", "a_b", "", "liked!", "past_x"]
    path, target = tmp_path / "e.csv", tmp_path / "first.yaml"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = ((i % 40, i % 50, 1_600_000_000 + 7 * i, *[f"x{i % 9}"] * 6, i % 2, i % 3)
                for i in range(300))  # fmt: skip
        csv.writer(file).writerows([[*header[:5], "before", *header[5:]], *rows])
    text = draft(str(path))
    target.write_text(text, encoding="utf-8")
    declaration = read(str(target))
    columns = {name: declaration.column(name) for name in declaration.features}
    assert columns == {
        "user_id": "user id", "item-id": "item-id", "column_4": "товар", "prenom": "prénom",
        "before": "before", "a_b": "a b", "a_b_2": "a_b", "past_x": "past_x",
    }  # fmt: skip
    assert {name: label.column for name, label in declaration.labels.items()} == {"liked": "liked!"}
    assert list(declaration.histories) == ["seen"]
    assert (declaration.user, declaration.item) == ("user id", "item-id")
    assert "# column 9: left out: has no name" in text
    assert "column: товар," in text
    assert not scan(declaration, 300).failed


def test_columns_of_any_type(tmp_path: Path) -> None:
    """What cannot be read is left out, with its type."""
    path, target = tmp_path / "e.parquet", tmp_path / "first.yaml"
    rows = 300
    columns = {
        "user": [f"u{i % 40}" for i in range(rows)],
        "item": [2**60 + i % 50 for i in range(rows)],  # no float64 tells them apart
        "purchased": [i % 3 == 0 for i in range(rows)],
        "member": [i % 2 == 0 for i in range(rows)],
        "struct": [{"a": 1, "b": "x"}] * rows,
        "map": pa.array([[("a", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        "nested": [[["a"], ["b"]]] * rows,
        "raw": [b"\xff\xfe%d" % i for i in range(rows)],
        "tags": [[f"a|b{i % 3}", "c"] for i in range(rows)],
        "sent at": [(1_700_000_000 + i * i) * 10**9 for i in range(rows)],
    }
    pa.parquet.write_table(pa.table(columns), path)
    text = draft(str(path))
    types = {"struct": "struct<", "map": "map<", "nested": "list<", "raw": "binary"}
    for name, kind in types.items():
        assert f"\n# {name}: left out: type {kind}" in text
    target.write_text(text)
    declaration = read(str(target))
    assert list(declaration.features) == ["user", "item", "member", "tags"]
    assert declaration.item == "item"
    assert "\n# sent at: nanoseconds since 1970? `time` wants seconds: divide it by 1,0" in text
    assert declaration.features["tags"].separator == ";"  # which is in no value
    assert declaration.labels["purchased"].at_least is None
    assert not scan(declaration, rows).failed


def test_values_of_tf_examples(tmp_path: Path) -> None:
    """Lists of one value each; users and items by number; a feature that comes late."""
    path, target = tmp_path / "e.tfrecord", tmp_path / "first.yaml"
    rows = [
        {"user": i % 40, "item": i % 50, "time": 1_600_000_000 + i, "click": i % 3 // 2}
        | ({"price": float(i % 97)} if i < 1_000 else {})
        for i in range(2_500)
    ]
    shop.write_tfrecord(rows, path)
    target.write_text(draft(str(path)))
    declaration = read(str(target))
    kinds = {name: feature.kind for name, feature in declaration.features.items()}
    assert kinds == {"user": "category", "item": "category", "price": "number"}
    assert (declaration.user, declaration.item, declaration.time) == ("user", "item", "time")
    assert list(declaration.labels) == ["click"]
    assert not any(feature.separator for feature in declaration.features.values())
    assert not scan(declaration, 2_500).failed


def test_files_whose_columns_differ_in_type(tmp_path: Path) -> None:
    columns = {"user": [i % 40 for i in range(300)], "genre": [f"g{i % 3}" for i in range(300)]}
    table = pa.table(columns)
    pa.parquet.write_table(table, tmp_path / "1.parquet")
    short = table.schema.set(0, pa.field("user", pa.int16()))
    pa.parquet.write_table(table.cast(short), tmp_path / "2.parquet")
    assert yaml.safe_load(draft(f"{tmp_path}/*.parquet"))["user"] == "user"
    pa.parquet.write_table(table.set_column(1, "genre", [[1] * 300]), tmp_path / "3.parquet")
    with pytest.raises(UserError, match=r"\*.parquet: a column has several types .*genre"):
        draft(f"{tmp_path}/*.parquet")


def test_csv_without_a_header_and_with_marks(tmp_path: Path) -> None:
    """The first line is a row like others, and what stands for no number is declared."""
    path = tmp_path / "log.tsv"
    lines = [
        f"u{i % 40}\t{i % 50 if i % 5 else '?'}\t-\t2024-01-{1 + i % 28:02}" for i in range(200)
    ]
    path.write_text("\n".join(lines))
    values = yaml.safe_load(text := draft(str(path)))
    assert "first 200 rows" in text
    assert "# header: the first line is a row, it seems: name the columns here" in text
    assert values["source"]["header"] == ["column_1", "column_2", "column_3", "column_4"]
    assert values["source"]["missing"] == ["?"]
    assert (values["features"]["column_2"]["kind"], values["time"]) == ("number", "column_4")


def test_booleans_of_csv_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    lines = [f"u{i % 9},i{i % 7},{'TRUE' if i % 3 else 'FALSE'}" for i in range(90)]
    path.write_text("\n".join(["user,item,liked", *lines]))
    target = tmp_path / "first.yaml"
    assert call("init", "--data", path, "--output", target).exit_code == 0
    declaration = read(str(target))
    assert declaration.labels["liked"].at_least is None
    assert not scan(declaration, 90).failed


def test_quotes_that_are_characters_like_others(tmp_path: Path) -> None:
    path, target = tmp_path / "songs.tsv", tmp_path / "first.yaml"
    names = ['"Weird Al" Yankovic', "AC/DC", "O'Jays"]
    lines = [f"u{i % 9}\ti{i % 7}\t{names[i % 7 % 3]}" for i in range(90)]
    path.write_text("\n".join(["user\titem\tartist", *lines]) + "\n")
    target.write_text(draft(str(path)))
    assert f"\n# quotes: {path}, line 2: the value after a quote goes on" in target.read_text()
    declaration = read(str(target))
    assert declaration.source.quotes is False
    artists = [batch.column("artist").to_pylist() for _, _, batch in head(
        declaration.source, ["artist"], 90)]  # fmt: skip
    assert {artist for batch in artists for artist in batch} == set(names)


def test_what_is_not_found_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text("a,b\n" + "".join(f"{i % 7},{i % 3}\n" for i in range(50)))
    text = draft(str(path))
    for key in ("user", "item", "time", "labels"):
        assert f"# No column looks like {key}" in text
    assert yaml.safe_load(text)["split"] == {"kind": "random"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("events.xlsx", "a", "the ending tells no format; known: .parquet"),
        ("events.csv", "user,item\n", "has no rows"),
        ("events.csv", "\nuser,item\n1,2\n", "its first line is empty, and should name the col"),
        ("events.csv", "a,b\n1,2\n1,2\n", "no column that a model could learn from"),
        ("events.csv", "user,item,user\n1,2,3\n", "events.csv: has several columns 'user'; rename"),
        ("events.csv", "user,item\n1,'2\n1,\"2\n", "events.csv, line 3: the value after a quote"),
        ("events.parquet", "PAR1", "events.parquet"),
        ("none.csv", None, "no file matches"),
    ],
)
def test_data_that_tells_nothing(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    result = call("init", "--data", tmp_path / name, "--output", tmp_path / "first.yaml")
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "first.yaml").exists()


def findings(tmp_path: Path, rows: list[shop.Row], **blocks: Any) -> list[str]:
    path = shop.write_csv(rows, tmp_path / "events.csv")
    found = scan(shop.declare(source={"format": "csv", "path": path}, **blocks), 1_000)
    assert found.rows == len(rows)
    return [str(finding) for finding in found.findings]


def test_nothing_is_said_of_good_data(tmp_path: Path) -> None:
    assert findings(tmp_path, shop.events()) == []


def other(key: str, value: Any) -> list[shop.Row]:
    """The shop's events with another value in one column."""
    return [
        {**row, key: value(index, row) if callable(value) else value}
        for index, row in enumerate(shop.events())
    ]


@pytest.mark.parametrize(
    ("rows", "blocks", "message"),
    [
        (other("price", "dear"), {}, "error: 288 of 288 rows would be rejected: column 'price'"),
        (other("time", lambda _, r: r["time"] * 1000), {}, "error: time: column 'time' is past"),
        (other("rating", 5), {}, "error: labels.like: 1 in all rows"),
        (other("rating", None), {}, "error: labels.like: no value in the sample"),
        (other("brand", None), {}, "error: features.brand: no value in the sample"),
        (other("device", "phone"), {}, "warning: features.device: one value in all rows"),
        (other("user", lambda i, _: f"u{i}"), {}, "warning: user: half of the users or more"),
        (other("zip", lambda i, _: f"z{i}"), {}, None),
        (other("favourite", lambda i, _: f"f{i}"), {}, "288 distinct values in 288 rows"),
        (shop.events() + shop.events()[:3], {}, "warning: 3 of 291 rows repeat the user, item"),
        (
            other("price", lambda i, r: r["price"] if i % 3 == 0 else None),
            {},
            "values are missing",
        ),
        (
            shop.events(),
            {"features": {**shop.FEATURES, "item": {"kind": "category", "role": "item",
                                                    "min_count": 99}}},
            "error: features.item: no value comes 99 times",
        ),
        (
            shop.events(),
            {"features": {**shop.FEATURES, "brand": {"kind": "category", "role": "item",
                                                     "separator": ";"},
                          "favourite": {"kind": "category", "role": "user"}}},
            "warning: features.brand: no value has the separator ';'",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, rows: list[shop.Row], blocks: dict[str, Any], message: str | None
) -> None:
    found = findings(tmp_path, rows, **blocks)
    if message is None:
        assert found == []
    else:
        assert any(message in line for line in found), found


def test_rejected_rows_are_too_many_together(tmp_path: Path) -> None:
    """Neither reason is by itself; a run would stop."""
    rows = shop.events()
    rows[0] = {**rows[0], "price": "dear"}
    rows[1] = {**rows[1], "time": "soon"}
    for most, level in ((0.005, "error"), (0.01, "warning")):
        found = findings(tmp_path, rows, max_rejected=most)
        assert [line.partition(":")[0] for line in found] == [level] * 2


def test_a_list_without_its_separator_is_seen(tmp_path: Path) -> None:
    sets = [f"{a}|{b}" for a in "abcdef" for b in "uvwxyz"]
    rows = other("favourite", lambda i, _: sets[i % len(sets)])
    features = {**shop.FEATURES, "favourite": {"kind": "category", "role": "user"}}
    found = findings(tmp_path, rows, features=features)
    assert found == [
        "warning: features.favourite: values look like lists, separated by '|'; "
        "declare separator: '|'"
    ]


def test_lists_get_a_separator_that_no_value_has(tmp_path: Path) -> None:
    lists = [["metal|doom", "rock"], ["80s"], ["metal|doom"], ["pop", "80s"]]
    rows = other("genres", lambda i, _: lists[i % len(lists)])
    source = {"format": "parquet", "path": shop.write_parquet(rows, tmp_path / "events.parquet")}

    def finding(**separator: str) -> Finding:
        genres = {"kind": "category", "role": "item", **separator}
        declaration = shop.tiny("nowhere", source=source, features={"genres": genres})
        (found,) = scan(declaration, 1_000).findings
        return found

    whole = finding()
    assert (whole.error, whole.remedy) == (False, "declare separator: ';'")
    rejected = finding(separator="|")
    assert rejected.error
    assert "144 of 288 rows would be rejected: column 'genres': a value" in rejected.what


def test_features_that_are_the_answer(tmp_path: Path) -> None:
    """What became of an event is in the log beside it."""
    stars = [row["rating"] or 0 for row in shop.events()]
    rows: list[shop.Row] = [
        {
            **row,
            "played": (star + index % 7 / 10) * 60,
            "refund": 5 if star < 4 else None,
            "outcome": "left" if star < 4 else "stayed",
            "hint": "low" if star < 3 else "high",
        }
        for index, (row, star) in enumerate(zip(shop.events(), stars, strict=True))
    ]
    number, category = ({"kind": kind, "role": "context"} for kind in ("number", "category"))
    given = {"played": number, "refund": number, "outcome": category, "hint": category}
    found = findings(tmp_path, rows, features={**shop.FEATURES, **given, "rating": number})
    named = [line.split()[1].strip(":") for line in found if "labels.like" in line]
    assert named == [f"features.{name}" for name in ("played", "refund", "outcome", "rating")]
    assert all(line.startswith("warning: ") for line in found)
    assert "warning: features.rating: is the column of labels.like; models would read" in found[-1]


def test_check_fails_where_a_run_would(tmp_path: Path) -> None:
    path = shop.write_csv(other("rating", 5), tmp_path / "events.csv")
    config = tmp_path / "shop.yaml"
    declared = shop.declare(source={"format": "csv", "path": path})
    config.write_text(yaml.safe_dump(declared.model_dump(mode="json", exclude_unset=True)))
    result = call("check", "--config", config)
    assert result.exit_code == 1
    assert "rows looked at: 288, errors: 1, warnings: 0" in result.output
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        scan(shop.declare(), 10)
