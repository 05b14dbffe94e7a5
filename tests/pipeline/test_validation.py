"""The schema that is inferred of data, and what is said of other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from pipeline import page, schema, validation
from pipeline.statistics import Statistics, features_of
from pipeline.validation import Anomaly, jensen_shannon, l_infinity, to_proto, validate
from tests.pipeline import shop
from tfrec.strict import UserError

KINDS = {"device": pa.large_binary(), "item": pa.large_binary(), "liked_item": pa.large_binary()}
DECLARATION = shop.declare()
DEVICES = [b"phone", b"desktop", b"tablet"]


def data(rows: int = 1_000, seed: int = 0, **columns: Any) -> dict[str, list[list[Any]]]:
    """Columns of raw examples of the shop, as lists per row; None takes a column out."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {
        "device": [[d] for d in rng.choice(DEVICES, rows, p=[0.6, 0.3, 0.1])],
        "item": [[b"i%d" % i] for i in rng.integers(5_000, size=rows)],
        "price": [[p] for p in rng.normal(20, 3, rows)],
        "label:like": [[float(v)] for v in rng.random(rows) < 0.3],
        "liked_item": [[b"i1"] * int(n) for n in rng.integers(4, size=rows)],
    }  # fmt: skip
    return {k: v for k, v in {**made, **columns}.items() if v is not None}


def statistics(columns: dict[str, list[list[Any]]], name: str = "train") -> Any:
    combine = Statistics(name)
    arrays = [
        pa.array(values, pa.large_list(KINDS.get(c, pa.float32()))) for c, values in columns.items()
    ]
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    added = combine.add_input(combine.create_accumulator(), batch)
    return statistics_pb2.DatasetFeatureStatistics.FromString(combine.extract_output(added))


@pytest.fixture(scope="module")
def known() -> schema_pb2.Schema:
    return schema.infer([statistics(data())], DECLARATION)


def test_what_is_inferred(known: schema_pb2.Schema) -> None:
    features = {feature.name: feature for feature in known.feature}
    device, item, price, like, liked = features.values()
    assert list(device.string_domain.value) == ["desktop", "phone", "tablet"]
    assert not item.HasField("string_domain")
    assert not item.HasField("drift_comparator")  # there are new ones every day
    assert price.drift_comparator.jensen_shannon_divergence.threshold == schema.DRIFT
    assert device.drift_comparator.infinity_norm.threshold == schema.DRIFT
    assert list(like.not_in_environment) == [schema.SERVING]
    assert (like.float_domain.min, like.float_domain.max) == (0, 1)
    assert price.presence.min_fraction == 1
    assert liked.presence.min_fraction == 0
    assert liked.value_count.max == 3


def test_a_schema_of_several_splits() -> None:
    """Is what all of them fit: a first run finds nothing odd in its own data."""
    other = data(seed=9, price=[[]] + [[20.0]] * 999, device=[[b"watch"]] * 1_000)
    splits = [statistics(data()), statistics(other, "validation")]
    found = schema.infer(splits, DECLARATION)
    assert [validate(split, found) for split in splits] == [[], []]


def test_a_schema_is_kept_as_text(known: schema_pb2.Schema, tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    schema.save(known, path)
    assert schema.load(path) == known
    assert 'name: "price"' in path.read_text()
    path.write_text(path.read_text().replace("type: FLOAT", "type: FLAOT", 1))
    with pytest.raises(UserError, match=rf"^{path}: is no schema \(.*FLAOT"):
        schema.load(path)


def test_data_that_fit(known: schema_pb2.Schema) -> None:
    """Also other data of the same kind, with a share of new values that is small."""
    assert validate(statistics(data()), known) == []
    other = data(seed=1)
    other["device"][0] = [b"watch"]
    (anomaly,) = validate(statistics(other), known, previous=statistics(data()))
    assert (anomaly.column, anomaly.error) == ("device", False)
    assert "0.10% of the values are new, such as 'watch'" in anomaly.reason
    requests = data(seed=2, **{"label:like": None})
    assert validate(statistics(requests), known, environment=schema.SERVING) == []


Info = anomalies_pb2.AnomalyInfo
ODD = {
    "missing column": ({"price": None}, "price", Info.SCHEMA_MISSING_COLUMN),
    "missing label": ({"label:like": None}, "label:like", Info.SCHEMA_MISSING_COLUMN),
    "missing values": (
        {"price": [[]] * 500 + [[20.0]] * 500}, "price", Info.FEATURE_TYPE_LOW_FRACTION_PRESENT
    ),
    "no value": ({"price": [[]] * 1_000}, "price", Info.FEATURE_TYPE_LOW_NUMBER_PRESENT),
    "new values": (
        {"device": [[b"watch"]] * 1_000}, "device", Info.ENUM_TYPE_UNEXPECTED_STRING_VALUES
    ),
    "longer lists": (
        {"liked_item": [[b"i1"] * 4] * 1_000}, "liked_item", Info.FEATURE_TYPE_HIGH_NUMBER_VALUES
    ),
    "label above 1": (
        {"label:like": [[5.0], [0.0]] * 500}, "label:like", Info.FLOAT_TYPE_BIG_FLOAT
    ),
    "label below 0": (
        {"label:like": [[-1.0], [0.0]] * 500}, "label:like", Info.FLOAT_TYPE_SMALL_FLOAT
    ),
    "one label": ({"label:like": [[1.0]] * 1_000}, "label:like", Info.FEATURE_TYPE_LOW_UNIQUE),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd(case: str, known: schema_pb2.Schema) -> None:
    columns, column, kind = ODD[case]
    anomalies = validate(statistics(data(**columns)), known)
    assert [(a.column, a.kind, a.error) for a in anomalies] == [(column, kind, True)]
    assert anomalies[0].reason
    assert anomalies[0].remedy


def test_a_new_column_and_another_type(known: schema_pb2.Schema) -> None:
    columns = data(colour=[[1.0]] * 1_000, device=[[1.0]] * 1_000)
    combine = Statistics("train")
    kinds = {**KINDS, "device": pa.int64()}
    arrays = [
        pa.array([[int(v) for v in row] for row in rows] if name == "device" else rows,
                 pa.large_list(kinds.get(name, pa.float32())))
        for name, rows in columns.items()
    ]  # fmt: skip
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    added = combine.add_input(combine.create_accumulator(), batch)
    found = statistics_pb2.DatasetFeatureStatistics.FromString(combine.extract_output(added))
    anomalies = {a.column: a for a in validate(found, known)}
    assert anomalies["colour"].kind == Info.SCHEMA_NEW_COLUMN
    assert not anomalies["colour"].error
    assert anomalies["device"].kind == Info.UNEXPECTED_DATA_TYPE
    assert "INT, and BYTES in the schema" in anomalies["device"].reason


def test_no_data(known: schema_pb2.Schema) -> None:
    (anomaly,) = validate(statistics_pb2.DatasetFeatureStatistics(name="test"), known)
    assert anomaly.kind == Info.DATASET_LOW_NUM_EXAMPLES


def test_drift_and_skew(known: schema_pb2.Schema) -> None:
    """Of shares and of a distribution's place; the same data in another order have none."""
    today = data(seed=3)
    rng = np.random.default_rng(4)
    order = rng.permutation(1_000)
    again = {name: [rows[i] for i in order] for name, rows in today.items()}
    other = data(
        seed=5,
        device=[[b"phone"]] * 1_000,
        price=[[p] for p in rng.normal(28, 3, 1_000)],
    )
    assert validate(statistics(today), known, previous=statistics(again)) == []
    for kind in ("previous", "serving"):
        given = {kind: statistics(other)}
        anomalies = {a.column: a for a in validate(statistics(today), known, **given)}
        assert set(anomalies) == {"device", "price"}
        assert anomalies["device"].kind == Info.COMPARATOR_L_INFTY_HIGH
        assert "most at 'phone'" in anomalies["device"].reason
        assert anomalies["price"].kind == Info.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
        name = {"previous": "drift", "serving": "skew"}[kind]
        assert all(a.reason.startswith(name) for a in anomalies.values())
        assert all(f"raise {name}_comparator" in a.remedy for a in anomalies.values())


def column(name: str, rows: list[list[Any]]) -> Any:
    return features_of(statistics({name: rows}))[name]


def test_distances() -> None:
    """By hand: L-infinity of .5 and .75; Jensen-Shannon of distributions apart is one bit."""
    half, most = [[b"a"], [b"b"]] * 4, [[b"a"]] * 6 + [[b"b"]] * 2
    distance, value = l_infinity(column("item", half), column("item", most))
    assert (distance, value) == (pytest.approx(0.25), "a")
    low, high = ([[float(v)] for v in start + np.arange(100)] for start in (0, 1_000))
    assert jensen_shannon(column("p", low), column("p", high)) == pytest.approx(1, abs=0.05)
    assert jensen_shannon(column("p", low), column("p", low)) == pytest.approx(0, abs=1e-9)
    one, two = [[3.0]] * 10, [[4.0]] * 10
    assert jensen_shannon(column("p", one), column("p", one)) == 0
    assert jensen_shannon(column("p", one), column("p", two)) == pytest.approx(1)
    p = np.array([0.75, 0.25])
    q = np.array([0.25, 0.75])
    mean = (p + q) / 2
    expected = ((p * np.log2(p / mean)).sum() + (q * np.log2(q / mean)).sum()) / 2
    columns = [column("p", [[0.0]] * round(100 * a) + [[1.0]] * round(100 * b)) for a, b in (p, q)]
    assert jensen_shannon(*columns) == pytest.approx(expected, abs=0.01)


def test_the_proto(known: schema_pb2.Schema) -> None:
    """By column, with all reasons, as TFDV writes it."""
    anomalies = validate(statistics(data(price=[[]] * 1_000)), known)
    anomalies += [Anomaly("price", "test", Info.UNKNOWN_TYPE, "odd", "look", error=False)]
    text = text_format.MessageToString(to_proto(anomalies, known))
    proto = text_format.Parse(text, anomalies_pb2.Anomalies())
    assert proto.baseline == known
    info = proto.anomaly_info["price"]
    assert info.severity == Info.ERROR
    assert [reason.short_description for reason in info.reason] == ["has no value", "odd"]
    assert "lower presence.min_count" in info.description


def test_the_page() -> None:
    """Holds every column and anomaly, nothing from elsewhere, and no code from the data."""
    evil = b"<script>alert(1)</script>"
    found = statistics(data(device=[[evil]] * 1_000, **{"<b>": [[1.0]] * 1_000}))
    empty = statistics_pb2.DatasetFeatureStatistics(name="test")
    anomalies = [Anomaly("<b>", "train", Info.UNKNOWN_TYPE, "odd <i>", "look & mend")]
    html = page.render("a shop <x>", {"train": found, "test": empty}, anomalies)
    assert html.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in html
    for text in ("a shop &lt;x&gt;", "odd &lt;i&gt;", "look &amp; mend", "label:like", "<svg"):
        assert text in html
    assert "<b>" not in html.replace("<b>1,000</b>", "").replace("<b>0</b>", "").replace(
        "<b>&lt;b&gt;</b>", ""
    )
    assert "http" not in html
    assert "src=" not in html


def test_a_page_of_nothing() -> None:
    empty = {"train": statistics(data(rows=2, price=[[], []], device=[[], []]))}
    assert "no values" in page.render("nothing", empty, [])
    assert validation.validate(empty["train"], schema_pb2.Schema())
