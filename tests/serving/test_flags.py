"""Flags and configuration files of the server: what they do, and one line for what they cannot."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from tensorflow_serving.apis import model_management_pb2, prediction_service_pb2_grpc

import serving
from serving import rpc
from serving.client import Client
from serving.flags import TUNING, Options, tuning
from serving.models import Models
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.runner import Runner
from serving.server import _open_rpc, main
from tests.serving.process import DEADLINE, Server, free_port, until
from tests.serving.saved_models import predict_request

HERE = Path(serving.__file__).parent
ENTRY = 'name: "m" base_path: "/models/m" model_platform: "tensorflow"'


def listing(*entries: str) -> str:
    return "model_config_list { " + " ".join(f"config {{ {one} }}" for one in entries) + " }"


def refusal(*flags: str) -> str:
    """The one line that the server ends with."""
    result = CliRunner().invoke(main, [f"--port={free_port()}", *flags])
    assert result.exit_code == 1, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0].removeprefix("Error: ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model_config_list {", "is no text form of ModelServerConfig: 1:"),
        (listing(ENTRY + ' bas_path: "x"'), 'ModelConfig" has no field named "bas_path"'),
        (listing(ENTRY, ENTRY), "Illegal to list model m multiple times in config list"),
        (listing('name: "m" base_path: "/models/m"'), "Illegal setting neither ModelServerConfig"),
        (listing(ENTRY.replace("tensorflow", "caffe")), "m requests unsupported platform caffe"),
        (listing(ENTRY.replace("/models", "models")), "got base_path()=models/m"),
        (listing(ENTRY.replace('"m"', '""')), "needs a name and a base_path"),
        ("custom_model_config {}", "does not yet support custom model config"),
        (
            listing(ENTRY + ' version_labels { key: "stable" value: 2 }'),
            "Request to assign label to version 2 of model m, which is not currently available for "
            "inference; give --allow_version_labels_for_unavailable_models=true",
        ),
    ],
)
def test_model_config_files_that_cannot_be(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "models.config"
    file.write_text(text)
    line = refusal(f"--model_config_file={file}")
    assert line.startswith(f"{file}")
    assert error in line


@pytest.mark.parametrize(
    ("flag", "text", "error"),
    [
        ("batching_parameters", "max_batch_size: 5", "no text form of BatchingParameters"),
        ("batching_parameters", "max_batch_size { value: 0 }", "max_batch_size cannot be 0"),
        (
            "batching_parameters",
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "the last of allowed_batch_sizes, 4, should be max_batch_size, 8",
        ),
        (
            "batching_parameters",
            "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 9 }",
            "max_execution_batch_size, 9, should not be above max_batch_size, 8",
        ),
        ("monitoring_config", "prometheus { }", "no text form of MonitoringConfig"),
        ("ssl_config", 'server_key: "x"', "server_key and server_cert are both needed"),
    ],
)
def test_other_files_that_cannot_be(tmp_path: Path, flag: str, text: str, error: str) -> None:
    file = tmp_path / "file.config"
    file.write_text(text)
    flags = [f"--model_base_path={tmp_path}", f"--{flag}_file={file}", "--enable_batching"]
    assert error in refusal(*flags, f"--rest_api_port={free_port()}")


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "give one of --model_base_path and --model_config_file"),
        (["--model_base_path=.", "--monitoring_config_file={}"], "needs --rest_api_port"),
        (["--model_base_path=.", "--batching_parameters_file={}"], "needs --enable_batching"),
        (
            ["--model_base_path=.", "--batching_parameters_file={}", "--enable_batching=false"],
            "needs --enable_batching",
        ),
    ],
)
def test_flags_that_do_not_go_together(tmp_path: Path, flags: list[str], error: str) -> None:
    file = tmp_path / "empty.config"
    file.touch()
    assert error in refusal(*(flag.format(file) for flag in flags))


def test_a_configuration_file_stands_above_the_flags_of_one_model(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list {")
    flags = [f"--model_config_file={file}", "--model_name=m", "--model_base_path=/missing"]
    assert "is no text form of ModelServerConfig" in refusal(*flags)


def test_arguments_of_grpc_that_are_none(tmp_path: Path) -> None:
    flags = [f"--model_base_path={tmp_path}", "--grpc_channel_arguments=grpc.a=1,b"]
    assert refusal(*flags) == "--grpc_channel_arguments has 'b'; give key=value,key=value"


def test_the_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    names = [line.partition(":")[0] for line in result.output.splitlines()]
    assert names == ["Embedded ModelServer", "TensorFlow Library"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], False),
        (["--enable_batching"], True),
        (["--enable_batching", "--port=1"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching=false"], False),
    ],
)
def test_truth_values_are_given_as_to_tf_serving(flags: list[str], expected: bool) -> None:
    assert main.make_context("server", flags).params["enable_batching"] is expected


def container_flags() -> list[str]:
    compose = yaml.safe_load((HERE / "docker" / "compose.yaml").read_text())
    deployment = yaml.safe_load((HERE / "kubernetes" / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (command,) = (s["command"] for s in compose["services"].values() if "--port=8500" in str(s))
    return sorted({flag.partition("=")[0] for flag in (*command, *container["args"])})


@pytest.mark.parametrize("flag", container_flags())
def test_flags_of_the_container_files_are_taken(flag: str) -> None:
    assert flag in {name for parameter in main.params for name in parameter.opts}


@pytest.fixture(scope="module")
def flagged(
    everything: Path, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    """A server with all that flags can turn on, and its folder."""
    place = tmp_path_factory.mktemp("flagged")
    public, private = (json.dumps(file.read_text()) for file in certificate)
    texts = {
        "ssl_config": f"server_key: {private} server_cert: {public} custom_ca: {public} "
        "client_verify: true",
        "monitoring_config": 'prometheus_config { enable: true path: "/metrics" }',
        "batching_parameters": "max_batch_size { value: 4 } batch_timeout_micros { value: 100 }",
    }
    for name, text in texts.items():
        (place / name).write_text(text)
    flags = [f"--{name}_file={place / name}" for name in texts]
    flags += ["--enable_batching", f"--grpc_socket_path={place / 'socket'}"]
    flags += ["--tensorflow_intra_op_parallelism=1", "--tensorflow_inter_op_parallelism=1"]
    flags += ["--rest_api_enable_cors_support", "--grpc_channel_arguments=grpc.lb_policy_name=x"]
    flags += [f"--{name}=1" for name in TUNING]
    running = Server(everything, place / "log", *flags)
    try:
        running.wait_for("loaded model version 7")
        yield running, place
    finally:
        running.close()


def ask(channel: grpc.Channel, *values: float) -> list[float]:
    request = predict_request({"x": np.array(values, np.float32)})
    with channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return list(stub.Predict(request, timeout=30).outputs["y"].float_val)


def test_clients_with_a_certificate(
    flagged: tuple[Server, Path], certificate: tuple[Path, Path]
) -> None:
    public, private = (file.read_bytes() for file in certificate)
    address = f"127.0.0.1:{flagged[0].port}"
    known = grpc.ssl_channel_credentials(public, private, public)
    assert ask(grpc.secure_channel(address, known), 1) == [2.5]
    for channel in (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(public)),
        grpc.insecure_channel(address),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            ask(channel, 1)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_clients_without_a_certificate(
    everything: Path, certificate: tuple[Path, Path], start: Any, tmp_path: Path
) -> None:
    public, private = (json.dumps(file.read_text()) for file in certificate)
    file = tmp_path / "ssl.config"
    file.write_text(f"server_key: {private}\nserver_cert: {public}\n")
    server = start(everything, f"--ssl_config_file={file}")
    server.wait_for("loaded model version 7")
    with Client(server.rpc, model="model", tls=certificate[0]) as client:
        assert client.predict({"x": 1.0}, signature="serving_default") == {"y": 2.5}


def test_the_socket(flagged: tuple[Server, Path]) -> None:
    """Without TLS: its file's permissions say who may."""
    _, place = flagged
    assert ask(grpc.insecure_channel(f"unix:{place / 'socket'}"), 1, 5) == [2.5, 4.5]


def test_batching_is_on(flagged: tuple[Server, Path]) -> None:
    server, _ = flagged
    assert server.predict({"instances": [1, 2, 3, 4]}) == (200, {"predictions": [2.5, 3, 3.5, 4]})
    status, body = server.predict({"instances": [1, 2, 3, 4, 5]})
    assert status == 400
    assert body["error"] == "Task size 5 is larger than maximum input batch size 4"


def test_the_page_for_prometheus(flagged: tuple[Server, Path]) -> None:
    server, _ = flagged
    assert server.predict({"instances": [1]})[0] == 200
    status, text = server.page("/metrics")
    assert status == 200
    name = ":tensorflow:serving:request_count"
    assert re.search(rf'^{name}{{model_name="model",status="OK"}} \d+$', text, re.MULTILINE)
    assert server.page("/monitoring/prometheus/metrics")[0] == 404


def test_pages_of_other_origins(flagged: tuple[Server, Path]) -> None:
    server, _ = flagged
    for method, path, expected in (
        ("OPTIONS", "/v1/models/model:predict", 200),
        ("GET", "/v1/models/model", 200),
        ("GET", "/v1/models/no", 404),
    ):
        connection = http.client.HTTPConnection(server.rest, timeout=DEADLINE)
        connection.request(method, path)
        reply = connection.getresponse()
        assert reply.status == expected
        found = {name: value for name, value in reply.headers.items() if name.startswith("Access")}
        connection.close()
        assert found == {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "POST, GET",
            "Access-Control-Allow-Headers": "Content-Type",
        }


def test_flags_that_change_nothing_are_taken(flagged: tuple[Server, Path]) -> None:
    (line,) = (one for one in flagged[0].log.read_text().splitlines() if "no use for" in one)
    assert all(f"--{name}" in line for name in TUNING)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_addresses_of_both_kinds(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {address}")

    async def ask() -> str:
        port = free_port()
        flags = main.make_context("server", [f"--address={address}", f"--port={port}"]).params
        tuning(flags)
        server, _ = rpc.server(Requests(Models(), Runner(Metrics()), Metrics()), 30)
        await _open_rpc(server, Options(**flags))
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            status = await health_pb2_grpc.HealthStub(channel).Check(HealthCheckRequest())
        await server.stop(0)
        return str(status)

    assert asyncio.run(ask()) == "status: NOT_SERVING\n"


def test_no_page_unless_asked_for(halves: Path, start: Any, tmp_path: Path) -> None:
    shutil.copytree(halves / "two", tmp_path / "model" / "1")
    server = start(tmp_path / "model")
    server.wait_for("serving model")
    assert server.page("/monitoring/prometheus/metrics")[0] == 404


def test_health_waits_for_every_model(halves: Path, start: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    server = start(tmp_path / "empty")
    server.wait_for("serving model")
    health = health_pb2_grpc.HealthStub(server.channel)

    def status() -> int:
        return int(health.Check(health_pb2.HealthCheckRequest()).status)

    until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    shutil.copytree(halves / "two", tmp_path / "empty" / "1")
    until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)


def test_a_configuration_file_that_changes(halves: Path, start: Any, tmp_path: Path) -> None:
    bases = {name: tmp_path / name for name in ("two", "three")}
    for name, base in bases.items():
        shutil.copytree(halves / name, base / "1")
    two, three = (
        f'name: "{name}" base_path: "{base}" model_platform: "tensorflow"'
        for name, base in bases.items()
    )
    file = tmp_path / "models.config"
    file.write_text(listing(two))
    server = start(None, f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=0.1")
    server.wait_for("loaded two version 1")

    def says(path: str) -> Any:
        status, body = server.predict({"instances": [0]}, f"/v1/models/{path}")
        return body["predictions"][0] if status == 200 else status

    file.write_text("model_config_list {")
    server.wait_for("is no text form of ModelServerConfig")
    assert says("two") == 2.0
    file.write_text(listing(two, three))
    until(lambda: says("three") == 3.0)
    file.write_text(listing(two, three + ' version_labels { key: "new" value: 2 }'))
    server.wait_for("Request to assign label to version 2 of model three")
    assert says("three/labels/new") == 400
    shutil.copytree(halves / "two", bases["three"] / "new")
    (bases["three"] / "new").rename(bases["three"] / "2")
    until(lambda: says("three/labels/new") == 2.0)  # it is tried again at every look
    file.write_text(listing(two))
    until(lambda: says("three") == 404)
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name="other", base_path=str(bases["three"]), model_platform="tensorflow"
    )
    assert server.models.HandleReloadConfigRequest(request).status.error_code == 0
    server.wait_for("unloaded two version 1")
    until(lambda: (says("two"), says("other")) == (2.0, 404))  # the file is back at the next look
