"""Version policies and labels, and JSON of every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from serving.client import Client, InvalidArgumentError
from tests.serving.conformance.models import DTYPES
from tests.serving.conformance.test_grpc import Status, floats
from tests.serving.conformance.test_grpc import error_of as rpc_error
from tests.serving.conformance.test_rest import error_of as rest_error
from tests.serving.process import Address
from tests.serving.saved_models import predict_request


def served(server: Address, model: str) -> list[int]:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model})
    statuses = server.models.GetModelStatus(request).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    return [status.version for status in statuses if status.state == available]


@pytest.mark.parametrize(
    ("model", "versions"), [("versions", [3, 2, 1]), ("some", [3, 1]), ("latest", [1])]
)
def test_policies(server: Address, model: str, versions: list[int]) -> None:
    assert served(server, model) == versions
    for version in versions:
        path = f"/v1/models/{model}/versions/{version}"
        assert server.predict({"instances": [0]}, path) == (200, {"predictions": [version]})
    latest = server.predict({"instances": [0]}, f"/v1/models/{model}")
    assert latest == (200, {"predictions": [max(versions)]})


def test_a_version_that_the_policy_leaves_out(server: Address) -> None:
    error = rest_error(server.predict({"instances": [0]}, "/v1/models/some/versions/2"), 404)
    assert error == "Servable not found for request: Specific(some, 2)"


@pytest.mark.parametrize(("label", "version"), [("stable", 2), ("canary", 3)])
def test_labels(server: Address, label: str, version: int) -> None:
    path = f"/v1/models/versions/labels/{label}"
    assert server.predict({"instances": [0]}, path) == (200, {"predictions": [version]})
    # The status is of all versions: TF Serving does not look at labels there.
    assert server.call("GET", path) == server.call("GET", "/v1/models/versions")
    _, metadata = server.call("GET", f"{path}/metadata")
    assert metadata["model_spec"]["version"] == str(version)
    request = predict_request({"x": floats(0)}, model="versions")
    request.model_spec.version_label = label
    reply = server.predictions.Predict(request)
    assert reply.outputs["y"].float_val[0] == version
    assert reply.model_spec.version.value == version


@pytest.mark.parametrize("model", ["versions", "some"])
def test_unknown_labels(server: Address, model: str) -> None:
    error = "Unrecognized servable version label: no"
    path = f"/v1/models/{model}/labels/no"
    assert rest_error(server.predict({"instances": [0]}, path), 400) == error
    assert rest_error(server.call("GET", f"{path}/metadata"), 400) == error
    assert server.call("GET", path)[0] == 200
    request = predict_request({"x": floats(0)}, model=model)
    request.model_spec.version_label = "no"
    assert rpc_error(Status.INVALID_ARGUMENT, server.predictions.Predict, request) == error


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_labels_by_the_client(server: Address, api: Any) -> None:
    address = server.rpc if api == "grpc" else server.rest
    for label, version in (("stable", 2), ("canary", 3)):
        with Client(address, model="versions", label=label, api=api) as client:
            assert client.metadata().version == version
            assert client.predict({"x": 0.0}, signature="serving_default") == {"y": version}
    with (
        Client(address, model="versions", label="no", api=api) as client,
        pytest.raises(InvalidArgumentError, match="Unrecognized servable version label: no"),
    ):
        client.predict({"x": 0.0}, signature="serving_default")


def values(dtype: Any) -> list[Any]:
    if dtype.name == "string":
        return ["", "añ"]
    if dtype.name == "bool":
        return [True, False]
    if dtype.is_floating:
        return [0.5, -1.25]
    return [dtype.min, dtype.max]


@pytest.mark.parametrize("dtype", DTYPES, ids=[dtype.name for dtype in DTYPES])
@pytest.mark.parametrize("shape", [(), (2,), (1, 2), (2, 1, 1), (0,)])
def test_json_of_dtypes_and_shapes(server: Address, dtype: Any, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    array = np.array((values(dtype) * count)[:count], object).reshape(shape).tolist()
    body = {"signature_name": dtype.name, "inputs": array}
    assert server.predict(body, "/v1/models/types") == (200, {"outputs": array})


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int32", 1.0),
        ("int32", 2**31),
        ("int64", "1"),
        ("float32", "1"),
        ("float32", True),
        ("float32", None),
        ("float32", 2**24),
        ("float32", 1e39),
        ("bool", 1),
        ("string", 1),
        ("string", {"b64": "?"}),
        ("string", {"b64": "YQ==", "more": 1}),
    ],
)
def test_json_of_other_types_is_refused(server: Address, dtype: str, value: Any) -> None:
    body = {"signature_name": dtype, "inputs": [value]}
    assert rest_error(server.predict(body, "/v1/models/types"), 400)


@pytest.mark.embedded  # TF Serving takes what fits into 32 bits, and drops the higher ones
@pytest.mark.parametrize(("dtype", "value"), [("uint8", -1), ("int8", 128), ("int16", 2**15)])
def test_json_of_small_integers_that_do_not_fit(server: Address, dtype: str, value: int) -> None:
    body = {"signature_name": dtype, "inputs": [value]}
    assert "not of expected type" in rest_error(server.predict(body, "/v1/models/types"), 400)


def test_integers_are_floats(server: Address) -> None:
    for dtype in ("float32", "float64"):
        body = {"signature_name": dtype, "inputs": [1, -2]}
        assert server.predict(body, "/v1/models/types") == (200, {"outputs": [1.0, -2.0]})
