"""What goes wrong inside of the server, which a client sees little of."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from grpc._cython import cygrpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving import inference, rest, rpc
from serving.errors import Code, ServingError
from serving.models import Models, single
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.runner import Runner
from serving.servable import Servable
from tests.serving.saved_models import predict_request


@pytest.fixture(scope="module")
def models(everything: Path) -> Models:
    result = Models()
    result.apply(single("model", everything))
    return result


@pytest.fixture
def requests(models: Models) -> Requests:
    return Requests(models, Runner(Metrics()), Metrics())


@pytest.fixture
def broken(models: Models) -> Requests:
    """Whose runner takes no work, so that a request meets an error that nobody foresaw."""
    runner = Runner(Metrics())
    runner.threads.shutdown()
    return Requests(models, runner, Metrics())


def post(requests: Requests, timeout: float, body: Any) -> tuple[int, Any]:
    """Status and JSON of a REST prediction."""

    async def ask() -> tuple[int, Any]:
        application = rest.application(requests, timeout)
        async with TestClient(TestServer(application)) as client:
            reply = await client.post("/v1/models/model:predict", json=body)
            return reply.status, await reply.json()

    return asyncio.run(ask())


def predict(
    requests: Requests, *several: predict_pb2.PredictRequest
) -> list[tuple[grpc.StatusCode, str]]:
    """Code and details of gRPC predictions, in this order."""

    async def ask() -> list[tuple[grpc.StatusCode, str]]:
        server, _ = rpc.server(requests, 30)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            calls = [stub.Predict(request) for request in several]
            answers = [(await call.code(), await call.details()) for call in calls]
        await server.stop(0)
        return answers

    return asyncio.run(ask())


def test_rest_timeout(requests: Requests, tmp_path: Path) -> None:
    body = {"signature_name": "wait", "inputs": str(tmp_path)}
    try:
        assert post(requests, 0.2, body) == (504, {"error": "Deadline exceeded"})
    finally:
        (tmp_path / "end").touch()
    assert post(requests, 30, body) == (200, {"outputs": True})
    text = requests.metrics.text()
    assert ('status="DEADLINE_EXCEEDED"} 1\n' in text, "CANCELLED" in text) == (True, False)


def test_internal_errors_of_rest(broken: Requests, caplog: pytest.LogCaptureFixture) -> None:
    reply = post(broken, 30, {"instances": [1]})
    assert reply == (500, {"error": "Internal error"})
    assert "cannot schedule new futures" in caplog.text


def test_internal_errors_of_grpc(broken: Requests, caplog: pytest.LogCaptureFixture) -> None:
    request = predict_request({"x": np.zeros(1, np.float32)})
    assert predict(broken, request) == [(grpc.StatusCode.INTERNAL, "Internal error")]
    assert "cannot schedule new futures" in caplog.text


def test_all_messages_together_are_bounded(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "MAX_TOGETHER", 1_000)
    large, small = (predict_request({"x": np.zeros(size, np.float32)}) for size in (1_000, 1))
    codes = [code for code, _ in predict(requests, large, *[small] * 3)]
    assert codes == [grpc.StatusCode.UNAVAILABLE, *[grpc.StatusCode.OK] * 3]


# Those that TF Serving has a status for; all others are 500.
STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_every_code_has_its_http_status(
    requests: Requests, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    """A model's own error is the client's, over both APIs."""

    def fail(*_: Any) -> Any:
        raise ServingError(Code(code.value[0]), "of the model")

    monkeypatch.setattr(Servable, "run", fail)
    expected = (STATUSES.get(code, 500), {"error": "of the model"})
    assert post(requests, 30, {"instances": [1.0]}) == expected
    request = predict_request({"x": np.ones(1, np.float32)})
    assert predict(requests, request) == [(code, "of the model")]


def test_who_gives_up_while_an_error_is_told_does_not_fill_the_log(
    requests: Requests, caplog: pytest.LogCaptureFixture
) -> None:
    """Of that moment gRPC knows only that its own operation failed."""

    async def start() -> None:
        rpc.server(requests, 30)

    asyncio.run(start())
    log = logging.getLogger("grpc._cython.cygrpc")
    for error in (cygrpc.ExecuteBatchError(), ValueError("told")):
        try:
            raise error
        except Exception:
            log.exception("raised by a method")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
