"""The client and replies over REST that are late, another service's or another version's."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.client import (
    ClientError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    ResourceExhaustedError,
    Signature,
    Tensor,
    over_rest,
    rows,
)
from serving.errors import Code
from tests.serving.test_client_faults import HERE, KINDS, status, stub

REST = [kind for kind in KINDS if kind[0] == "rest"]


class Raw:
    """Answers whoever connects by what a function writes."""

    def __init__(self, write: Callable[[socket.socket], None]) -> None:
        self.write, self.asked = write, 0

    def __enter__(self) -> Raw:
        self.listener = socket.create_server((HERE, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        return self

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # when the test ends
            while True:
                connection, _ = self.listener.accept()
                self.asked += 1
                with connection, contextlib.suppress(OSError):  # of a client that hangs up
                    connection.recv(2**16)
                    self.write(connection)

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def http_reply(body: bytes, head: bytes = b"200 OK") -> Callable[[socket.socket], None]:
    text = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
    return lambda connection: connection.sendall(text % (head, len(body), body))


@pytest.mark.parametrize("kind", REST)
@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"HTTP/1.1 200 O"]
)
def test_the_deadline_of_a_reply_that_comes_slowly(kind: tuple[str, str], start: bytes) -> None:
    """In pieces, none of which is late."""

    def slowly(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(40):
            time.sleep(0.02)
            connection.sendall(b" ")

    with Raw(slowly) as server, pytest.raises(DeadlineExceededError):
        status(kind, server.port, timeout=0.3)


@pytest.mark.parametrize("kind", REST)
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"status": "up"}', "the reply is none of TF Serving's: KeyError"),
        (b'{"model_version_status": [{"version": "one"}]}', "the reply is none of TF Serving's"),
        (b"[" * 10**5, "HTTP status 200, which is no reply"),
    ],
)
def test_the_port_of_another_service(kind: tuple[str, str], body: bytes, error: str) -> None:
    with Raw(http_reply(body)) as server, pytest.raises(ClientError, match=error):
        status(kind, server.port)


def test_a_body_that_is_too_large() -> None:
    with (
        Raw(http_reply(b'{"error": "The body"}', b"413 Request Entity Too Large")) as server,
        pytest.raises(ResourceExhaustedError, match="The body"),
    ):
        status(("rest", "waits"), server.port)


@pytest.mark.parametrize("kind", REST)
def test_no_request_is_sent_to_another_place(kind: tuple[str, str]) -> None:
    with stub("rest", Code.OK) as other:
        head = b"301 Moved Permanently\r\nLocation: http://%b:%d/" % (HERE.encode(), other.port)
        with Raw(http_reply(b"", head)) as server, pytest.raises(ClientError, match="status 301"):
            status(kind, server.port)
        assert other.asked == 0


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", 0.5),
        ("int32", 2**31),
        ("int64", True),
        ("float32", "5"),
        ("float32", [1.0]),
        ("string", 5),
        ("string", {"b64": 5}),
    ],
)
def test_a_reply_of_another_dtype_is_not_cast(dtype: str, value: Any) -> None:
    """As of a new version of the model, of which the client does not know yet."""
    signature = Signature({}, {"y": Tensor(dtype, (-1,))})
    with pytest.raises(FailedPreconditionError, match="output 'y' of the reply is not what"):
        over_rest.BlockingRest(f"{HERE}:1", None).read_predict(
            {"outputs": [*([[]] if value == [1.0] else []), value]}, signature
        )


@pytest.mark.parametrize(("dtype", "value"), [("float64", 1e300), ("uint64", 2**63)])
def test_what_no_example_can_hold(dtype: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="the row: column 'x' takes values of"):
        rows.examples([{"x": value}], {"x": Tensor(dtype, (-1,))})
