"""How the server starts and ends."""

from __future__ import annotations

import ast
import asyncio
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorflow_serving.apis import prediction_service_pb2_grpc

import serving
from serving import rest, rpc
from serving.models import Models, single
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.runner import Runner
from serving.server import Apis
from tests.serving.process import DEADLINE, Server, free_port, until
from tests.serving.saved_models import logged, predict_request, write_warm_up


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "serving.server", *flags)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return True
    return False


def test_sigterm_lets_requests_in_flight_end(
    everything: Path, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(everything)
    server.wait_for("loaded model version 7")
    rest, rpc = tmp_path / "rest", tmp_path / "rpc"
    for directory in (rest, rpc):
        directory.mkdir()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.predict, {"signature_name": "wait", "inputs": str(rest)})
        request = predict_request({"directory": np.array(str(rpc), object)}, "wait")
        second = pool.submit(server.predictions.Predict, request)
        try:
            until(lambda: (rest / "begun").exists() and (rpc / "begun").exists())
            server.process.send_signal(signal.SIGTERM)
            until(lambda: refuses(server.rest_port))
            assert not first.done()
            assert not second.done()
        finally:
            (rest / "end").touch()
            (rpc / "end").touch()
        assert first.result(DEADLINE) == (200, {"outputs": True})
        assert list(second.result(DEADLINE).outputs["waited"].bool_val) == [True]
    assert server.process.wait(DEADLINE) == 0
    assert "Traceback" not in server.log.read_text()
    assert refuses(server.port)


def test_the_end_is_one_for_both_apis(everything: Path, tmp_path: Path) -> None:
    """Runs that do not end are ended, and their clients and health's watchers told."""

    async def ask() -> tuple[list[int], int, Any, grpc.StatusCode]:
        models = Models()
        models.apply(single("model", everything))
        requests = Requests(models, Runner(Metrics()), Metrics())
        server, health = rpc.server(requests, 30)
        health.set(True)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        runner = rest.runner(rest.application(requests, 30), 30)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/models/model:predict"
        async with (
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub = health_pb2_grpc.HealthStub(channel)
            watchers = [stub.Watch(HealthCheckRequest()) for _ in range(3)]
            seen = [(await one.read()).status for one in watchers]
            watchers.pop().cancel()
            body = {"signature_name": "wait", "inputs": str(tmp_path / "rest")}
            first = asyncio.create_task(session.post(url, json=body))
            request = predict_request(
                {"directory": np.array(str(tmp_path / "rpc"), object)}, "wait"
            )
            second = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
            while not ((tmp_path / "rest/begun").exists() and (tmp_path / "rpc/begun").exists()):
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(Apis(models, health, server, runner).stop(0.1))
            seen += [(await one.read()).status for one in watchers]
            assert {await one.read() for one in watchers} == {grpc.aio.EOF}
            reply = await first
            answer = reply.status, await reply.json(), await second.code()
            await stopping
            return seen, *answer

    (tmp_path / "rest").mkdir()
    (tmp_path / "rpc").mkdir()
    serving = [HealthCheckResponse.SERVING] * 3 + [HealthCheckResponse.NOT_SERVING] * 2
    seen, status, body, code = asyncio.run(ask())
    assert (seen, status, code) == (serving, 499, grpc.StatusCode.CANCELLED)
    assert list(body) == ["error"]


def test_no_request_is_lost_at_the_end(everything: Path) -> None:
    """Those that still wait for their turn are answered, or may be sent again."""

    async def ask() -> set[grpc.StatusCode]:
        models = Models()
        models.apply(single("model", everything))
        requests = Requests(models, Runner(Metrics()), Metrics())
        server, health = rpc.server(requests, 30)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        answered = 0

        async def ask_until_the_end(stub: Any) -> grpc.StatusCode:
            nonlocal answered
            while True:
                try:
                    await stub.Predict(predict_request({"x": np.zeros(1, np.float32)}))
                    answered += 1
                except grpc.aio.AioRpcError as error:
                    return error.code()

        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            asking = [asyncio.create_task(ask_until_the_end(stub)) for _ in range(100)]
            while answered < 200:
                await asyncio.sleep(0.01)
            await Apis(models, health, server).stop(10)
            return set(await asyncio.gather(*asking))

    assert asyncio.run(ask()) == {grpc.StatusCode.UNAVAILABLE}


def test_no_connection_is_closed_with_a_request_in_it(everything: Path) -> None:
    """Over REST: its last answer says that it ends."""

    async def ask() -> list[type[Exception]]:
        models = Models()
        models.apply(single("model", everything))
        application = rest.application(Requests(models, Runner(Metrics()), Metrics()), 30)
        runner = rest.runner(application, 30)
        await runner.setup()
        await rest.listen(runner, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/models/model:predict"
        answered = set()

        async def ask_until_the_end(session: aiohttp.ClientSession, client: int) -> Exception:
            while True:
                try:
                    async with session.post(url, json={"instances": [1.0]}) as reply:
                        assert await reply.json() == {"predictions": [2.5]}
                    answered.add(client)
                except aiohttp.ClientError as error:
                    return error

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            asking = [asyncio.create_task(ask_until_the_end(session, i)) for i in range(50)]
            while len(answered) < len(asking):
                await asyncio.sleep(0.01)
            await rest.end(runner)
            return [type(error) for error in await asyncio.gather(*asking)]

    assert set(asyncio.run(ask())) == {aiohttp.ClientConnectorError}  # that is, none was made


def test_health_waits_for_the_warm_up_and_the_end_for_no_load(
    everything: Path, start: Callable[..., Server], tmp_path: Path
) -> None:
    def add(version: str, *requests: Any) -> None:
        hidden = shutil.copytree(everything / "7", tmp_path / f"new-{version}")
        write_warm_up(hidden, map(logged, requests))
        hidden.rename(tmp_path / "model" / version)

    (tmp_path / "model").mkdir()
    wait = predict_request({"directory": np.array(str(tmp_path), object)}, "wait")
    add("7", wait)
    server = start(tmp_path / "model")
    health = health_pb2_grpc.HealthStub(server.channel)
    watch = health.Watch(HealthCheckRequest(), wait_for_ready=True, timeout=DEADLINE)
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    until(lambda: (tmp_path / "begun").exists())
    assert health.Check(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING
    assert server.predict({"instances": [1]})[0] == 404
    _, body = server.call("GET", "/v1/models/model")
    assert [(one["version"], one["state"]) for one in body["model_version_status"]] == [
        ("7", "LOADING")
    ]
    (tmp_path / "end").touch()
    assert next(watch).status == HealthCheckResponse.SERVING
    assert server.predict({"instances": [1]})[0] == 200
    watch.cancel()
    (tmp_path / "begun").unlink()
    add("8", wait, predict_request({"seconds": np.array(2.0 * DEADLINE)}, "spin"))
    until(lambda: (tmp_path / "begun").exists())
    assert server.stop() == 0


def test_a_signal_while_it_starts(tmp_path: Path, start: Callable[..., Server]) -> None:
    server = start(tmp_path)
    server.wait_for("starting")
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("taken", ["port", "rest_api_port"])
def test_port_in_use(tmp_path: Path, taken: str) -> None:
    ports = {"port": free_port(), "rest_api_port": free_port()}
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[taken]))
        other.listen()
        flags = [f"--{name}={port}" for name, port in ports.items()]
        ended = serve(f"--model_base_path={tmp_path}", *flags)
    assert ended.returncode == 1
    error = f"Error: port {ports[taken]} of 127.0.0.1 is in use; choose another --{taken}"
    assert ended.stderr.splitlines() == [error]


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    flags = [f"--model_base_path={tmp_path}", f"--port={free_port()}", "--address=192.0.2.1"]
    ended = serve(*flags)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: port ")
    assert "192.0.2.1 cannot be had" in line


def test_a_base_path_that_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path / "missing", file):
        ended = serve(f"--model_base_path={path}")
        assert ended.returncode == 1
        error = f"Error: {path} is no directory; it should hold numbered versions of the model"
        assert ended.stderr.splitlines() == [error]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--model_base_path=.", "--port=70000"], "Invalid value for '--port'"),
        (["--model_base_path=.", "--rest_api_port=-1"], "Invalid value for '--rest_api_port'"),
    ],
)
def test_flags_that_are_wrong(flags: list[str], error: str) -> None:
    ended = serve(*flags)
    assert ended.returncode == 2
    assert error in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_needs_no_tensorflow() -> None:
    script = (
        "import sys; from serving.server import main; main(['--help'], standalone_mode=False); "
        "print(sorted({'tensorflow', 'grpc', 'aiohttp', 'tfrec', 'pipeline'} & set(sys.modules)))"
    )
    ended = run("-c", script)
    assert ended.returncode == 0, ended.stderr
    assert "--model_base_path" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_server_stands_alone() -> None:
    """It imports neither of the packages beside it."""
    for path in Path(serving.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if alias.name]
            names.append(getattr(node, "module", None) or "")
            assert not {name.split(".")[0] for name in names} & {"tfrec", "pipeline"}, path


@pytest.mark.parametrize("port", ["0", "8599"])
def test_two_apis_on_one_port_or_on_none_is_refused(port: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={tmp_path}"]
    command += [f"--port={port}", f"--rest_api_port={port}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"Error: --port and --rest_api_port are both {port}; give them two, and one at least"
    )
