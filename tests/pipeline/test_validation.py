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
from pipeline.distances import jensen_shannon, l_infinity
from pipeline.statistics import Statistics, features_of
from pipeline.validation import Anomaly, constant_labels, to_proto, validate
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
    line = path.read_text().splitlines().index("  type: FLAOT") + 1
    with pytest.raises(UserError, match=rf"^{path}, line {line}: is no schema: .*FLAOT") as caught:
        schema.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('feature {name: "a"} feature {name: "a"}', "column 'a' is there twice"),
        (
            'string_domain {name: "brand"} feature {name: "a" domain: "brnd"}',
            "column 'a': no domain 'brnd'; did you mean 'brand'?",
        ),
    ],
)
def test_a_schema_that_cannot_be(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        schema.load(path)
    assert message in str(caught.value)


def test_data_that_fit(known: schema_pb2.Schema) -> None:
    """Also other data of the same kind, with a share of new values that is small."""
    assert validate(statistics(data()), known) == []
    other = data(seed=1)
    other["device"][0] = [b"watch"]
    (anomaly,) = validate(statistics(other), known, previous=statistics(data()))
    assert (anomaly.column, anomaly.error) == ("device", False)
    assert "0.10% of the values are new, such as 'watch'" in anomaly.reason
    requests = data(seed=2, **{"label:like": None}, liked_item=None)
    assert validate(statistics(requests), known, environment=schema.SERVING) == []


Info = anomalies_pb2.AnomalyInfo
ODD = {
    "missing column": ({"price": None}, "price", Info.SCHEMA_MISSING_COLUMN),
    "missing label": ({"label:like": None}, "label:like", Info.SCHEMA_MISSING_COLUMN),
    "no label": ({"label:like": [[]] * 1_000}, "label:like", Info.FEATURE_TYPE_LOW_NUMBER_PRESENT),
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
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd(case: str, known: schema_pb2.Schema) -> None:
    columns, column, kind = ODD[case]
    anomalies = validate(statistics(data(**columns)), known)
    assert [(a.column, a.kind, a.error) for a in anomalies] == [(column, kind, True)]
    assert anomalies[0].reason
    assert anomalies[0].remedy


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_label_that_is_the_same_in_all_rows(value: float) -> None:
    found = statistics(data(**{"label:like": [[value]] * 999 + [[]]}))
    (anomaly,) = constant_labels(found)
    assert (anomaly.column, anomaly.kind) == ("label:like", Info.FEATURE_TYPE_LOW_UNIQUE)
    assert anomaly.error
    assert f"is {value:g} in all rows that have it" in anomaly.reason
    for values in ([[value]] * 999 + [[1 - value]], [[]] * 1_000):
        assert constant_labels(statistics(data(**{"label:like": values}))) == []


def test_constraints_that_people_add(known: schema_pb2.Schema) -> None:
    """One end of a domain, a domain of several columns, least lengths, columns left alone."""
    kept = schema_pb2.Schema()
    kept.CopyFrom(known)
    features = {feature.name: feature for feature in kept.feature}
    features["price"].float_domain.max = 25
    kept.string_domain.add(name="devices", value=["phone", "desktop"])
    features["device"].domain = "devices"
    features["liked_item"].value_count.min = 2
    features["item"].lifecycle_stage = schema_pb2.DEPRECATED
    new = kept.feature.add(name="colour", type=schema_pb2.FLOAT, in_environment=["NIGHTLY"])
    new.not_in_environment.append(schema.TRAINING)
    new.presence.min_count = 1
    found = statistics(data(item=None))
    anomalies = {a.column: (a.kind, a.reason) for a in validate(found, kept)}
    assert {column: kind for column, (kind, _) in anomalies.items()} == {
        "price": Info.FLOAT_TYPE_BIG_FLOAT,
        "device": Info.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        "liked_item": Info.FEATURE_TYPE_LOW_NUMBER_VALUES,
    }
    assert anomalies["price"][1].endswith("beyond 25")
    assert "such as 'tablet'" in anomalies["device"][1]
    assert [a.column for a in validate(found, kept, environment="NIGHTLY")][:1] == ["colour"]


def test_a_flood_of_new_values(known: schema_pb2.Schema) -> None:
    """Their share counts those that statistics do not list, too."""
    flood = [[b"phone"]] * 500 + [[b"n%d" % i] for i in range(500)]
    (anomaly,) = validate(statistics(data(device=flood)), known)
    assert "50.00% of the values are new" in anomaly.reason


def test_a_column_that_is_missing_more_often(known: schema_pb2.Schema) -> None:
    """A column may be missing twice as often as in the first data, and in 1% of rows more."""

    def missing(rows: int) -> Any:
        return statistics(data(price=[[]] * rows + [[20.0]] * (1_000 - rows)))

    found = schema.infer([missing(200), missing(100)], DECLARATION)
    assert validate(missing(410), found) == []
    (anomaly,) = validate(missing(450), found)
    assert anomaly.kind == Info.FEATURE_TYPE_LOW_FRACTION_PRESENT
    assert "in 55.00% of the rows, not 59.00%" in anomaly.reason


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


def numbers(values: Any) -> Any:
    return column("p", [[float(value)] for value in values])


def texts(values: Any) -> Any:
    return column("item", [[b"%d" % value] for value in values])


def test_l_infinity() -> None:
    """By hand, and of values that are in the list of one column only."""
    found = l_infinity(texts([0, 1] * 4), texts([0] * 6 + [1] * 2))
    assert (found.value, found.at) == (pytest.approx(0.25), "0")
    apart = l_infinity(texts([0] * 9), texts([1] * 9))
    assert (apart.value, apart.at) == (1, "0")
    many = np.repeat(np.arange(200), 3)  # all are as frequent, and half of them are listed
    assert l_infinity(texts(many), texts(many + 150)).value == 0
    often = np.concatenate([np.full(600, 7), many])
    assert l_infinity(texts(often), texts(many)).value == pytest.approx(603 / 1_200 - 1 / 200)


def test_jensen_shannon() -> None:
    """Of points by hand; of distributions, by their densities."""
    low, high = numbers(np.arange(100)), numbers(np.arange(1_000, 1_100))
    assert jensen_shannon(low, high).value == pytest.approx(1)
    assert jensen_shannon(low, low).value == 0
    assert jensen_shannon(numbers([3] * 9), numbers([3] * 5)).value == 0
    assert jensen_shannon(numbers([3] * 9), numbers([4] * 5)).value == pytest.approx(1)
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    expected = _divergence(p, q)
    pair = (numbers([0] * round(100 * a) + [1] * round(100 * b)) for a, b in (p, q))
    assert jensen_shannon(*pair).value == pytest.approx(expected)
    rng = np.random.default_rng(0)
    x = np.linspace(-9, 10, 10_000)
    p, q = (np.exp(-((x - place) ** 2) / 2) for place in (0, 1))
    shifted = jensen_shannon(numbers(rng.normal(size=20_000)), numbers(rng.normal(1, 1, 20_000)))
    assert shifted.value == pytest.approx(_divergence(p / p.sum(), q / q.sum()), abs=0.01)


def _divergence(p: Any, q: Any) -> float:
    mean = (p + q) / 2
    return float((p * np.log2(p / mean) + q * np.log2(q / mean)).sum() / 2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.lognormal(0, 2, n),  # few very large ones
        lambda rng, n: rng.standard_cauchy(n),
        lambda rng, n: np.append(rng.normal(20, 3, n - 1), 1e6),  # a single one
        lambda rng, n: rng.integers(6, size=n),
        lambda rng, n: rng.normal(size=n) * (rng.random(n) < 0.3),  # most of them 0
    ],
    ids=["lognormal", "cauchy", "outlier", "whole", "zeros"],
)
def test_samples_of_one_distribution_are_near(draw: Any) -> None:
    """Whatever its tails are, and small ones within what chance explains."""
    rng = np.random.default_rng(1)
    large = [numbers(draw(rng, 10_000)) for _ in range(2)]
    assert jensen_shannon(*large).value < 0.01
    for rows in (20, 100, 1_000):
        for _ in range(10):
            found = jensen_shannon(numbers(draw(rng, rows)), large[0])
            assert found.value < found.chance
    for rows in (20, 100, 1_000):
        found = l_infinity(texts(rng.integers(3, size=rows)), texts(rng.integers(3, size=5_000)))
        assert found.value < found.chance


def test_the_proto(known: schema_pb2.Schema) -> None:
    """By column, with all reasons, as TFDV writes it."""
    anomalies = validate(statistics(data(price=[[]] * 1_000)), known)
    anomalies += [Anomaly("price", "test", Info.UNKNOWN_TYPE, "odd", "look", error=False)]
    text = text_format.MessageToString(to_proto(anomalies, known))
    proto = text_format.Parse(text, anomalies_pb2.Anomalies())
    assert proto.baseline == known
    info = proto.anomaly_info["price"]
    assert info.severity == Info.ERROR
    assert [reason.short_description for reason in info.reason] == ["has no values, not 1", "odd"]
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
    assert "train, 1,000 rows" in html
    assert "<b>" not in html.replace("<b>&lt;b&gt;</b>", "")
    assert "http" not in html
    assert "src=" not in html


def test_what_the_page_shows_of_a_column() -> None:
    """Figures of every split, and plots that an extreme value does not make flat."""
    price = [[float(1 + row % 50)] for row in range(999)] + [[1e6]]
    splits = {name: statistics(data(seed=i, price=price), name) for i, name in enumerate("ab")}
    html = page.render("shop", splits, [])
    _, *cards = html.split("<section")
    shown = {name: card for card in cards for name in data() if f'data-name="{name}"' in card}
    assert shown.keys() == data().keys()
    assert all(card.count('<svg class="mark') == 2 for card in shown.values())
    for text in (">1<", ">50<", "1,000,000", "<th>5%</th><td>3</td>", "<th>95%</th><td>48</td>"):
        assert text in shown["price"]
    assert ">1,000,000</text>" not in shown["price"]  # the end of the plot's axis
    assert "<th>rate</th>" in shown["label:like"]
    assert "<th>values, most</th><td>3</td>" in shown["liked_item"]
    assert "values per row" in shown["liked_item"]
    assert "phone" in shown["device"]


def test_a_page_of_nothing() -> None:
    empty = {"train": statistics(data(rows=2, price=[[], []], device=[[], []]))}
    assert "no values" in page.render("nothing", empty, [])
    assert validation.validate(empty["train"], schema_pb2.Schema())
