"""Requests that nobody means: each has an error of its own, and the next one its answer."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import classification_pb2, predict_pb2

from serving import inference
from serving.errors import ServingError
from serving.inference import MAX_BYTES, with_context
from serving.json_examples import parse_examples
from tests.serving.process import Server
from tests.serving.saved_models import predict_request

FUZZ = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CLIENTS_OWN = {200, 400, 404, 501}
CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}
SIGNATURES = ("serving_default", "two", "below_ten", "binary", "opaque", "constant")

KEYS = st.sampled_from(["x", "pair", "name", "b64", "inputs", "instances", "signature_name"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*SIGNATURES, "AA==", "\ud800", 1e39])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "instances": VALUES,
        "inputs": VALUES,
        "signature_name": st.sampled_from(SIGNATURES) | LEAVES,
        "examples": VALUES,
        "context": VALUES,
    },
)


def is_well(server: Server) -> None:
    assert server.predict({"instances": [1.0, 4.0]}) == (200, {"predictions": [2.5, 4.0]})
    reply = server.predictions.Predict(predict_request({"x": np.array([1, 4], np.float32)}))
    assert tf.make_ndarray(reply.outputs["y"]).tolist() == [2.5, 4.0]


def answer(server: Server, path: str, body: bytes) -> None:
    status, reply = server.call("POST", path, body)
    assert status in CLIENTS_OWN, (status, reply)
    assert ("error" in reply) == (status != 200)


@FUZZ
@given(body=BODIES, verb=st.sampled_from(["predict", "classify", "regress"]))
def test_json_of_any_form(server: Server, body: Any, verb: str) -> None:
    answer(server, f"/v1/models/model:{verb}", json.dumps(body).encode())
    is_well(server)


@FUZZ
@given(data=st.data())
def test_broken_json(server: Server, data: st.DataObject) -> None:
    good = b'{"signature_name": "two", "inputs": {"pair": [[1, 2.5e3]], "name": ["\\u00e4"]}}'
    at = data.draw(st.integers(0, len(good)))
    until = data.draw(st.integers(at, len(good)))
    answer(server, "/v1/models/model:predict", good[:at] + data.draw(st.binary()) + good[until:])


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"inputs":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"examples":[' + b'{"a":[' * 900 + b"]}" * 900 + b"]}",
        b'{"inputs":' + b"9" * 100_000 + b"}",
        b'{"inputs":1e' + b"9" * 10_000 + b"}",
        b'{"inputs":NaN,' + b"[" * 100_000,
        b'{"inputs":"\\ud800"}',
        b"\xff\xfe{}",
    ],
    ids=["open", "lists", "objects", "examples", "digits", "power", "NaN", "surrogate", "utf16"],
)
def test_deep_and_long_json(server: Server, body: bytes) -> None:
    for verb in ("predict", "classify"):
        status, reply = server.call("POST", f"/v1/models/model:{verb}", body)
        assert status == 400
        assert len(reply["error"]) < 2_000
    is_well(server)


@FUZZ
@given(rest=st.text(st.characters(codec="latin-1"), max_size=20), name=st.binary(max_size=8))
def test_paths_of_any_form(server: Server, rest: str, name: bytes) -> None:
    for path in (
        "/v1/models/" + urllib.parse.quote(rest),
        "/v1/models/" + urllib.parse.quote_from_bytes(name) + ":predict",
        "/v1/models/model/labels/" + urllib.parse.quote_from_bytes(name),
    ):
        for method, body in (("GET", None), ("POST", b'{"instances": [1]}')):
            status, _ = server.call(method, path, body)
            # The status by a label is that of all versions, as in TF Serving.
            known = method == "GET" and "/labels/" in path
            assert status in {400, 404} or (known and status == 200)


SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**62, 2**63 - 1, -1]), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    dtype = draw(st.sampled_from([*types_pb2.DataType.values(), 1, 1, 1, 7, 7, 999]))
    result = tensor_pb2.TensorProto(dtype=dtype)
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in draw(SIZES)]
    result.tensor_shape.dim.extend(dims)
    result.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    result.tensor_content = draw(st.sampled_from([b"", b"", b"1234", b"12345678"]))
    result.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    result.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    result.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)))
    result.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)))
    return result


@FUZZ
@given(
    inputs=st.dictionaries(st.sampled_from(["x", "pair", "name"]), tensors(), max_size=3),
    signature=st.sampled_from(SIGNATURES),
)
def test_tensors_of_any_form(server: Server, inputs: Any, signature: str) -> None:
    try:
        server.predictions.Predict(predict_request(inputs, signature), timeout=20)
    except grpc.RpcError as error:
        assert error.code() in CODES, (error.code(), error.details(), inputs)
    is_well(server)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "half", "bfloat16"])
def test_numbers_that_their_type_cannot_hold(server: Server, dtype: str) -> None:
    value = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(dtype).as_datatype_enum)
    value.int_val.append(-(2**31))
    value.half_val.append(-(2**31))
    with pytest.raises(grpc.RpcError) as raised:
        server.predictions.Predict(predict_request({"x": value}))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT, raised.value.details()


def claims(*sizes: int, text: bytes = b"") -> tensor_pb2.TensorProto:
    """A tensor of one value, a number or a text, which stands for all."""
    value = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0])
    if text:
        value = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text])
    value.tensor_shape.dim.extend([tensor_shape_pb2.TensorShapeProto.Dim(size=s) for s in sizes])
    return value


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": claims(2**24 + 1)},
        {"x": claims(2**62, 2**62)},
        {"x": claims(0, 2**62, 2**62)},
        {name: claims(2**23) for name in "abc"},
        {"x": claims(*[1] * 300)},
        {"name": claims(2**10, text=b"0" * 2**17)},
    ],
    ids=["large", "overflow", "beside 0", "together", "rank", "text"],
)
def test_a_few_bytes_cannot_ask_for_all_memory(
    server: Server, inputs: Any, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        server.predictions.Predict(predict_request(inputs))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "rank" in request.node.callspec.id or "is larger than" in raised.value.details()
    is_well(server)


def test_a_context_is_not_copied_without_end() -> None:
    assert with_context(b"c", [b"a", b""]) == [b"ca", b"c"]
    request = classification_pb2.ClassificationRequest()
    listed = request.input.example_list_with_context
    feature = listed.context.features.feature["text"]
    feature.bytes_list.value.append(b"0" * 2**20)
    listed.examples.extend([tf.train.Example()] * 65)
    with pytest.raises(ServingError, match=f"more than {MAX_BYTES} bytes"):
        inference.examples(request.input)
    body = {"context": {"text": "0" * 2**20}, "examples": [{}] * 65}
    with pytest.raises(ServingError, match="send fewer examples"):
        parse_examples(json.dumps(body).encode())


def test_bytes_that_are_no_message(server: Server) -> None:
    method = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for sent in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f"):
        with pytest.raises(grpc.RpcError) as raised:
            method(sent)
        assert raised.value.code() == grpc.StatusCode.INTERNAL  # as gRPC of C++ answers
    assert "DecodeError" not in server.log.read_text()
    is_well(server)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_messages_beyond_the_limit(server: Server, compression: grpc.Compression) -> None:
    """A compressed one counts by what it holds."""
    large = predict_request({"x": np.zeros(20 * 2**20, np.float32)})
    with pytest.raises(grpc.RpcError) as raised:
        server.predictions.Predict(large, compression=compression)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    is_well(server)


@FUZZ
@given(data=st.data())
def test_broken_examples(recommender: Server, data: st.DataObject) -> None:
    example = tf.train.Example()
    features = example.features.feature
    features["at"].int64_list.value.append(5)
    features["user"].bytes_list.value.append(b"u")
    features["liked"].bytes_list.value.extend([b"a", b"b"])
    features["liked_price"].float_list.value.extend([1.0, 2.0])
    good = example.SerializeToString(deterministic=True)
    at = data.draw(st.integers(0, len(good)))
    until = data.draw(st.integers(at, min(at + 4, len(good))))
    broken = good[:at] + data.draw(st.binary(max_size=12)) + good[until:]
    request = predict_request({"examples": np.array([broken, good], object)})
    try:
        recommender.predictions.Predict(request, timeout=20)
    except grpc.RpcError as error:
        assert error.code() in CODES, (error.code(), error.details())
    reply = recommender.predictions.Predict(
        predict_request({"examples": np.array([good], object)}), timeout=20
    )
    assert tf.make_ndarray(reply.outputs["about"]).tolist() == [b"u:a,b"]


def test_nan_in_and_out(server: Server) -> None:
    body = b'{"inputs": [NaN, Infinity, 1.0]}'
    status, reply = server.call("POST", "/v1/models/model:predict", body)
    assert status == 200
    assert np.array_equal(reply["outputs"], [np.nan, np.inf, 2.5], equal_nan=True)
    request: predict_pb2.PredictRequest = predict_request({"x": np.array([np.nan], np.float32)})
    values = server.predictions.Predict(request).outputs["y"].float_val
    assert np.isnan(values).tolist() == [True]
