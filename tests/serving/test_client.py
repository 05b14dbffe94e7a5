"""The client against a server in a process of its own; both APIs, waiting and awaited."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.client import (
    AsyncClient,
    Client,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    Tensor,
    VersionStatus,
    over_grpc,
    over_rest,
)
from serving.client.transport import Target
from serving.errors import ServingError
from tests.serving.process import Server, until
from tests.serving.saved_models import Everything

APIS = ["grpc", "rest"]
KINDS = [*itertools.product(APIS, ["waits", "awaits"])]

ROW: dict[str, Any] = {
    "user": "ann",
    "at": 5,
    "unit_price": 2.5,
    "liked": ["a", "b"],
    "liked_price": [1.0, 2.0],
    "place": [1, 2.5],
}
ANSWER = {
    "score": 2.8,
    "events": 2,
    "padding": 0,
    "known": True,
    "about": "ann:a,b",
    "vectors": [2.0, 0.25],
    "names": ["ann", "ann"],
    "raw_bytes": b"ann",
}


def address(server: Server, api: str) -> str:
    return f"127.0.0.1:{server.port if api == 'grpc' else server.rest_port}"


def client_of(server: Server, api: Any = "grpc", **settings: Any) -> Client:
    return Client(address(server, api), **{"model": "model", "api": api, **settings})


def ask(kind: tuple[str, str], server: Server, method: str, *given: Any, **named: Any) -> Any:
    """What a method of a client of that kind gives."""
    api: Any = kind[0]
    if kind[1] == "waits":
        with client_of(server, api) as client:
            return plain(getattr(client, method)(*given, **named))

    async def asking() -> Any:
        async with AsyncClient(address(server, api), model="model", api=api) as client:
            return await getattr(client, method)(*given, **named)

    return plain(asyncio.run(asking()))


def plain(value: Any) -> Any:
    """Arrays as lists of the decimals that they stand for, to compare."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [float(str(item)) for item in value] if isinstance(value, np.ndarray) else value


def error_of(server: Server, method: str, *given: Any, **settings: Any) -> list[ServingError]:
    """The errors of both APIs."""
    errors = []
    for api in APIS:
        with client_of(server, api, **settings) as client:
            with pytest.raises(ServingError) as raised:
                getattr(client, method)(*given)
            errors.append(raised.value)
    return errors


@pytest.mark.parametrize("kind", KINDS)
def test_predict(recommender: Server, kind: tuple[str, str]) -> None:
    assert ask(kind, recommender, "predict", ROW) == ANSWER
    assert ask(kind, recommender, "predict", [ROW, {**ROW, "user": "bob"}]) == [
        ANSWER,
        {**ANSWER, "about": "bob:a,b", "names": ["bob", "bob"], "raw_bytes": b"bob"},
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_padded_and_none_is_missing(recommender: Server, kind: tuple[str, str]) -> None:
    rows = [
        {**ROW, "liked": [], "liked_price": []},
        {**ROW, "user": None, "unit_price": None},
        {**ROW, "liked": None, "liked_price": None},
        {**ROW, "liked": ("a", "b", "c"), "liked_price": np.array([1, 2, 4])},
    ]
    empty, missing, none, long = ask(kind, recommender, "predict", rows)
    assert (empty["events"], empty["padding"], empty["score"]) == (0, 3, 2.5)
    assert none == empty
    assert (missing["events"], missing["padding"], missing["known"]) == (2, 1, False)
    assert missing["score"] == pytest.approx(-0.7)
    assert (long["events"], long["padding"], long["score"]) == (3, 0, pytest.approx(3.2))


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_bytes(recommender: Server, kind: tuple[str, str]) -> None:
    answer = ask(kind, recommender, "predict", {**ROW, "user": "Zoë"})
    assert (answer["names"], answer["raw_bytes"]) == (["Zoë", "Zoë"], "Zoë".encode())


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_built_from_signatures(recommender: Server, kind: tuple[str, str]) -> None:
    raw = {("unit price" if name == "unit_price" else name): ROW[name] for name in ROW}
    assert ask(kind, recommender, "predict_examples", raw) == ANSWER
    rows = [raw, {"at": 1, "user": None}]
    whole, bare = ask(kind, recommender, "predict_examples", rows)
    assert whole == ANSWER
    assert (bare["events"], bare["known"], bare["score"]) == (0, False, -1.0)


def test_names_that_signatures_cannot_have(recommender: Server) -> None:
    raw = {("unit price" if name == "unit_price" else name): ROW[name] for name in ROW}
    assert ask(("grpc", "waits"), recommender, "predict", raw) == ANSWER


@pytest.mark.parametrize("kind", KINDS)
def test_recommend(recommender: Server, kind: tuple[str, str]) -> None:
    ann = {"user": "ann", "liked": ["a"]}
    best = ask(kind, recommender, "recommend", ann, 2)
    assert [item["item"] for item in best] == ["b", "c"]
    assert best[0] == {"item": "b", "score": 0.8, "retrieval_score": 1.6}
    all_but_one = ask(kind, recommender, "recommend", ann, exclude=["b"], exclude_seen=False)
    assert [item["item"] for item in all_but_one] == ["a", "c", "d", "e"]
    users = [{**ann, "k": 1}, {"user": "bob", "liked": ["a", "b"], "exclude": ["c"]}]
    several = ask(kind, recommender, "recommend", users, 3)
    assert [[item["item"] for item in items] for items in several] == [["b"], ["d", "e"]]


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_metadata(recommender: Server, kind: tuple[str, str]) -> None:
    expected = [VersionStatus(3, "AVAILABLE", "OK", "")]
    assert ask(kind, recommender, "status") == expected
    metadata = ask(kind, recommender, "metadata")
    assert metadata.version == 3
    assert sorted(metadata.signatures) == ["predict", "recommend", "serving_default"]
    assert metadata.signatures["predict"].inputs["at"] == Tensor("int64", (-1,))
    assert metadata.signatures["predict"].outputs["vectors"] == Tensor("float32", (-1, 2))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"usr": "ann"}, "the row has 'usr', which the signature does not take; did you mean"),
        ({"at": "5"}, "the row: column 'at' takes values of int64, not '5' (str)"),
        ({"at": 5.0}, "the row: column 'at' takes values of int64, not 5.0 (float)"),
        ({"at": None}, "the row: column 'at' takes values of int64, not None (NoneType)"),
        ({"at": 2**63}, "the row: column 'at' takes values of int64"),
        ({"at": True}, "the row: column 'at' takes values of int64, not True (bool)"),
        ({"user": 5}, "the row: column 'user' takes values of string, not 5 (int)"),
        ({"user": "\ud800"}, "the row: column 'user' takes values of string"),
        ({"user": ["a"]}, "the row: column 'user' takes one value in a row, not ['a']"),
        ({"unit_price": 1e39}, "the row: column 'unit_price' takes values of float32, not 1e+39"),
        ({"unit_price": 10**400}, "the row: column 'unit_price' takes values of float32"),
        ({"liked": "a"}, "the row: column 'liked' takes a list, not 'a'"),
        ({"liked": [["a"]]}, "the row: column 'liked' takes single values in its lists, not ['a']"),
        ({"place": [1]}, "the row: column 'place' takes 2 values, not 1"),
    ],
)
def test_rows_that_do_not_fit(recommender: Server, change: Any, error: str) -> None:
    for raised in error_of(recommender, "predict", {**ROW, **change}):
        assert isinstance(raised, InvalidArgumentError)
        assert str(raised).startswith(error)


def test_the_row_and_the_nearest_name_are_told(recommender: Server) -> None:
    wrong = {("unti_price" if name == "unit_price" else name): ROW[name] for name in ROW}
    short = {name: ROW[name] for name in ROW if name not in ("at", "liked")}
    for rows, error in (
        ([ROW, wrong], "row 1 has 'unti_price', which the signature does not take; "
         "did you mean 'unit_price'?"),
        ([ROW, ROW, short], "row 2 lacks 'at', 'liked'; None stands for a missing value"),
        ([ROW, "ann"], "row 1 is of type str; a row is a mapping of raw columns"),
        ([], "there are no rows to send"),
    ):  # fmt: skip
        assert [str(e) for e in error_of(recommender, "predict", rows)] == [error, error]
    for raised in error_of(recommender, "predict_examples", {**ROW, "usr": ""}):
        assert str(raised).endswith(
            "'usr', which the signature does not take; did you mean 'user'?"
        )


def test_errors_have_types(recommender: Server) -> None:
    for raised in error_of(recommender, "predict", {**ROW, "at": 0}):
        assert isinstance(raised, InvalidArgumentError)
        assert "at is not above 0" in str(raised)
    for raised in error_of(recommender, "predict", ROW, model="other"):
        assert isinstance(raised, NotFoundError)
        assert "other" in str(raised)
    for raised in error_of(recommender, "status", version=4):
        assert isinstance(raised, NotFoundError)
    for raised in error_of(recommender, "predict", ROW, "predcit"):
        assert str(raised) == "the model has no signature 'predcit'; did you mean 'predict'?"
    for raised in error_of(recommender, "predict_examples", ROW, "predict"):
        assert isinstance(raised, FailedPreconditionError)
        assert "signature 'predict' does not take tf.Examples" in str(raised)


def test_signatures_without_rows(server: Server) -> None:
    for raised in error_of(server, "predict", {"name": "a"}, "binary"):
        assert str(raised) == "input 'name' of the signature has no rows"
    with client_of(server) as client, pytest.raises(FailedPreconditionError) as error:
        client.predict({}, "constant")
    assert str(error.value) == "output 'y' of shape () does not have one row for each of 1"


@pytest.mark.parametrize("api", APIS)
def test_a_version_is_asked_by_its_number(server: Server, api: str) -> None:
    with client_of(server, api, version=7) as client:
        assert client.predict({"x": 1}, "serving_default") == {"y": 2.5}
        assert client.metadata().version == 7


def test_a_version_is_asked_by_its_label() -> None:
    target = Target("a model", None, "canary")
    _, request = over_grpc.Grpc("a:1", None).status(target)
    assert (request.model_spec.name, request.model_spec.version_label) == ("a model", "canary")
    _, path, _ = over_rest.Rest("a:1", None).status(target)
    assert path == "/v1/models/a%20model/labels/canary"


@pytest.mark.parametrize("api", APIS)
def test_many_at_once(recommender: Server, api: Any) -> None:
    rows = [{**ROW, "at": at, "liked": ["x"] * at, "liked_price": [1] * at} for at in range(1, 9)]

    async def gathered() -> Any:
        async with AsyncClient(address(recommender, api), model="model", api=api) as client:
            return await asyncio.gather(*(client.predict(row) for row in rows))

    expected = list(range(1, 9))
    assert [answer["events"] for answer in asyncio.run(gathered())] == expected
    with client_of(recommender, api) as client, ThreadPoolExecutor(8) as pool:
        assert [answer["events"] for answer in pool.map(client.predict, rows)] == expected


@pytest.mark.parametrize("api", APIS)
def test_a_new_version_with_another_signature(
    start: Callable[..., Server], halves: Path, tmp_path: Path, api: str
) -> None:
    base, other = tmp_path / "base", Everything(2.0)
    shutil.copytree(halves / "two", base / "1")
    server = start(base)
    server.wait_for("loaded model version 1")
    with client_of(server, api) as old, client_of(server, api) as new:
        for client in (old, new):
            assert client.predict({"x": 1}, "serving_default") == {"y": 2.5}
        tf.saved_model.save(other, str(tmp_path / "2"), {"serving_default": other.two})
        (tmp_path / "2").rename(base / "2")
        until(lambda: old.status()[0] == VersionStatus(2, "AVAILABLE", "OK", ""))
        row = {"pair": [1, 2], "name": "a"}
        assert new.predict(row, "serving_default") == {"total": 3.0, "greeting": "hello a"}
        with pytest.raises(InvalidArgumentError, match="has 'x', which the signature does not"):
            old.predict({"x": 1}, "serving_default")


def test_the_import_is_cheap_and_tensorflow_can_follow() -> None:
    script = """
import sys
from serving.client import Client
from serving.client.protos import Example
Client("localhost:1", api="rest"); Client("localhost:1")
assert not {"tensorflow", "tfrec", "pipeline"} & set(sys.modules)
import tensorflow as tf
assert tf.train.Example is Example
assert tf.make_ndarray(tf.make_tensor_proto([1.5])) == 1.5
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
