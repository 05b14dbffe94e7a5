"""Configurations: of several models, of metrics, TLS and batching; and how they change."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from serving.batching import BatchingParameters
from serving.config_files import (
    ConfigError,
    read_batching,
    read_models,
    read_monitoring,
    read_ssl,
)
from serving.errors import ServingError
from serving.models import checked
from tests.serving.process import DEADLINE, Server, free_port, until
from tests.serving.saved_models import predict_request

Start = Callable[..., Server]
HALF = {"instances": [0]}
TENSORFLOW = 'model_platform: "tensorflow"'


def listed(models: dict[str, Path], more: str = "") -> str:
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{path}" {more or TENSORFLOW} }}\n'
        for name, path in models.items()
    )
    return f"model_config_list {{ {entries} }}"


@pytest.fixture
def bases(halves: Path, tmp_path: Path) -> dict[str, Path]:
    """Base paths of two models, `two` and `three`."""
    for name in ("two", "three"):
        shutil.copytree(halves / name, tmp_path / name / "1")
    return {name: tmp_path / name for name in ("two", "three")}


def says(server: Server, model: str) -> Any:
    status, body = server.predict(HALF, f"/v1/models/{model}")
    return body["predictions"][0] if status == 200 else status


def reload(server: Server, models: dict[str, Path], more: str = "") -> Any:
    config = text_format.Parse(listed(models, more), model_server_config_pb2.ModelServerConfig())
    request = model_management_pb2.ReloadConfigRequest(config=config)
    return server.models.HandleReloadConfigRequest(request, timeout=DEADLINE)


def test_reload_by_request(bases: dict[str, Path], start: Start, tmp_path: Path) -> None:
    server = start(bases["two"])
    server.wait_for("loaded model version 1")
    assert reload(server, bases).status.error_code == 0
    assert (says(server, "two"), says(server, "three"), says(server, "model")) == (2.0, 3.0, 404)
    label = 'version_labels { key: "stable" value: 1 }'
    reload(server, {"two": bases["two"]}, f"{TENSORFLOW} {label}")
    assert says(server, "two/labels/stable") == 2.0
    assert says(server, "three") == 404
    state = server.call("GET", "/v1/models/three")[1]["model_version_status"][0]["state"]
    assert state == "END"

    with pytest.raises(grpc.RpcError) as raised:
        label = 'version_labels { key: "new" value: 9 }'
        reload(server, {"two": bases["two"]}, f"{TENSORFLOW} {label}")
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "not currently available for inference" in raised.value.details()
    with pytest.raises(grpc.RpcError) as raised:
        reload(server, {"two": bases["two"], "gone": tmp_path / "gone"})
    assert raised.value.code() == grpc.StatusCode.UNKNOWN
    assert raised.value.details() == "Some models did not become available: {gone}"
    with pytest.raises(grpc.RpcError) as raised:
        reload(server, {"two": bases["two"]}, 'model_platform: "other"')
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as raised:
        server.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says(server, "two") == 2.0


def test_a_configuration_file_that_changes(
    bases: dict[str, Path], start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "models.config"
    file.write_text(listed({"two": bases["two"]}))
    server = start(None, f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=0.1")
    server.wait_for("loaded two version 1")
    file.write_text("model_config_list {")
    server.wait_for("is no text form of ModelServerConfig")
    assert says(server, "two") == 2.0
    file.write_text(listed(bases))
    until(lambda: says(server, "three") == 3.0)


def _models(path: Path) -> None:
    checked(read_models(path))


def _batching(path: Path) -> None:
    BatchingParameters.of(read_batching(path))


@pytest.mark.parametrize(
    ("read", "text", "error"),
    [
        (_models, "model {", "is no text form of ModelServerConfig"),
        (_models, 'model_config_list { config { name: "a" } }', "Illegal setting"),
        (
            _models,
            'model_config_list { config { name: "a" base_path: "/b" model_platform: "caffe" } }',
            "Model a requests unsupported platform caffe",
        ),
        (_models, "custom_model_config {}", "does not yet support custom"),
        (_batching, "max_batch_size: 3", "is no text form of Batching"),
        (
            _batching,
            "max_batch_size { value: 0 }",
            "max_batch_size cannot be 0",
        ),
        (
            _batching,
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "the last of allowed_batch_sizes, 4, should be max_batch_size, 8",
        ),
        (
            _batching,
            "allowed_batch_sizes: 4 allowed_batch_sizes: 2",
            "allowed_batch_sizes should increase",
        ),
        (read_monitoring, "prometheus {}", "is no text form of MonitoringConfig"),
        (read_ssl, 'server_key: "a"', "server_key and server_cert are both needed"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, read: Any, text: str, error: str) -> None:
    file = tmp_path / "file.config"
    file.write_text(text)
    with pytest.raises((ConfigError, ServingError)) as raised:
        read(file)
    assert error in str(raised.value)


def test_a_file_that_cannot_be_ends_the_command(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model {")
    command = [sys.executable, "-m", "serving.server", f"--port={free_port()}"]
    command.append(f"--model_config_file={file}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert f"Error: {file} is no text form of ModelServerConfig" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "give one of --model_base_path and --model_config_file"),
        (["--batching_parameters_file=FILE"], "--batching_parameters_file needs --enable_batching"),
        (["--monitoring_config_file=FILE"], "--monitoring_config_file needs --rest_api_port"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path: Path, flags: list[str], error: str) -> None:
    file = tmp_path / "file"
    file.touch()
    given = [flag.replace("FILE", str(file)) for flag in flags]
    given += [f"--model_base_path={tmp_path}"] if flags else []
    command = [sys.executable, "-m", "serving.server", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert error in done.stderr


def page(server: Server, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}{path}") as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        return str(reply.read().decode())


def test_metrics(everything: Path, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "monitoring.config"
    file.write_text('prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }')
    server = start(everything, f"--monitoring_config_file={file}")
    server.wait_for("loaded model version 7")
    assert server.predict({"instances": [1]})[0] == 200
    assert server.predict({"instances": ["a"]})[0] == 400
    assert server.predict({"instances": [1]}, "/v1/models/other")[0] == 404
    server.predictions.Predict(predict_request({"x": np.zeros(1, np.float32)}))
    text = page(server, "/monitoring/prometheus/metrics")
    assert "# TYPE :tensorflow:serving:request_count counter" in text
    assert ':tensorflow:serving:request_count{model_name="model",status="OK"} 2' in text
    assert 'request_count{model_name="model",status="INVALID_ARGUMENT"} 1' in text
    assert "other" not in text
    for entry in ('API="predict",entrypoint="REST"', 'API="Predict",entrypoint="GRPC"'):
        labels = f'model_name="model",{entry}'
        assert f":tensorflow:serving:request_latency_count{{{labels}}} 1" in text
        assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} 1' in text
    buckets = re.findall(r'runtime_latency_bucket{.*le="([^"]+)"} (\d+)', text)
    assert [float(bound) for bound, _ in buckets[:3]] == [10, 18, 32.4]
    assert len(buckets) == 33
    counts = [int(count) for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == 2


def test_no_metrics_unless_asked_for(everything: Path, start: Start) -> None:
    server = start(everything)
    server.wait_for("serving model")
    assert server.call("GET", "/monitoring/prometheus/metrics")[0] == 404


def test_health_and_reflection(halves: Path, start: Start, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    server = start(base)
    server.wait_for("serving model")
    health = health_pb2_grpc.HealthStub(server.channel)

    def status() -> int:
        return int(health.Check(health_pb2.HealthCheckRequest()).status)

    until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    shutil.copytree(halves / "two", base / "1")
    until(lambda: status() == health_pb2.HealthCheckResponse.SERVING)

    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="tensorflow.serving.PredictionService"
        ),
    ]
    services, file = stub.ServerReflectionInfo(iter(asked))
    names = {service.name for service in services.list_services_response.service}
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= names
    assert b"MultiInference" in file.file_descriptor_response.file_descriptor_proto[0]


def test_a_unix_socket(everything: Path, start: Start, tmp_path: Path) -> None:
    server = start(everything, f"--grpc_socket_path={tmp_path / 'socket'}")
    server.wait_for("loaded model version 7")
    with grpc.insecure_channel(f"unix:{tmp_path / 'socket'}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reply = stub.Predict(predict_request({"x": np.ones(1, np.float32)}))
    assert list(reply.outputs["y"].float_val) == [2.5]


def certificate(name: str) -> tuple[str, str]:
    """Key and certificate as PEM, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    tomorrow = now + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, tomorrow)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
    )
    authority = x509.BasicConstraints(ca=True, path_length=None)
    built = builder.add_extension(authority, critical=True).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    none = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    return private.decode(), built.public_bytes(pem).decode()


def test_tls_of_both_sides(everything: Path, start: Start, tmp_path: Path) -> None:
    key, cert = certificate("localhost")
    client_key, client_cert = certificate("client")
    file = tmp_path / "ssl.config"
    texts = {"server_key": key, "server_cert": cert, "custom_ca": client_cert}
    lines = [f"{name}: {json.dumps(text)}" for name, text in texts.items()]
    file.write_text("\n".join([*lines, "client_verify: true"]))
    server = start(everything, f"--ssl_config_file={file}")
    server.wait_for("loaded model version 7")

    def ask(*of_client: bytes) -> list[float]:
        credentials = grpc.ssl_channel_credentials(cert.encode(), *of_client)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_request({"x": np.ones(1, np.float32)})
            return list(stub.Predict(request, timeout=10).outputs["y"].float_val)

    assert ask(client_key.encode(), client_cert.encode()) == [2.5]
    with pytest.raises(grpc.RpcError):
        ask()
    with pytest.raises(grpc.RpcError):
        server.predictions.Predict(predict_request({"x": np.ones(1, np.float32)}), timeout=10)
