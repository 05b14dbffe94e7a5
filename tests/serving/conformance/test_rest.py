"""REST against a server in a process of its own."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving.process import Address

MODEL = "/v1/models/model"


def error_of(reply: tuple[int, Any], status: int) -> str:
    """The message of an error, which is a JSON object with that one key."""
    assert reply[0] == status
    assert list(reply[1]) == ["error"]
    assert "Traceback" not in reply[1]["error"]
    return str(reply[1]["error"])


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/7", "/V1/MODELS/model/VERSIONS/07"])
def test_status(server: Address, path: str) -> None:
    version = {
        "version": "7",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert server.call("GET", path) == (200, {"model_version_status": [version]})


def test_the_case_of_paths(server: Address) -> None:
    """Only these parts heed it: another METADATA is the status, another PREDICT malformed."""
    assert server.call("GET", f"{MODEL}/METADATA") == server.call("GET", MODEL)


@pytest.mark.parametrize("path", [f"{MODEL}/metadata", f"{MODEL}/versions/7/metadata"])
def test_metadata(server: Address, path: str) -> None:
    status, body = server.call("GET", path)
    assert status == 200
    assert body["model_spec"] == {"name": "model", "signature_name": "", "version": "7"}
    definitions = body["metadata"]["signature_def"]["signature_def"]
    assert definitions.keys() >= {"serving_default", "two", "wait"}
    half = definitions["serving_default"]
    assert half["method_name"] == "tensorflow/serving/predict"
    assert half["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert half["inputs"]["x"]["tensor_shape"]["dim"][0]["size"] == "-1"
    assert definitions["two"]["outputs"].keys() == {"total", "greeting"}


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/7", "/v1/models/%6Dodel"])
def test_predict_rows_and_columns(server: Address, path: str) -> None:
    assert server.predict({"instances": [1, 5.0]}, path) == (200, {"predictions": [2.5, 4.5]})
    named = {"signature_name": "serving_default", "instances": [{"x": 1}]}
    assert server.predict(named, path) == (200, {"predictions": [2.5]})
    assert server.predict({"inputs": [1, 5]}, path) == (200, {"outputs": [2.5, 4.5]})
    assert server.predict({"inputs": {"x": []}}, path) == (200, {"outputs": []})


def test_numbers_that_json_lacks(server: Address) -> None:
    status, body = server.predict(b'{"instances": [NaN, -Infinity]}')
    assert status == 200
    assert str(body) == "{'predictions': [nan, -inf]}"
    status, body = server.predict(b'{"instances": [Inf, -Inf, -NaN]}')
    assert (status, str(body)) == (200, "{'predictions': [inf, -inf, nan]}")


def test_digits_of_floats(server: Address) -> None:
    """Six where they are enough, or nine."""
    connection = http.client.HTTPConnection(server.rest)
    connection.request("POST", f"{MODEL}:predict", b'{"inputs": [17999996.0, 4, 0.2, 0.6666667]}')
    text = connection.getresponse().read().decode()
    connection.close()
    assert re.findall(r"[-+.e\d]+", text.partition("[")[2]) == ["9e+06", "4.0", "2.1", "2.33333325"]


def test_two_inputs_and_two_outputs(server: Address) -> None:
    rows = [{"pair": [1, 2], "name": "a"}, {"pair": [3, 4.5], "name": {"b64": "Yg=="}}]
    assert server.predict({"signature_name": "two", "instances": rows}) == (
        200,
        {
            "predictions": [
                {"total": 3.0, "greeting": "hello a"},
                {"total": 7.5, "greeting": "hello b"},
            ]
        },
    )
    columns = {"pair": [[1, 2], [3, 4.5]], "name": ["a", "b"]}
    assert server.predict({"signature_name": "two", "inputs": columns}) == (
        200,
        {"outputs": {"total": [3.0, 7.5], "greeting": ["hello a", "hello b"]}},
    )


def test_scalar_strings_and_bytes(server: Address) -> None:
    body = {"signature_name": "binary", "inputs": {"name": "añb"}}
    outputs = {"copy": "añb", "copy_bytes": {"b64": "YcOxYg=="}}
    assert server.predict(body) == (200, {"outputs": outputs})
    body["inputs"] = {"b64": "/w=="}
    assert "copy is not UTF-8" in error_of(server.predict(body), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{MODEL}:predict"),
        ("PUT", f"{MODEL}:predict"),
        ("DELETE", MODEL),
        ("POST", MODEL),
        ("POST", f"{MODEL}/metadata"),
        ("POST", f"{MODEL}/versions/7"),
        ("POST", f"{MODEL}:explain"),
        ("POST", f"{MODEL}:PREDICT"),
        ("POST", f"{MODEL}/version/7:predict"),
        ("POST", f"{MODEL}/label/stable:predict"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/debug/model"),
        ("POST", f"{MODEL}/versions/x:predict"),
        ("POST", f"{MODEL}/versions/-1:predict"),
        ("POST", f"{MODEL}/versions/7/labels/stable:predict"),
        ("GET", f"{MODEL}/versions/7/labels/stable"),
        ("GET", f"{MODEL}/versions"),
        ("GET", f"{MODEL}/"),
        ("GET", "/v1/other"),
        ("GET", "/v1/"),
    ],
)
def test_malformed_requests(server: Address, method: str, path: str) -> None:
    reply = server.call(method, path, {"instances": [1]} if method == "POST" else None)
    assert error_of(reply, 400) == f"Malformed request: {method} {path}"


@pytest.mark.embedded  # its own words, or limits
@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/model", "/models/model:predict", "/%C3"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_outside_of_the_api(server: Address, method: str, path: str) -> None:
    assert error_of(server.call(method, path), 404)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/versions/1"])
def test_missing_model_name(server: Address, path: str) -> None:
    error = error_of(server.call("GET", path), 400)
    assert error == "Missing model name in request."


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v1/models/other", "Latest(other)"),
        ("/v1/models/other/versions/1", "Specific(other, 1)"),
        (f"{MODEL}/versions/8", "Specific(model, 8)"),
        (f"{MODEL}/versions/0", "Specific(model, 0)"),
    ],
)
def test_unknown_models_and_versions(server: Address, path: str, wanted: str) -> None:
    error = f"Servable not found for request: {wanted}"
    assert error_of(server.predict({"instances": [1]}, path), 404) == error
    assert error_of(server.call("GET", f"{path}/metadata"), 404) == error


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models/other", "Could not find any versions of model other"),
        (f"{MODEL}/versions/8", "Could not find version 8 of model model"),
        (f"{MODEL}/versions/0", "Could not find version 0 of model model"),
    ],
)
def test_status_of_the_unknown(server: Address, path: str, error: str) -> None:
    assert error_of(server.call("GET", path), 404) == error


@pytest.mark.parametrize("version", [str(2**63), "9" * 5_000])
def test_version_overflow(server: Address, version: str) -> None:
    path = f"{MODEL}/versions/{version}"
    error = f"Failed to convert version: {version} to numeric."
    assert error_of(server.call("GET", path), 400) == error
    assert error_of(server.call("GET", f"{path}/metadata"), 400) == error
    assert error_of(server.predict({"instances": [1]}, path), 400) == error


def test_defaults_are_of_grpc_alone(server: Address) -> None:
    """JSON names all inputs, whatever a signature has for those that are missing."""
    path, named = "/v1/models/half_plus_two", {"signature_name": "defaults"}
    rows = [{"x": [2], "more": [1]}]
    assert server.predict({**named, "instances": rows}, path) == (200, {"predictions": [[4.0]]})
    error = error_of(server.predict({**named, "instances": [{"x": [2]}]}, path), 400)
    assert "keys must be equal to: more,x" in error
    error = error_of(server.predict({**named, "inputs": {"x": [[2]]}}, path), 400)
    assert error == "Missing named input: more in 'inputs' object."


def test_unknown_signature(server: Address) -> None:
    reply = server.predict({"signature_name": "no", "instances": [1]})
    assert error_of(reply, 400) == 'Serving signature name: "no" not found in signature def'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error"),
        (b"\xff\xfe\x00", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        ([1], "Is not object"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"inputs": [1], "instances": [1]}, "Not formatted correctly"),
        ({"instances": [[1], [1, 2]]}, "Expecting tensor size"),
        ({"instances": [None]}, "not of expected type: float"),
        ({"signature_name": "constant", "inputs": {}}, "Failed to get input map for signature"),
    ],
)
def test_bad_bodies(server: Address, body: Any, error: str) -> None:
    assert error in error_of(server.predict(body), 400)


@pytest.mark.embedded  # its own words, or limits
@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1], [2]]},
        {"inputs": 1},
        {"signature_name": "two", "inputs": {"pair": [[1, 2, 3]], "name": ["a"]}},
        {"signature_name": "two", "inputs": {"pair": [1, 2], "name": ["a"]}},
        {"signature_name": "binary", "inputs": ["a"]},
    ],
)
def test_shapes_that_do_not_fit_the_signature(server: Address, body: Any) -> None:
    assert "to have shape" in error_of(server.predict(body), 400)


@pytest.mark.embedded  # its own words, or limits
def test_what_the_model_refuses(server: Address) -> None:
    body = {"signature_name": "below_ten", "instances": [1, 20]}
    error = error_of(server.predict(body), 400)
    assert error.startswith("assertion failed: [x is not below ten]")
    body["instances"] = [1]
    assert server.predict(body) == (200, {"predictions": [1.0]})


@pytest.mark.embedded  # its own words, or limits
def test_other_errors_of_the_model(server: Address) -> None:
    reply = server.predict({"signature_name": "read", "inputs": "/no/such/file"})
    assert "No such file or directory" in error_of(reply, 404)
    reply = server.predict({"signature_name": "opaque", "inputs": [1]})
    assert "variant" in error_of(reply, 400)


@pytest.mark.embedded  # its own words, or limits
def test_body_too_large(server: Address) -> None:
    reply = server.predict(b'{"instances": [' + b" " * 64 * 2**20 + b"1]}")
    assert "larger than" in error_of(reply, 413)
    almost = b'{"instances": [' + b" " * 60 * 2**20 + b"1]}"
    assert server.predict(almost) == (200, {"predictions": [2.5]})


@pytest.mark.embedded  # its own words, or limits
def test_compressed_bodies(server: Address) -> None:
    path, encoding = f"{MODEL}:predict", {"Content-Encoding": "gzip"}
    body = gzip.compress(json.dumps({"instances": [1]}).encode())
    assert server.call("POST", path, body, encoding) == (200, {"predictions": [2.5]})
    assert error_of(server.call("POST", path, b"not gzip", encoding), 400)


@pytest.mark.embedded  # its own words, or limits
def test_bytes_that_are_not_http(server: Address) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port), 10) as connection:
        connection.sendall(b"\0\1\2\r\n\r\n")
        reply = connection.recv(4096)
    assert reply.startswith(b"HTTP/1.0 400") or reply.startswith(b"HTTP/1.1 400")
    assert b"Traceback" not in reply
    assert server.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


@pytest.mark.embedded  # its own words, or limits
@pytest.mark.parametrize("host", ["127.0.0.2", "::1"])
def test_only_loopback(server: Address, host: str) -> None:
    """A server on all interfaces would answer at any of these."""
    for port in (server.port, server.rest_port):
        with pytest.raises(OSError):
            socket.create_connection((host, port), 5)


def test_many_clients_get_their_own_answers(server: Address) -> None:
    def ask(client: int) -> list[tuple[int, Any]]:
        values = range(100 * client, 100 * client + 25)
        return [server.predict({"instances": [value]}) for value in values]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    for client, answer in enumerate(answers):
        expected = [100 * client / 2 + number / 2 + 2 for number in range(25)]
        assert answer == [(200, {"predictions": [value]}) for value in expected]
