"""The client and an export of a trained recommender: its raw columns, by their own names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from serving.client import Client
from tests.serving.process import Server
from tests.support import randomise
from tests.test_export import sample
from tfrec.export import export
from tfrec.features import Features
from tfrec.runs import Run, resolve
from tfrec.serving_inputs import columns_of_examples, request_name

ITEM = ("product", "colours", "unit price")


@pytest.fixture(scope="module")
def model(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base path of an export of two towers, one of which reads histories; with random weights."""
    base = tmp_path_factory.mktemp("two_tower")
    config, features = resolve({"data": str(shop), "model": {"id": "two_tower"}}, "test")
    run = Run(base, config, features)
    run.start(overwrite=False)
    built = run.build_model()
    randomise(built)
    return export(run, built).parent


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(model, tmp_path_factory.mktemp("log") / "log")
    try:
        server.wait_for("loaded model version 1")
        yield server
    finally:
        server.close()


@pytest.fixture(params=["grpc", "rest"])
def client(request: Any, exported: Server) -> Iterator[Client]:
    port = exported.port if request.param == "grpc" else exported.rest_port
    with Client(f"127.0.0.1:{port}", model="model", api=request.param) as one:
        yield one


@pytest.fixture(scope="module")
def rows(shop: Path) -> list[dict[str, Any]]:
    """A few raw rows of the data set, with histories of 0 to 6 events."""
    features, examples = Features.load(shop), sample(shop)[:7]
    columns = columns_of_examples(features, examples)
    result: list[dict[str, Any]] = []
    for number in range(len(examples)):
        row = {c.name: columns[request_name(c)][number] for c in features.columns}
        row |= {c.name: row[c.name][:number] for c in features.columns if c.history}
        result.append(row)
    assert [len(row["bought_before_product"]) for row in result] == list(range(7))
    return result


def test_all_ways_give_what_the_export_gives(
    model: Path, shop: Path, client: Client, rows: list[dict[str, Any]]
) -> None:
    predict = tf.saved_model.load(str(model / "1")).signatures["predict"]
    types = {request_name(column): column.dtype for column in Features.load(shop).columns}
    expected = []
    for row in rows:  # each alone, which nothing is padded for
        named = {name.replace(" ", "_"): value for name, value in row.items()}
        tensors = {name: tf.constant([named[name]], dtype) for name, dtype in types.items()}
        expected.append(predict(**tensors)["score"].numpy()[0])
    assert len({round(float(score), 4) for score in expected}) == len(rows)
    together = [row["score"] for row in client.predict(rows)]
    assert together == pytest.approx(expected, rel=1e-4, abs=1e-5)
    one_by_one = [client.predict(row)["score"] for row in rows]
    assert one_by_one == pytest.approx(expected, rel=1e-4, abs=1e-5)
    by_examples = [row["score"] for row in client.predict_examples(rows)]
    assert by_examples == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_recommend(client: Client, rows: list[dict[str, Any]]) -> None:
    users = [{name: row[name] for name in row if name not in ITEM} for row in rows]
    for row, items in zip(rows, client.recommend(users, 5), strict=True):
        assert len({item["item"] for item in items}) == 5
        assert not {item["item"].encode() for item in items} & set(row["bought_before_product"])
        scores = [item["score"] for item in items]
        assert scores == sorted(scores, reverse=True)
    first, second, *_ = client.recommend(users[0], 5)
    assert client.recommend(users[0], 1, exclude=[first["item"]]) == [
        {"item": second["item"], "score": pytest.approx(second["score"], rel=1e-5)}
    ]
