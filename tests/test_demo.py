"""What exports bring along for the server's page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from serving.replay import replay
from tests.test_export import sample
from tfrec import demo
from tfrec.data import load_transform, pad
from tfrec.features import Features
from tfrec.recommend import export_two_stages
from tfrec.runs import Run
from tfrec.serving_inputs import columns_of_examples, from_columns
from tfrec.train import train


@pytest.fixture(scope="module")
def runs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """One that retrieves, and one that ranks with attention."""
    base = tmp_path_factory.mktemp("demo")
    for model in ("mf", "din"):
        train({"data": str(shop), "model": {"id": model}, "epochs": 1}, base / model, export=False)
    return Run.load(base / "mf"), Run.load(base / "din")


@pytest.fixture(scope="module")
def version(runs: tuple[Run, Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_two_stages(*runs, tmp_path_factory.mktemp("both") / "export", candidates=20)


@pytest.fixture(scope="module")
def content(version: Path) -> dict[str, Any]:
    found = (version / "assets.extra" / "demo.json").read_text()
    return dict(json.loads(found, parse_constant=pytest.fail))  # browsers know no NaN


def asked(version: Path, signature: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a signature says of rows with histories of one length."""
    function = tf.saved_model.load(str(version)).signatures[signature]
    specs = function.structured_input_signature[1]
    assert set(specs) == set(rows[0])
    columns = {name: [np.nan if row[name] is None else row[name] for row in rows] for name in specs}
    answer = function(**{n: tf.constant(v, specs[n].dtype) for n, v in columns.items()})
    return {name: value.numpy() for name, value in answer.items()}


def test_two_stages_explain_as_their_ranking_model(
    shop: Path, runs: tuple[Run, Run], version: Path
) -> None:
    features = runs[1].features
    columns = columns_of_examples(features, sample(shop)[:20])
    raw = from_columns(features, {name: tf.constant(v) for name, v in columns.items()})
    inputs = pad(features, load_transform(shop).transform_fn(raw))
    expected = runs[1].best_model().explain(inputs)
    explain = tf.saved_model.load(str(version)).signatures["explain"]
    specs = explain.structured_input_signature[1]
    got = explain(**{name: tf.constant(columns[name], specs[name].dtype) for name in specs})
    assert set(got) == set(expected) == {"attention_bought_before"}
    for name, weights in expected.items():
        assert np.ptp(weights) > 0
        np.testing.assert_allclose(got[name], weights, rtol=1e-4, atol=1e-6)


def test_all_signatures_of_two_stages_are_warmed_up(version: Path) -> None:
    assert replay(version) == ({"recommend": 2, "explain": 2}, 0)


def test_users_can_be_recommended_to_and_what_they_get_explained(
    version: Path, content: dict[str, Any]
) -> None:
    (history,) = content["histories"]
    assert history == {
        "name": "bought_before",
        "items": "bought_before_product",
        "attention": "attention_bought_before",
    }
    users = {user["name"]: user["columns"] for user in content["users"]}
    assert len(users) == len(content["users"]) > 5
    assert all(row["customer"] == name for name, row in users.items())
    row = next(iter(users.values()))
    options = {"k": 5, "exclude_seen": True, "exclude": [""]}
    items = asked(version, "recommend", [{**row, **options}])["items"][0]
    assert (items != b"").all()
    places = [content["items"]["keys"].index(item.decode()) for item in items]
    titles, columns = content["items"]["titles"], content["items"]["columns"]
    assert all(titles) and set(columns) == {"product", "colours", "unit_price"}
    prices = [price for price in columns["unit_price"] if price is not None]
    assert all(price == round(price, 2) for price in prices)  # as they were given, not as floats
    described = [{name: values[place] for name, values in columns.items()} for place in places]
    weights = asked(version, "explain", [{**row, **one} for one in described])
    count = len(row[history["items"]])
    assert (weights[history["attention"]][:, count:] == 0).all()
    assert (weights[history["attention"]][:, :count] != 0).any()


def test_a_bounded_number_of_users_and_items_is_kept(
    runs: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "USERS", 3)
    monkeypatch.setattr(demo, "ITEMS", 2)
    keys = np.array([b"p3", b"p1", b"p2", b"p4"], object)
    demo.write(tmp_path, runs[:1], keys)
    found = json.loads((tmp_path / "demo.json").read_text())
    assert len(found["users"]) == 3
    met = {i for user in found["users"] for i in user["columns"]["bought_before_product"]} - {""}
    assert found["items"]["keys"][:2] == ["p3", "p1"]
    assert set(found["items"]["keys"]) == {"p3", "p1", *met}
    assert len(found["items"]["titles"]) == len(found["items"]["keys"])


def test_titles_are_the_text_that_models_do_not_read(tmp_path: Path, shop: Path) -> None:
    features = Features.load(shop)
    (tmp_path / "items").mkdir()
    table = {str(features.item_key): ["p1", "p2"], "weight": [1, 2], "title": ["One " * 99, None]}
    pq.write_table(pa.table(table), tmp_path / "items" / "items.parquet")
    titles = demo._titles(tmp_path, features, np.array(["p2", "p3", "p1"], object))
    assert titles == [None, None, ("One " * 99)[:200]]
