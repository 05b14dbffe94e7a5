from __future__ import annotations

import datetime
import math
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.declaration import Declaration
from pipeline.events import ParseEvents
from tests.pipeline import shop
from tfrec.keys import keys_of
from tfrec.strict import UserError

NUMBER = {"kind": "number", "role": "item"}
TIME = 1_577_934_245  # 2020-01-02T03:04:05Z


def parse(
    declaration: Declaration, columns: dict[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, tuple[int, str]]]:
    """Parsed columns (NaN is None), and rejected rows by reason."""
    batch = pa.RecordBatch.from_pydict(columns)
    events: dict[str, list[Any]] = {}
    rejected = {}
    for output in ParseEvents(declaration).process((None, "test", batch)):
        if isinstance(output, beam.pvalue.TaggedOutput):
            reason, found = output.value
            rejected[reason] = found
        else:
            for name, values in output[1].to_pydict().items():
                events[name] = [None if v != v else v for v in values]
    return events, rejected


def one_column(kind: str, values: Any) -> tuple[list[Any], dict[str, tuple[int, str]]]:
    features = {"price": NUMBER} if kind != "text" else {}
    features["x"] = {"kind": "category", "role": "item"}
    blocks: dict[str, Any] = {"time": "at"} if kind == "time" else {}
    declaration = shop.tiny("nowhere", features=features, **blocks)
    columns = {"price": [1.0], "x": [""], "at": [0], "rating": [5]}
    columns = {name: value * len(values) for name, value in columns.items()}
    target = {"number": "price", "time": "at", "text": "x"}[kind]
    events, rejected = parse(declaration, {**columns, target: values})
    return events[target], rejected


@pytest.mark.parametrize(
    "text", ["0", "1", "-1", "+1.5", "1.", ".5", "1e3", "-2.5E-3", " 7 ", "007", "3.4e38"]
)
def test_numbers_of_text(text: str):
    values, rejected = one_column("number", [text])
    assert values == [np.float32(text)]
    assert not rejected


@pytest.mark.parametrize("text", ["a", "1,5", "1 2", "0x10", "nan", "inf", "1e400", "4e38", "--1"])
def test_no_numbers(text: str):
    values, rejected = one_column("number", ["2", text, "3", text])
    assert values == [2, 3]
    assert rejected == {"column 'price': not a number": (2, text)}


@pytest.mark.parametrize("missing", ["", " ", None])
def test_a_missing_number_stays(missing: str | None):
    assert one_column("number", ["2", missing]) == ([2, None], {})


TYPED_NUMBERS = [
    pa.array([2, None, 3], pa.int64()),
    pa.array([2, None, 3], pa.uint8()),
    pa.array([2, math.nan, 3], pa.float64()),
    pa.array(["2", "", "3"], pa.large_string()),
    pa.array(["2", "", "3"], pa.string_view()),
    pa.array(["2", "", "3"]).dictionary_encode(),
    pa.array([b"2", b"", b"3"], pa.binary()),
    pa.array([b"2", b"", b"3"], pa.large_binary()),
    pa.array([[2.0], [], [3.0]], pa.list_(pa.float32())),
    pa.array([[2], None, [3]], pa.large_list(pa.int64())),
    pa.array([[b"2"], [], [b"3"]], pa.large_list(pa.large_binary())),
    pa.array([2, None, 3], pa.decimal128(5, 2)),
]


@pytest.mark.parametrize("values", TYPED_NUMBERS, ids=lambda values: str(values.type))
def test_numbers_of_every_type(values: pa.Array):
    assert one_column("number", values) == ([2, None, 3], {})


def test_booleans_are_numbers():
    assert one_column("number", pa.array([True, None, False])) == ([1, None, 0], {})


def test_a_list_of_numbers_is_no_number():
    values, rejected = one_column("number", pa.array([[1.0], [1.0, 2.0]]))
    assert values == [1]
    assert rejected["column 'price': not a number"][0] == 1


@pytest.mark.parametrize(
    "text",
    [
        str(TIME),
        f"+{TIME}",
        f" {TIME} ",
        f"{TIME}.",
        f"{TIME}.96",
        "2020-01-02T03:04:05",
        "2020-01-02 03:04:05",
        "2020-01-02T03:04:05Z",
        "2020-01-02T03:04:05.999Z",
        "2020-01-02T03:04:05.123456",
        "2020-01-02T04:04:05+01:00",
        "2020-01-01T22:04:05-0500",
        " 2020-01-02T03:04:05 ",
    ],
)
def test_times_of_text(text: str):
    assert one_column("time", [text]) == ([TIME], {})


def test_a_day_and_a_minute_are_times():
    assert one_column("time", ["2020-01-02", "2020-01-02T03:04", "-5", "-1.5"]) == (
        [TIME - TIME % 86_400, TIME - 5, -5, -2],
        {},
    )


@pytest.mark.parametrize(
    "text",
    [
        "now",
        "02.01.2020",
        "2020-02-31",
        "2020-13-01",
        "2020-01-02T25:00:00",
        "1.5e9",
        "2020-01-02T",
    ],
)
def test_no_times(text: str):
    values, rejected = one_column("time", [str(TIME), text])
    assert values == [TIME]
    assert rejected == {"column 'at': not a time": (1, text)}


@pytest.mark.parametrize("missing", ["", " ", None])
def test_an_event_needs_its_time(missing: str | None):
    values, rejected = one_column("time", [str(TIME), missing])
    assert values == [TIME]
    assert rejected == {"column 'at': empty": (1, "")}


WHEN = datetime.datetime.fromtimestamp(TIME, datetime.UTC)
TYPED_TIMES = [
    pa.array([TIME], pa.int64()),
    pa.array([TIME], pa.float64()),
    pa.array([TIME + 0.96], pa.float64()),
    pa.array([[TIME]], pa.large_list(pa.int64())),
    pa.array([WHEN], pa.timestamp("us", "UTC")),
    pa.array([WHEN], pa.timestamp("ns", "Europe/Berlin")),
    pa.array([WHEN.replace(tzinfo=None)], pa.timestamp("ms")),
    pa.array(["2020-01-02T03:04:05"], pa.large_string()),
    pa.array([str(TIME)], pa.string_view()),
    pa.array([b"2020-01-02T03:04:05"], pa.binary()),
]


@pytest.mark.parametrize("values", TYPED_TIMES, ids=lambda values: str(values.type))
def test_times_of_every_type(values: pa.Array):
    assert one_column("time", values) == ([TIME], {})


def test_a_date_is_a_time():
    values = pa.array([datetime.date(2020, 1, 2)], pa.date32())
    assert one_column("time", values) == ([TIME - TIME % 86_400], {})


@pytest.mark.parametrize("value", [math.inf, 1e300, -1e300])
def test_numbers_that_are_no_times(value: float):
    values, rejected = one_column("time", pa.array([float(TIME), value]))
    assert values == [TIME]
    assert rejected["column 'at': not a time"][0] == 1


TEXTS = [
    pa.array(["a", None, "b"]),
    pa.array(["a", None, "b"], pa.large_string()),
    pa.array(["a", None, "b"], pa.string_view()),
    pa.array(["a", None, "b"]).dictionary_encode(),
    pa.array([b"a", None, b"b"], pa.binary()),
    pa.array([["a"], None, ["b"]], pa.list_(pa.string())),
    pa.array([[b"a"], [], [b"b"]], pa.large_list(pa.large_binary())),
    pa.array([["a"], [None], ["b"]], pa.list_(pa.string())),
]


@pytest.mark.parametrize("values", TEXTS, ids=lambda values: str(values.type))
def test_texts_of_every_type(values: pa.Array):
    assert one_column("text", values) == (["a", "", "b"], {})


@pytest.mark.parametrize("kind", ["text", "number", "time"])
@pytest.mark.parametrize("values", [pa.array([b"\xff"]), pa.array([{"a": 1}])], ids=str)
def test_a_type_that_cannot_be_read(kind: str, values: pa.Array):
    column = {"text": "x", "number": "price", "time": "at"}[kind]
    with pytest.raises(UserError, match=rf"^test: column '{column}': .* cannot be read as a"):
        one_column(kind, values)


def test_numbers_as_texts():
    assert one_column("text", pa.array([7, None, 12]))[0] == ["7", "", "12"]
    assert one_column("text", pa.array([[7], [], [12]]))[0] == ["7", "", "12"]
    floats = [12_345_678_901.0, None, float("nan"), 0.5]  # where an id is missing, pandas has these
    texts = ["12345678901", "", "", "0.5"]
    assert one_column("text", pa.array(floats))[0] == texts
    assert one_column("text", pa.array([[value] for value in floats]))[0] == texts


@pytest.mark.parametrize(
    "values", [["a", "b;c", ""], [["a"], ["b", "c"], []], [["a"], ["b", None, "c"], None]]
)
def test_many_values_are_joined(values: list[Any]):
    feature = {"kind": "category", "role": "item", "separator": ";"}
    declaration = shop.tiny("nowhere", features={"tags": feature})
    events, _ = parse(declaration, {"tags": values, "rating": [1, 2, 3]})
    assert events["tags"] == ["a", "b;c", ""]


def test_a_list_whose_value_would_be_cut_is_rejected():
    """Where its values are texts joined by the source, nothing tells what the separator means."""
    feature = {"kind": "category", "role": "item", "separator": ","}
    declaration = shop.tiny("nowhere", features={"tags": feature})
    lists = [["jazz, cool"], ["pop", "rock"], ["folk", "jazz, cool"], None, ["r&b"]]
    events, rejected = parse(declaration, {"tags": lists, "rating": [1] * 5})
    assert events["tags"] == ["pop,rock", "", "r&b"]
    ((reason, (count, example)),) = rejected.items()
    assert reason.startswith("column 'tags': a value of the list has the separator ','")
    assert (count, example) == (2, "jazz, cool")
    events, rejected = parse(declaration, {"tags": [["jazz, cool"], ["r&b"]], "rating": [1, 1]})
    assert (events["tags"], rejected) == (["jazz, cool", "r&b"], {})  # tf.Examples are such


def label(values: list[Any], **declared: Any) -> tuple[list[Any], dict[str, tuple[int, str]]]:
    declaration = shop.tiny("nowhere", labels={"y": {"column": "x", **declared}})
    events, rejected = parse(declaration, {"item": ["i"] * len(values), "x": values})
    return events["label:y"], rejected


def test_labels():
    assert label(["1", "0", "", "2"]) == (
        [1, 0, None],
        {"label 'y': neither 0 nor 1 (set at_least)": (1, "2.0")},
    )
    assert label(["1", "5", "", "3.9"], at_least=4) == ([0, 1, None, 0], {})
    assert label(["-2.5", ""], task="regression") == ([-2.5, None], {})
    assert label([True, False, None]) == ([1, 0, None], {})
    assert label(["true", " False", "", None, "TRUE"]) == ([1, 0, None, None, 1], {})


@pytest.mark.parametrize("bound", [0.1, 0.7, 3.3, 4.1])
def test_at_least_includes_its_bound(bound: float):
    assert label([str(bound), str(bound - 0.01)], at_least=bound)[0] == [1, 0]


def test_a_label_of_a_text_column():
    declaration = shop.tiny("nowhere", labels={"y": {"column": "item", "at_least": 2}})
    events, rejected = parse(declaration, {"item": ["1", "2", "x", ""]})
    assert events == {"item": ["1", "2", ""], "label:y": [0, 1, None]}
    assert rejected == {"column 'item': not a number": (1, "x")}


def test_a_label_of_a_boolean_that_is_a_feature_too():
    """Features have it as text."""
    declaration = shop.tiny("nowhere", labels={"y": {"column": "item"}})
    events, rejected = parse(declaration, {"item": [True, False, None]})
    assert (events, rejected) == ({"item": ["true", "false", ""], "label:y": [1, 0, None]}, {})


def test_a_label_of_the_time():
    late = {"column": "at", "at_least": TIME - 0.5}
    declaration = shop.tiny("nowhere", time="at", labels={"late": late})
    events, rejected = parse(declaration, {"item": ["a", "b"], "at": [TIME - 1, TIME]})
    assert (events["label:late"], rejected) == ([0, 1], {})


def test_an_event_needs_its_user_item_and_weight():
    declaration = shop.tiny("nowhere", user="user", item="item", weight="w")
    columns = {
        "user": ["u", "", "u", " ", "u", "u", "u"],
        "item": ["i", "i", None, "i", "i", "i", "i"],
        "w": ["1", "1", "1", "1", "", "0", "-1"],
    }
    events, rejected = parse(declaration, {**columns, "rating": [5] * 7})
    assert events["user"] == ["u", "u"]
    assert rejected == {
        "column 'user': empty": (2, ""),
        "column 'item': empty": (1, ""),
        "column 'w': empty weight": (1, ""),
        "column 'w': negative weight": (1, "-1.0"),
    }


def test_keys_are_what_the_transform_reads():
    """Without the space around them and ends of lines, so that equal ids are equal keys."""
    declaration = shop.tiny("nowhere", user="user", item="item")
    events, _ = parse(
        declaration, {"user": [" u", "u\t"], "item": ["a\r\nb ", "\na b"], "rating": [5] * 2}
    )
    assert (events["user"], events["item"]) == (["u", "u"], ["a b", "a b"])
    texts = ["a\n\r\nb", "\v a\f", "\u00a0a\u2028", "a\n \nb", "a  b", "\tÄ\r"]
    events, _ = parse(declaration, {"user": texts, "item": texts, "rating": [5] * len(texts)})
    assert events["item"] == [key.decode() for key in keys_of(tf.constant(texts)).numpy()]


def test_a_row_is_rejected_once():
    declaration = shop.tiny("nowhere", features={"price": NUMBER}, user="user")
    columns = {"price": ["x", "x", "1"], "user": ["", "u", ""], "rating": ["y", "1", "1"]}
    events, rejected = parse(declaration, columns)
    assert sum(count for count, _ in rejected.values()) == 3
    assert events["user"] == []


def test_a_label_that_equals_a_text():
    """With the space around it cut off; an empty text is a missing label."""
    declaration = shop.tiny("nowhere", labels={"like": {"column": "event", "equals": "buy"}})
    columns = {"item": ["a"] * 5, "event": ["buy", " buy ", "Buy", "", "view"]}
    events, rejected = parse(declaration, columns)
    assert events["label:like"] == [1.0, 1.0, 0.0, None, 0.0]
    assert not rejected
    with pytest.raises(UserError, match="`equals` makes a binary label by itself"):
        shop.tiny("nowhere", labels={"like": {"column": "e", "equals": "b", "at_least": 2}})
    number = {"kind": "number", "role": "item", "column": "event"}
    with pytest.raises(UserError, match=r"'event' is both a number .* and text"):
        shop.tiny(
            "nowhere", features={"x": number},
            labels={"like": {"column": "event", "equals": "buy"}},
        )  # fmt: skip
