"""A server in a process of its own, and its clients."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

DEADLINE = 60


def until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """What the condition gives, as soon as it is true.

    Raises:
        AssertionError: it was not in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Address:
    """Where a server answers, and its clients.

    Args:
        rest, rpc: host and port of its APIs.
    """

    def __init__(self, rest: str, rpc: str) -> None:
        self.rest, self.rpc = rest, rpc
        self.rest_port, self.port = (int(a.rpartition(":")[2]) for a in (rest, rpc))
        self.channel = grpc.insecure_channel(rpc)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of a REST reply."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.rest, timeout=DEADLINE)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            assert reply.headers["Content-Type"].startswith("application/json")
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        connection = http.client.HTTPConnection(self.rest, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def predict(self, body: Any, path: str = "/v1/models/model") -> tuple[int, Any]:
        """Status and JSON of a REST prediction."""
        return self.call("POST", f"{path}:predict", body)


class Server(Address):
    """`python -m serving.server` of one model, `model`, or of those of a file.

    Args:
        base_path: directory of its versions; or a ModelServerConfig; or None, where flags tell.
        log: file for what it prints.
        flags: more of them.
    """

    def __init__(self, base_path: Path | None, log: Path, *flags: str) -> None:
        super().__init__(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
        self.log = log
        models = [f"--model_base_path={base_path}", "--model_name=model"] if base_path else []
        if base_path and base_path.is_file():
            models = [f"--model_config_file={base_path}"]
        command = [
            sys.executable,
            "-m",
            "serving.server",
            *models,
            f"--port={self.port}",
            f"--rest_api_port={self.rest_port}",
            "--file_system_poll_wait_seconds=0.1",
            *flags,
        ]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def logged(self, text: str) -> bool:
        """Whether the log has a text by now."""
        assert self.process.poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def wait_for(self, text: str) -> None:
        """Returns when the log has a text."""
        until(lambda: self.logged(text))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, and gives the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """Leaves nothing behind, whatever a test did."""
        self.channel.close()
        self.process.kill()
        self.process.wait()
