"""gRPC against a server in a process of its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from tests.serving.process import Address
from tests.serving.saved_models import predict_request

Status = grpc.StatusCode


def floats(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def strings(*values: bytes) -> np.ndarray[Any, Any]:
    return np.array(values, object)


def error_of(code: grpc.StatusCode, method: Any, request: Any, **options: Any) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        method(request, **options)
    assert raised.value.code() == code, raised.value.details()
    assert "Traceback" not in raised.value.details()
    return str(raised.value.details())


def predict(server: Address, request: predict_pb2.PredictRequest) -> dict[str, Any]:
    outputs = server.predictions.Predict(request).outputs
    return {name: tf.make_ndarray(value).tolist() for name, value in outputs.items()}


@pytest.mark.parametrize("version", [None, 7])
@pytest.mark.parametrize("signature", ["", "serving_default"])
def test_predict(server: Address, version: int | None, signature: str) -> None:
    request = predict_request({"x": floats(1, 5)}, signature, version=version)
    reply = server.predictions.Predict(request)
    assert tf.make_ndarray(reply.outputs["y"]).tolist() == [2.5, 4.5]
    assert reply.model_spec.name == "model"
    assert reply.model_spec.version.value == 7
    assert reply.model_spec.signature_name == "serving_default"


def test_two_inputs_and_two_outputs(server: Address) -> None:
    inputs = {"pair": floats([1, 2], [3, 4.5]), "name": strings(b"a", b"\xff")}
    expected = {"total": [3.0, 7.5], "greeting": [b"hello a", b"hello \xff"]}
    assert predict(server, predict_request(inputs, "two")) == expected


def test_scalars_and_empty_batches(server: Address) -> None:
    request = predict_request({"name": np.array(b"a\0", object)}, "binary")
    assert predict(server, request) == {"copy": b"a\0", "copy_bytes": b"a\0"}
    assert predict(server, predict_request({}, "constant")) == {"y": 2.0}
    assert predict(server, predict_request({"x": floats()})) == {"y": []}


def test_values_are_in_the_fields_of_their_types(server: Address) -> None:
    """As TF Serving answers; not every client reads `tensor_content`."""
    outputs = server.predictions.Predict(predict_request({"x": floats(1, 5)})).outputs
    assert list(outputs["y"].float_val) == [2.5, 4.5]
    assert not outputs["y"].tensor_content
    inputs = {"pair": floats([1, 2]), "name": strings(b"a")}
    outputs = server.predictions.Predict(predict_request(inputs, "two")).outputs
    assert list(outputs["greeting"].string_val) == [b"hello a"]


def test_output_filter(server: Address) -> None:
    request = predict_request({"pair": floats([1, 2]), "name": strings(b"a")}, "two")
    request.output_filter.append("greeting")
    assert predict(server, request) == {"greeting": [b"hello a"]}
    request.output_filter.append("total")
    assert predict(server, request) == {"greeting": [b"hello a"], "total": [3.0]}
    request.output_filter.append("total")
    error = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert "duplicate output tensor alias: total" in error
    request.output_filter[:] = ["other"]
    error = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert "output tensor alias not found in signature: other" in error


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({}, "0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}."),
        (
            {"x": 1.0, "z": 1.0, "a": 1.0},
            "3!=1 len({a,x,z}) != len({x}). Sent extra: {a,z}. Missing but required: {}.",
        ),
    ],
)
def test_inputs_that_do_not_match(server: Address, inputs: Any, error: str) -> None:
    details = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, predict_request(inputs))
    assert details == f"input size does not match signature: {error}"


def test_an_input_of_another_name(server: Address) -> None:
    request = predict_request({"z": floats(1)})
    error = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert "x" in error
    assert "z" in error


@pytest.mark.embedded  # its own words, or limits
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([1.0]), "Expects arg[x] to be float32 but float64 is provided"),
        (np.array([1]), "Expects arg[x] to be float32 but int64 is provided"),
        (strings(b"a"), "Expects arg[x] to be float32"),
        (floats(1)[0], "Expects arg[x] to have shape (None,) but () is provided"),
        (floats([1]), "Expects arg[x] to have shape (None,) but (1, 1) is provided"),
    ],
)
def test_dtypes_and_shapes_that_do_not_fit(server: Address, value: Any, error: str) -> None:
    request = predict_request({"x": value})
    assert error in error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)


@pytest.mark.embedded  # its own words, or limits
def test_strings_are_needed(server: Address) -> None:
    request = predict_request({"pair": floats([1, 2]), "name": floats(1)}, "two")
    error = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert error == "Expects arg[name] to be string but float32 is provided"


def broken(**changes: Any) -> tensor_pb2.TensorProto:
    result = tf.make_tensor_proto(floats(1, 2))
    size = changes.pop("size", 2)
    for name, value in changes.items():
        setattr(result, name, value)
    result.tensor_shape.dim[0].size = size
    return result


@pytest.mark.embedded  # its own words, or limits
@pytest.mark.parametrize(
    "value",
    [
        broken(tensor_content=b"123"),
        broken(tensor_content=b"1234"),
        broken(dtype=99),
        broken(dtype=0),
        broken(size=-1),
        broken(size=3),
        tf.make_tensor_proto(1.0, tf.float32, [2**20, 2**20]),
        tensor_pb2.TensorProto(),
        tensor_pb2.TensorProto(dtype=1, tensor_shape={"unknown_rank": True}, float_val=[1]),
    ],
    ids=range(9),
)
def test_broken_tensors(server: Address, value: tensor_pb2.TensorProto) -> None:
    request = predict_request({"x": value})
    assert "x" in error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)


def test_repeated_values_are_filled_up(server: Address) -> None:
    value = tf.make_tensor_proto(1.0, tf.float32, [3])
    assert len(value.float_val) == 1
    assert predict(server, predict_request({"x": value})) == {"y": [2.5, 2.5, 2.5]}


@pytest.mark.parametrize(
    ("options", "code", "error"),
    [
        ({"signature": "no"}, Status.FAILED_PRECONDITION, 'Serving signature key "no" not found.'),
        ({"model": "other"}, Status.NOT_FOUND, "Servable not found for request: Latest(other)"),
        ({"version": 8}, Status.NOT_FOUND, "Servable not found for request: Specific(model, 8)"),
        ({"version": 0}, Status.NOT_FOUND, "Servable not found for request: Specific(model, 0)"),
        ({"version": -1}, Status.NOT_FOUND, "Servable not found for request: Specific(model, -1)"),
        ({"model": ""}, Status.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_what_is_not_there(server: Address, options: Any, code: Any, error: str) -> None:
    request = predict_request({"x": floats(1)}, **options)
    assert error_of(code, server.predictions.Predict, request) == error


@pytest.mark.embedded  # its own words, or limits
def test_errors_of_the_model(server: Address) -> None:
    request = predict_request({"x": floats(1, 20)}, "below_ten")
    error = error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert error.startswith("assertion failed: [x is not below ten]")
    request = predict_request({"name": np.array(b"/no/such/file", object)}, "read")
    error = error_of(Status.NOT_FOUND, server.predictions.Predict, request)
    assert error == "/no/such/file; No such file or directory"
    request = predict_request({"x": floats(1)}, "opaque")
    assert "variant" in error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)
    assert predict(server, predict_request({"x": floats(1)})) == {"y": [2.5]}


def test_metadata(server: Address) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "model"
    request.metadata_field.append("signature_def")
    reply = server.predictions.GetModelMetadata(request)
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("model", 7)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == tf.float32
    assert set(signatures.signature_def["two"].outputs) == {"total", "greeting"}


@pytest.mark.parametrize(
    ("name", "fields", "code", "error"),
    [
        ("model", [], Status.INVALID_ARGUMENT, "must specify at least one metadata_field"),
        ("model", ["other"], Status.INVALID_ARGUMENT, "is not supported"),
        ("other", ["signature_def"], Status.NOT_FOUND, "Servable not found for request"),
        ("", ["signature_def"], Status.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_metadata_errors(server: Address, name: str, fields: Any, code: Any, error: str) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = name
    assert error in error_of(code, server.predictions.GetModelMetadata, request)


def status_request(name: str, version: int | None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


@pytest.mark.parametrize("version", [None, 7])
def test_status(server: Address, version: int | None) -> None:
    (status,) = server.models.GetModelStatus(status_request("model", version)).model_version_status
    assert (status.version, status.status.error_code) == (7, 0)
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


@pytest.mark.parametrize(
    ("name", "version", "code", "error"),
    [
        ("other", None, Status.NOT_FOUND, "Could not find any versions of model other"),
        ("model", 8, Status.NOT_FOUND, "Could not find version 8 of model model"),
        ("model", 0, Status.NOT_FOUND, "Could not find version 0 of model model"),
        ("", None, Status.NOT_FOUND, "Could not find any versions of model "),
    ],
)
def test_status_errors(server: Address, name: str, version: Any, code: Any, error: str) -> None:
    assert error_of(code, server.models.GetModelStatus, status_request(name, version)) == error


@pytest.mark.parametrize(
    ("stub", "method", "request_type"),
    [
        ("predictions", "Predict", predict_pb2.PredictRequest),
        ("predictions", "Classify", classification_pb2.ClassificationRequest),
        ("predictions", "Regress", regression_pb2.RegressionRequest),
        ("predictions", "GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest),
        ("models", "GetModelStatus", get_model_status_pb2.GetModelStatusRequest),
    ],
)
def test_requests_that_name_no_model(
    server: Address, stub: str, method: str, request_type: Any
) -> None:
    call = getattr(getattr(server, stub), method)
    assert error_of(Status.INVALID_ARGUMENT, call, request_type()) == "Missing ModelSpec"


def test_a_signature_that_is_not_for_requests(server: Address) -> None:
    """TensorFlow's own, which is in the metadata too."""
    request = predict_request({}, "__saved_model_init_op")
    error_of(Status.INVALID_ARGUMENT, server.predictions.Predict, request)


def test_predict_by_signatures_of_examples(server: Address) -> None:
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(2)
    inputs = {"inputs": strings(example.SerializeToString())}
    for signature, output in (("regress_x_to_y", "outputs"), ("classify_x_to_y", "scores")):
        request = predict_request(inputs, signature, "half_plus_two")
        assert predict(server, request) == {output: [[3.0]]}


def test_methods_that_are_not_there(server: Address) -> None:
    method = server.channel.unary_unary("/tensorflow.serving.SessionService/SessionRun")
    assert error_of(Status.UNIMPLEMENTED, method, b"")


@pytest.mark.embedded  # its own words, or limits
def test_messages_that_are_not_there(server: Address) -> None:
    method = server.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError):
        method(b"\xff\xff")
    large = predict_request({"x": np.zeros(17 * 2**20, np.float32)})
    error_of(Status.RESOURCE_EXHAUSTED, server.predictions.Predict, large)
    assert predict(server, predict_request({"x": floats(1)})) == {"y": [2.5]}


def test_deadline(server: Address) -> None:
    request = predict_request({"seconds": np.array(20.0)}, "spin")
    start = time.monotonic()
    error_of(Status.DEADLINE_EXCEEDED, server.predictions.Predict, request, timeout=0.5)
    assert predict(server, predict_request({"x": floats(1)})) == {"y": [2.5]}
    assert time.monotonic() - start < 15
    short = predict_request({"seconds": np.array(0.0)}, "spin")
    assert predict(server, short) == {"spun": False}


def test_defaults_of_a_signature(server: Address) -> None:
    inputs = {"x": floats([2]), "more": floats([1])}
    assert predict(server, predict_request(inputs, "defaults", "half_plus_two")) == {"y": [[4.0]]}
    del inputs["more"]
    assert predict(server, predict_request(inputs, "defaults", "half_plus_two")) == {"y": [[13.0]]}


def test_many_clients_get_their_own_answers(server: Address) -> None:
    def ask(client: int) -> list[dict[str, Any]]:
        values = (floats(100 * client + number, client) for number in range(25))
        return [predict(server, predict_request({"x": value})) for value in values]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    for client, answer in enumerate(answers):
        expected = [[50 * client + number / 2 + 2, client / 2 + 2] for number in range(25)]
        assert answer == [{"y": value} for value in expected]
