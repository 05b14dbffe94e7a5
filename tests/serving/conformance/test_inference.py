"""Classify, Regress and MultiInference, over both APIs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

from tests.serving.conformance.test_grpc import Status
from tests.serving.conformance.test_grpc import error_of as rpc_error
from tests.serving.conformance.test_rest import error_of as rest_error
from tests.serving.process import Address

MODEL = "half_plus_two"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
NO_EXAMPLES = "Input is empty."


def example(**features: float) -> tf.train.Example:
    lists = {
        name: tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=lists))


def given(*examples: tf.train.Example, context: Any = None) -> input_pb2.Input:
    if context is None:
        return input_pb2.Input(example_list={"examples": examples})
    listed = {"examples": examples, "context": context}
    return input_pb2.Input(example_list_with_context=listed)


def request(kind: Any, signature: str, examples: input_pb2.Input, **spec: Any) -> Any:
    named = {"name": MODEL, "signature_name": signature, **spec}
    return kind(model_spec=named, input=examples)


def classify(server: Address, signature: str, examples: input_pb2.Input) -> Any:
    asked = request(classification_pb2.ClassificationRequest, signature, examples)
    return server.predictions.Classify(asked)


def regress(server: Address, signature: str, examples: input_pb2.Input) -> Any:
    asked = request(regression_pb2.RegressionRequest, signature, examples)
    return server.predictions.Regress(asked)


def rest(server: Address, verb: str, body: Any, version: str = "") -> tuple[int, Any]:
    return server.call("POST", f"/v1/models/{MODEL}{version}:{verb}", body)


def test_classify(server: Address) -> None:
    reply = classify(server, "classify_x_to_y", given(example(x=2), example(x=4)))
    rows = [[(c.label, c.score) for c in row.classes] for row in reply.result.classifications]
    assert rows == [[("", 3.0)], [("", 4.0)]]
    spec = reply.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (MODEL, "classify_x_to_y", 123)


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("classify_labels", [("of 2.0", 3.0), ("of 2.0", 4.0)]),
        ("classify_only_labels", [("of 2.0", 0.0)]),
    ],
)
def test_classes(server: Address, signature: str, expected: list[tuple[str, float]]) -> None:
    (row,) = classify(server, signature, given(example(x=2))).result.classifications
    assert [(c.label, c.score) for c in row.classes] == expected
    body = {"signature_name": signature, "examples": [{"x": 2.0}]}
    assert rest(server, "classify", body) == (200, {"results": [[list(c) for c in expected]]})


@pytest.mark.parametrize("signature", ["regress_x_to_y", "regress_flat"])
def test_regress(server: Address, signature: str) -> None:
    reply = regress(server, signature, given(example(x=2), example(x=4)))
    assert [r.value for r in reply.result.regressions] == [3.0, 4.0]
    assert (reply.model_spec.signature_name, reply.model_spec.version.value) == (signature, 123)
    body = {"signature_name": signature, "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert rest(server, "regress", body) == (200, {"results": [3.0, 4.0]})
    assert rest(server, "regress", body, "/versions/123") == (200, {"results": [3.0, 4.0]})


def test_context_is_of_all_examples(server: Address) -> None:
    shared = given(example(x2=2), example(x2=4), context=example(x=6))
    assert [r.value for r in regress(server, "regress_x_to_y", shared).result.regressions] == [5, 5]
    body = {
        "signature_name": "regress_x2_to_y3",
        "context": {"x": 6.0},
        "examples": [{"x2": 2.0}, {"x2": 4.0}],
    }
    assert rest(server, "regress", body) == (200, {"results": [4.0, 5.0]})
    own = given(example(x=2), context=example(x=6))  # what an example says itself stands
    assert [r.value for r in regress(server, "regress_x_to_y", own).result.regressions] == [3]


def test_numbers_that_json_lacks(server: Address) -> None:
    body = b'{"signature_name": "regress_x_to_y", "examples": [{"x": Infinity}, {"x": NaN}]}'
    status, reply = rest(server, "regress", body)
    assert status == 200
    assert str(reply) == "{'results': [inf, nan]}"


def multi(*tasks: tuple[str, str], name: str = MODEL) -> Any:
    asked = inference_pb2.MultiInferenceRequest(input=given(example(x=2)))
    for signature, method in tasks:
        spec = {"name": name, "signature_name": signature}
        asked.tasks.add(model_spec=spec, method_name=method)
    return asked


def test_multi_inference(server: Address) -> None:
    asked = multi(("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY))
    first, second = server.predictions.MultiInference(asked).results
    assert [r.value for r in first.regression_result.regressions] == [3.0]
    assert second.classification_result.classifications[0].classes[0].score == 3.0
    for result, name in ((first, "regress_x_to_y"), (second, "classify_x_to_y")):
        spec = result.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == (MODEL, name, 123)


@pytest.mark.parametrize(
    ("asked", "code", "error"),
    [
        (
            multi(("regress_x_to_y", REGRESS), ("regress_x_to_y", REGRESS)),
            Status.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            multi(("no", REGRESS)),
            Status.INVALID_ARGUMENT,
            "Requested signature not found in model graph: no",
        ),
        (
            multi(("regress_x_to_y", "tensorflow/serving/predict")),
            Status.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            multi(("regress_x_to_y", CLASSIFY)),
            Status.FAILED_PRECONDITION,
            "Expected classification signature outputs to contain at least one of",
        ),
        (multi(("regress_x_to_y", REGRESS), name="no"), Status.NOT_FOUND, "Servable not found"),
    ],
)
def test_multi_inference_errors(server: Address, asked: Any, code: Any, error: str) -> None:
    assert error in rpc_error(code, server.predictions.MultiInference, asked)


def test_multi_inference_of_two_models(server: Address) -> None:
    asked = multi(("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY))
    asked.tasks[1].model_spec.name = "versions"
    error = rpc_error(Status.INVALID_ARGUMENT, server.predictions.MultiInference, asked)
    assert error == "All ModelSpecs in a MultiInferenceRequest must access the same model name."


@pytest.mark.parametrize("method", ["Classify", "Regress"])
@pytest.mark.parametrize("examples", [given(), input_pb2.Input(), given(context=example(x=1))])
def test_no_examples(server: Address, method: str, examples: input_pb2.Input) -> None:
    kind: Any = classification_pb2.ClassificationRequest
    signature = "classify_x_to_y"
    if method == "Regress":
        kind, signature = regression_pb2.RegressionRequest, "regress_x_to_y"
    asked = request(kind, signature, examples)
    call = getattr(server.predictions, method)
    assert rpc_error(Status.INVALID_ARGUMENT, call, asked) == NO_EXAMPLES


def test_signatures_of_tensorflow_2(server: Address) -> None:
    """They all say that they are Predict's, and are taken by their inputs and outputs."""
    (result,) = classify(server, "classify_as_predict", given(example(x=2))).result.classifications
    assert [one.score for one in result.classes] == [3.0]
    shared = given(example(x=2), example(x=4))
    reply = regress(server, "regress_as_predict", shared)
    assert [r.value for r in reply.result.regressions] == [3.0, 4.0]


@pytest.mark.parametrize(
    ("verb", "signature", "code", "error"),
    [
        ("classify", "", 9, "No classification inputs found in SignatureDef"),
        ("regress", "", 9, "No regression inputs found in SignatureDef"),
        ("classify", "no", 3, "No signature was found with the name: no"),
        ("regress", "no", 3, "No signature was found with the name: no"),
        ("classify", "classify_flat", 3, "Expected Tensor shape: [batch_size num_classes] but got"),
        ("classify", "classify_nothing", 9, "outputs to contain at least one of"),
        ("regress", "regress_wide", 3, "Expected output Tensor shape to be either [batch_size] or"),
    ],
)
def test_signatures_that_do_not_fit(
    server: Address, verb: str, signature: str, code: int, error: str
) -> None:
    kind: Any = classification_pb2.ClassificationRequest
    if verb == "regress":
        kind = regression_pb2.RegressionRequest
    status = {3: Status.INVALID_ARGUMENT, 9: Status.FAILED_PRECONDITION}[code]
    call = getattr(server.predictions, verb.capitalize())
    assert error in rpc_error(status, call, request(kind, signature, given(example(x=2))))
    body = {"signature_name": signature, "examples": [{"x": 2.0}]}
    assert error in rest_error(rest(server, verb, body), 400)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        ([1], "Is not object"),
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"a": 1}}]}, "unexpected JSON type: Object"),
        ({"examples": [{"x": [1.5, 2]}]}, "Unexpected element type in feature: x expecting type"),
        ({"examples": [{"x": ["a", 2]}]}, "Unexpected element type in feature: x expecting type"),
        ({"examples": [{"x": 2**63}]}, "has uint64 element. Only int64 is supported"),
        ({"examples": [{}], "context": 1}, "Example must be JSON object"),
        ({"examples": [{}], "signature_name": 1}, "'signature_name' key must be a string value"),
    ],
)
@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_bad_bodies(server: Address, verb: str, body: Any, error: str) -> None:
    assert error in rest_error(rest(server, verb, body), 400)


def test_an_example_of_another_type(server: Address) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2}]}
    assert rest_error(rest(server, "regress", body), 400)  # an integer is no float here
    body["examples"] = [{"y": 2.0}]
    assert rest_error(rest(server, "regress", body), 400)
    broken = request(regression_pb2.RegressionRequest, "regress_x_to_y", given(example(z=1)))
    with pytest.raises(grpc.RpcError) as raised:
        server.predictions.Regress(broken)
    assert raised.value.code() == Status.INVALID_ARGUMENT


def test_models_and_versions_that_are_not_there(server: Address) -> None:
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}]}
    error = rest_error(rest(server, "regress", body, "/versions/9"), 404)
    assert error == f"Servable not found for request: Specific({MODEL}, 9)"
    asked = request(
        regression_pb2.RegressionRequest, "regress_x_to_y", given(example(x=2)), name="no"
    )
    error = rpc_error(Status.NOT_FOUND, server.predictions.Regress, asked)
    assert error == "Servable not found for request: Latest(no)"
