"""The client and servers that are away, slow or of another mind; TLS."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.client import (
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VersionStatus,
    calls,
)
from serving.client.transport import Target, complete
from serving.errors import HTTP_STATUS, Code
from tests.serving.process import Server, free_port

KINDS = [*itertools.product(["grpc", "rest"], ["waits", "awaits"])]
HERE = "127.0.0.1"
AVAILABLE = [VersionStatus(1, "AVAILABLE", "OK", "")]


class Stub:
    """Answers requests for the status of a model by a list of codes; the last one stays.

    Args:
        codes: what to answer with.
        certificate: and its key, in PEM files, to encrypt.
        mutual: whether clients need it, too.
    """

    def __init__(
        self, codes: list[Code], certificate: tuple[Path, Path] | None, mutual: bool
    ) -> None:
        self.codes, self.asked, self.certificate, self.mutual = codes, 0, certificate, mutual
        self.release = threading.Event()  # of those that are to wait, with the code CANCELLED

    def next_code(self) -> Code:
        code = self.codes[min(self.asked, len(self.codes) - 1)]
        self.asked += 1
        if code == Code.CANCELLED:
            self.release.wait(60)
        return code


class GrpcStub(Stub, model_service_pb2_grpc.ModelServiceServicer):
    def __enter__(self) -> GrpcStub:
        self.server = grpc.server(ThreadPoolExecutor(2))
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self.server)
        if self.certificate:
            public, private = (path.read_bytes() for path in self.certificate)
            credentials = grpc.ssl_server_credentials(
                [(private, public)], public if self.mutual else None, self.mutual
            )
            self.port = self.server.add_secure_port(f"{HERE}:0", credentials)
        else:
            self.port = self.server.add_insecure_port(f"{HERE}:0")
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.server.stop(None).wait()

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        code = self.next_code()
        if code != Code.OK:
            status = next(status for status in grpc.StatusCode if status.value[0] == code)
            context.abort(status, "as told")
        reply = get_model_status_pb2.GetModelStatusResponse()
        reply.model_version_status.add(version=1, state="AVAILABLE")
        return reply


class RestStub(Stub):
    def __enter__(self) -> RestStub:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code = stub.next_code()
                status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
                ok = {"model_version_status": [status]}
                body = json.dumps(ok if code == Code.OK else {"error": "as told"}).encode()
                self.send_response(HTTP_STATUS.get(code, 500))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((HERE, 0), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            context.load_verify_locations(self.certificate[0])
            context.verify_mode = ssl.CERT_REQUIRED if self.mutual else ssl.CERT_NONE
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def stub(
    api: str, *codes: Code, certificate: tuple[Path, Path] | None = None, mutual: bool = False
) -> Any:
    return (GrpcStub if api == "grpc" else RestStub)(list(codes), certificate, mutual)


def status(kind: tuple[str, str], port: int, **settings: Any) -> list[VersionStatus]:
    """What a client of that kind is told."""
    api: Any = kind[0]
    if kind[1] == "waits":
        with Client(f"{HERE}:{port}", api=api, **settings) as client:
            return client.status()

    async def asking() -> list[VersionStatus]:
        async with AsyncClient(f"{HERE}:{port}", api=api, **settings) as client:
            return await client.status()

    return asyncio.run(asking())


@pytest.mark.parametrize("kind", KINDS)
def test_unavailable_is_tried_again(kind: tuple[str, str]) -> None:
    with stub(kind[0], Code.UNAVAILABLE, Code.UNAVAILABLE, Code.OK) as server:
        assert status(kind, server.port, retries=2) == AVAILABLE
        assert server.asked == 3


@pytest.mark.parametrize("kind", KINDS)
def test_but_not_for_ever(kind: tuple[str, str]) -> None:
    with stub(kind[0], Code.UNAVAILABLE) as server:
        with pytest.raises(UnavailableError, match="as told"):
            status(kind, server.port, retries=1)
        assert server.asked == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.INVALID_ARGUMENT, InvalidArgumentError),
        (Code.NOT_FOUND, NotFoundError),
        (Code.PERMISSION_DENIED, PermissionDeniedError),
        (Code.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (Code.UNIMPLEMENTED, UnimplementedError),
        (Code.INTERNAL, InternalError),
        (Code.DEADLINE_EXCEEDED, DeadlineExceededError),
        (Code.UNAUTHENTICATED, UnauthenticatedError),
    ],
)
def test_no_other_error_is_tried_again(
    kind: tuple[str, str], code: Code, error: type[ClientError]
) -> None:
    with stub(kind[0], code, Code.OK) as server:
        with pytest.raises(error, match="as told") as raised:
            status(kind, server.port)
        assert (raised.value.code, server.asked) == (code, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_deadline(kind: tuple[str, str]) -> None:
    with stub(kind[0], Code.CANCELLED) as server:
        with pytest.raises(DeadlineExceededError):
            status(kind, server.port, timeout=0.2)
        assert server.asked == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_server(kind: tuple[str, str]) -> None:
    with pytest.raises(UnavailableError):
        status(kind, free_port(), retries=0)
    with pytest.raises(UnavailableError):  # a pause would end after the deadline
        status(kind, free_port(), retries=10**6, timeout=0.3)


def test_a_server_that_starts_later(start: Callable[..., Server], everything: Path) -> None:
    """Its port opens while the client is trying, and gRPC waits by itself between attempts."""
    server = start(everything)
    settings: dict[str, Any] = {"model": "model", "retries": 10**6, "timeout": 60}
    with (
        Client(f"{HERE}:{server.port}", **settings) as client,
        contextlib.suppress(NotFoundError),  # an answer too: the model comes after the port
    ):
        assert [version.version for version in client.status()] == [7]


class Refusing:
    """A transport that is never available, and notes the pauses."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def status(self, target: Target) -> None:
        return None

    async def send(self, request: Any, timeout: float) -> Any:
        raise UnavailableError("away")

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_pauses_double_up_to_two_seconds() -> None:
    transport: Any = Refusing()
    client = calls.Calls(transport, Target("model", None, None), timeout=1000, retries=7)
    with pytest.raises(UnavailableError):
        complete(client.status())
    assert len(transport.pauses) == 7
    for pause, longest in zip(transport.pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2], strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(
    ("address", "settings", "error"),
    [
        ("http://localhost:8501", {"api": "rest"}, "is not host:port, such as localhost:8500"),
        ("localhost", {}, "is not host:port"),
        ("localhost:grpc", {}, "is not host:port"),
        ("localhost:65536", {}, "is not host:port"),
        ("localhost:1", {"api": "soap"}, "api 'soap' is neither 'grpc' nor 'rest'"),
        ("localhost:1", {"version": 1, "label": "a"}, "by version or by label, not by both"),
        ("localhost:1", {"certificate": ("a", "b")}, "a certificate is for TLS only; give tls"),
        ("localhost:1", {"version": 2**63}, "version 9223372036854775808 is not from 0 to"),
        ("localhost:1", {"timeout": float("inf")}, "a timeout of inf s is not from 0 to 1,000,000"),
        ("localhost:1", {"timeout": float("nan")}, "a timeout of nan s"),
    ],
)
def test_settings_that_are_wrong(address: str, settings: Any, error: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidArgumentError, match=error):
            kind(address, **settings)


def test_a_host_that_cannot_be() -> None:
    with pytest.raises(InvalidArgumentError, match="'bad host' cannot be the name of a host"):
        Client("bad host:1", api="rest")


@pytest.mark.parametrize(("asked", "answering"), [("grpc", "rest"), ("rest", "grpc")])
def test_the_port_of_the_other_api(asked: Any, answering: str) -> None:
    with (
        stub(answering, Code.OK) as server,
        Client(f"{HERE}:{server.port}", api=asked, retries=0) as client,
        pytest.raises(ClientError),
    ):
        client.status()


@pytest.mark.parametrize("kind", KINDS)
def test_tls(kind: tuple[str, str], certificate: tuple[Path, Path]) -> None:
    with stub(kind[0], Code.OK, certificate=certificate) as server:
        assert status(kind, server.port, tls=certificate[0]) == AVAILABLE
        with pytest.raises(UnavailableError):  # the system's authorities do not know it
            status(kind, server.port, tls=True, retries=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_asks_for_a_certificate(
    kind: tuple[str, str], certificate: tuple[Path, Path]
) -> None:
    with stub(kind[0], Code.OK, certificate=certificate, mutual=True) as server:
        known: dict[str, Any] = {"tls": certificate[0], "certificate": certificate}
        assert status(kind, server.port, **known) == AVAILABLE
        with pytest.raises(UnavailableError):
            status(kind, server.port, tls=certificate[0], retries=0)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_authorities_that_are_not_there(kind: Any, api: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kind("localhost:1", api=api, tls=tmp_path / "none.pem")
    with pytest.raises(FileNotFoundError):
        kind("localhost:1", api=api, tls=True, certificate=(tmp_path / "none.pem",) * 2)
