"""Clients that are slow, many, rude or gone."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving import inference, rest
from serving.models import Models, single
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.runner import Runner
from tests.serving.process import DEADLINE, Server, until
from tests.serving.saved_models import predict_request

PREDICT = b"POST /v1/models/model:predict HTTP/1.1\r\nHost: a\r\n"
BODY = b'{"instances": [1.0]}'


def whole(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return PREDICT + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def exchange(server: Server, sent: bytes) -> bytes:
    """All that the server says until it closes, or until nothing comes for a while."""
    with socket.create_connection(("127.0.0.1", server.rest_port), DEADLINE) as connection:
        with contextlib.suppress(ConnectionError):  # it need not read all
            connection.sendall(sent)
        received = b""
        connection.settimeout(3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := connection.recv(2**16):
                received += part
        return received


def is_well(server: Server) -> None:
    assert server.predict(json.loads(BODY)) == (200, {"predictions": [2.5]})


@pytest.fixture(scope="module")
def models(everything: Path) -> Models:
    result = Models()
    result.apply(single("model", everything))
    return result


@contextlib.asynccontextmanager
async def serving(models: Models, timeout: float, idle: float) -> AsyncIterator[tuple[int, Any]]:
    """A REST server's port and requests."""
    requests = Requests(models, Runner(Metrics()), Metrics())
    runner = rest.runner(rest.application(requests, timeout), 1, idle)
    await runner.setup()
    await rest.listen(runner, "127.0.0.1", 0)
    try:
        yield runner.addresses[0][1], requests
    finally:
        await runner.cleanup()


def test_slow_headers_and_idle_connections_are_closed(models: Models) -> None:
    async def ask() -> list[bytes]:
        async with serving(models, 30, 0.3) as (port, _):

            async def one(*parts: bytes) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for part in parts:
                    writer.write(part)
                    await asyncio.sleep(0.1)
                try:
                    return await asyncio.wait_for(reader.read(), 10)
                finally:
                    writer.close()

            head = PREDICT + b"X-A: a"
            return await asyncio.gather(one(), one(b"P"), one(head), one(whole(BODY), head))

    *none, after = asyncio.run(ask())
    assert none == [b"", b"", b""]
    assert after.startswith(b"HTTP/1.1 200")
    assert after.endswith(b'{"predictions":[2.5]}')


def test_a_slow_body_is_a_timeout(models: Models) -> None:
    async def ask() -> bytes:
        async with serving(models, 0.3, 30) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole(BODY)[:-5])
            try:
                return await asyncio.wait_for(reader.readuntil(b"}"), 10)
            finally:
                writer.close()

    reply = asyncio.run(ask())
    assert reply.startswith(b"HTTP/1.1 504")
    assert reply.endswith(b'{"error": "Timed out"}')


def test_who_does_not_read_the_answer_is_cut_off(models: Models) -> None:
    async def ask() -> bool:
        async with serving(models, 2, 30) as (port, _):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, ("127.0.0.1", port))
            body = json.dumps({"instances": [0.123456789] * 2_000_000}).encode()
            await loop.sock_sendall(connection, whole(body))

            async def cut_off() -> bool:
                while True:
                    try:
                        connection.send(b"x")
                    except BlockingIOError:
                        pass
                    except ConnectionError:
                        return True
                    await asyncio.sleep(0.05)

            try:
                return await asyncio.wait_for(cut_off(), 30)
            finally:
                connection.close()

    assert asyncio.run(ask())


def test_who_hangs_up_leaves_the_queue(models: Models, tmp_path: Path) -> None:
    async def ask() -> None:
        async with serving(models, 30, 30) as (port, requests):
            body = json.dumps({"signature_name": "wait", "inputs": str(tmp_path)}).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole(body))
            await asyncio.to_thread(until, lambda: (tmp_path / "begun").exists())
            assert requests.runner._inside == 1
            writer.close()
            async with asyncio.timeout(10):
                while requests.runner._inside:
                    await asyncio.sleep(0.01)
        assert 'status="CANCELLED"} 1' in requests.metrics.text()

    try:
        asyncio.run(ask())
    finally:
        (tmp_path / "end").touch()


def test_who_hangs_up_before_the_answer_does_not_fill_the_log(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> bytes:
        async with serving(models, 30, 30) as (port, _):
            for sent in (b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\n\r\n", whole(b"{")):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(sent)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole(BODY))
            try:
                return await asyncio.wait_for(reader.readuntil(b"}"), 10)
            finally:
                writer.close()

    assert asyncio.run(ask()).startswith(b"HTTP/1.1 200")
    assert not caplog.records


def test_all_bodies_together_are_bounded(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MAX_TOGETHER", 100)

    async def ask() -> tuple[bytes, bytes]:
        async with serving(models, 30, 30) as (port, _):

            async def one(sent: bytes) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                try:
                    return await asyncio.wait_for(reader.readuntil(b"}"), 10)
                finally:
                    writer.close()

            large = whole(BODY + b" " * 90)
            return await one(large), await one(whole(BODY))

    refused, answered = asyncio.run(ask())
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"try again later" in refused
    assert answered.startswith(b"HTTP/1.1 200")  # and nothing is held any more


def test_a_small_body_that_unpacks_to_a_large_one(server: Server) -> None:
    before = resident(server)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 2**20) for _ in range(256)) + packer.flush()
    status, reply = server.call(
        "POST", "/v1/models/model:predict", bomb, {"Content-Encoding": "gzip"}
    )
    assert (status, reply["error"][:27]) == (413, "The request body is larger ")
    assert resident(server) - before < 200 * 2**20
    packed = gzip.compress(BODY)
    reply = server.call("POST", "/v1/models/model:predict", packed, {"Content-Encoding": "gzip"})
    assert reply == (200, {"predictions": [2.5]})
    reply = server.call("POST", "/v1/models/model:predict", BODY, {"Content-Encoding": "gzip"})
    assert reply[0] == 400
    assert "Unhandled exception" not in server.log.read_text()


def resident(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.parametrize(
    "sent",
    [
        whole(BODY, b"Transfer-Encoding: chunked"),
        whole(BODY, b"Content-Length: 5"),
        PREDICT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
        PREDICT + b"Transfer-Encoding: xchunked\r\n\r\n",
        PREDICT + b"Content-Length: -1\r\n\r\n",
        PREDICT + b"Content-Length: +20\r\n\r\n" + BODY,
        PREDICT + b"X : y\r\n\r\n",
        PREDICT + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        PREDICT + b"".join(b"X%d: y\r\n" % i for i in range(10_000)) + b"\r\n",
        b"POST /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "two lengths", "length twice", "bad chunk", "other coding", "negative", "sign", "space",
        "huge header", "many headers", "huge path", "tls", "http2",
    ],
)  # fmt: skip
def test_requests_that_proxies_may_read_otherwise(server: Server, sent: bytes) -> None:
    """The connection ends with them: nothing of a body is taken for a request."""
    reply = exchange(server, sent + b"GET /v1/models/model HTTP/1.1\r\nHost: a\r\n\r\n")
    assert reply == b"" or reply.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert b" 200 OK" not in reply
    is_well(server)
    assert "Error handling request" not in server.log.read_text()


def test_pipelined_requests_have_their_answers_in_order(server: Server) -> None:
    sent = b"".join(whole(b'{"instances": [%d]}' % (2 * i)) for i in range(200))
    last = whole(b'{"instances": [-4]}', b"Connection: close")
    bodies = exchange(server, sent + last).split(b'{"predictions":')[1:]
    values = [float(body.partition(b"]")[0].strip(b"[")) for body in bodies]
    assert values == [i + 2.0 for i in range(200)] + [0.0]


def test_thousands_of_connections(server: Server) -> None:
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2_000, most - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idle = []
    try:
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", server.rest_port), DEADLINE)
            connection.sendall(b"" if number % 2 else PREDICT)
            idle.append(connection)
        is_well(server)
        request = predict_request({"x": np.ones(1, np.float32)})
        assert list(server.predictions.Predict(request).outputs["y"].float_val) == [2.5]
        idle[0].sendall(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        idle[0].settimeout(DEADLINE)
        assert idle[0].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    is_well(server)


def test_connections_without_a_file_left_wait_for_one(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """And do not fill the log meanwhile."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def ask() -> bytes:
        async with serving(models, 30, 30) as (port, _):
            loop = asyncio.get_running_loop()
            with socket.socket() as client, socket.socket() as probe:
                client.setblocking(False)
                resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno(), most))
                await loop.sock_connect(client, ("127.0.0.1", port))
                await loop.sock_sendall(client, whole(BODY))
                await asyncio.sleep(1.5)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
                return await asyncio.wait_for(loop.sock_recv(client, 100), 10)

    try:
        assert asyncio.run(ask()).startswith(b"HTTP/1.1 200")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    assert 1 <= caplog.text.count("Too many open files") <= 3


def test_a_model_that_hangs_ends_with_the_servers_patience(
    everything: Path, start: Callable[..., Server], tmp_path: Path
) -> None:
    """A client that waits for ever does not keep a thread for ever."""
    server = start(everything, "--grpc_timeout_in_ms=400", "--rest_api_timeout_in_ms=400")
    server.wait_for("loaded model version 7")
    request = predict_request({"directory": np.array(str(tmp_path), object)}, "wait")
    for _ in range(4):
        body = {"signature_name": "wait", "inputs": str(tmp_path)}
        assert server.predict(body)[0] == 504
        with pytest.raises(grpc.RpcError) as raised:
            server.predictions.Predict(request)
        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: server.predict(json.loads(BODY)) == (200, {"predictions": [2.5]}))
