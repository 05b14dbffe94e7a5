"""The container files: well-formed, and of one mind about names, ports, paths and sizes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

import serving
from tfrec.servable import WARM_UP_BATCHES

HERE = Path(serving.__file__).parent
DOCKER, KUBERNETES = HERE / "docker", HERE / "kubernetes"
Field = descriptor_pb2.FieldDescriptorProto


def message(name: str, fields: dict[str, Any]) -> descriptor_pb2.DescriptorProto:
    """Fields are of a scalar type, a list of one, or a message by its name."""
    made = descriptor_pb2.DescriptorProto(name=name)
    for number, (field, kind) in enumerate(fields.items(), 1):
        many = isinstance(kind, list)
        added = made.field.add(name=field, number=number)
        added.label = Field.LABEL_REPEATED if many else Field.LABEL_OPTIONAL
        if isinstance(kind, str):
            added.type, added.type_name = Field.TYPE_MESSAGE, f".test.{kind}"
        else:
            added.type = kind[0] if many else kind
    return made


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """Messages of TF Serving that its Python package lacks, as far as they are used here."""
    numbers = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches")
    batching = {
        **dict.fromkeys((*numbers, "num_batch_threads"), "Int64Value"),
        "allowed_batch_sizes": [Field.TYPE_INT64],
        "pad_variable_length_inputs": Field.TYPE_BOOL,
    }
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
    prometheus = {"enable": Field.TYPE_BOOL, "path": Field.TYPE_STRING}
    file.message_type.extend(
        [
            message("Int64Value", {"value": Field.TYPE_INT64}),
            message("BatchingParameters", batching),
            message("PrometheusConfig", prometheus),
            message("MonitoringConfig", {"prometheus_config": "PrometheusConfig"}),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles(["test.proto"], pool)
    return {name.removeprefix("test."): made for name, made in found.items()}


def models(text: str) -> Any:
    """The one model of a ModelServerConfig."""
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return model


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.fixture(scope="module")
def config() -> Any:
    (found,) = documents("config.yaml")
    return found


@pytest.fixture(scope="module")
def deployment() -> Any:
    (found,) = documents("deployment.yaml")
    return found


@pytest.fixture(scope="module")
def container(deployment: Any) -> Any:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def flags(arguments: list[str]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


def both(compose: Any, container: Any) -> list[dict[str, str]]:
    """Flags of the server in compose, and in Kubernetes."""
    return [flags(compose["serving"]["command"]), flags(container["args"])]


def parsed(kind: Any, name: str) -> Any:
    return text_format.Parse((DOCKER / f"{name}.config").read_text(), kind())


def test_batches_are_of_sizes_that_are_allowed(messages: dict[str, Any]) -> None:
    batching = parsed(messages["BatchingParameters"], "batching")
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value >= max(WARM_UP_BATCHES)
    assert not batching.pad_variable_length_inputs
    for name in ("batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
        assert getattr(batching, name).value > 0


def test_metrics_are_where_prometheus_asks(
    messages: dict[str, Any], compose: Any, deployment: Any
) -> None:
    monitoring = parsed(messages["MonitoringConfig"], "monitoring").prometheus_config
    assert monitoring.enable
    (job,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    rest = flags(compose["serving"]["command"])["rest_api_port"]
    assert job["static_configs"] == [{"targets": [f"serving:{rest}"]}]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert job["metrics_path"] == annotations["prometheus.io/path"] == monitoring.path
    assert annotations["prometheus.io/port"] == rest
    (mounted,) = compose["prometheus"]["volumes"]
    assert mounted.split(":")[0] == "./prometheus.yml"


def test_the_models_are_where_they_are_mounted(
    compose: Any, config: Any, container: Any, deployment: Any
) -> None:
    mounts = dict(v.removesuffix(":ro").rsplit(":", 1)[::-1] for v in compose["serving"]["volumes"])
    served = models((DOCKER / "models.config").read_text())
    assert mounts[served.base_path] == "${EXPORT:-../../runs/wide_deep/export}"
    assert served.model_version_policy.latest.num_versions == 1
    assert mounts["/config"] == "."
    served = models(config["data"]["models.config"])
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[served.base_path]["readOnly"]
    volumes = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["volumes"]}
    (volume,) = documents("volume.yaml")
    claim = volumes[mounts[served.base_path]["name"]]["persistentVolumeClaim"]["claimName"]
    assert claim == volume["metadata"]["name"]
    assert volumes[mounts["/config"]["name"]]["configMap"]["name"] == config["metadata"]["name"]
    assert "subPath" not in mounts["/config"]


def test_files_that_flags_name_are_there(compose: Any, config: Any, container: Any) -> None:
    for given in both(compose, container):
        files = {value.removeprefix("/config/") for name, value in given.items() if "_file" in name}
        named = {file for file in files if file.endswith(".config")}
        assert named == {"models.config", "batching.config", "monitoring.config"}
        assert named == set(config["data"])
        assert all((DOCKER / file).is_file() for file in named)
        assert given["enable_batching"] == "true"


def test_both_join_requests_and_report_alike(config: Any, compose: Any, container: Any) -> None:
    for name in ("batching.config", "monitoring.config"):
        assert config["data"][name] == (DOCKER / name).read_text()
    image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", compose["serving"]["image"])
    assert container["image"] == image
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", image)


def test_ports_are_those_of_the_flags(compose: Any, container: Any) -> None:
    published = {port.rsplit(":", 1)[1] for port in compose["serving"]["ports"]}
    exposed = {port["name"]: port["containerPort"] for port in container["ports"]}
    for given in both(compose, container):
        assert published == {given["port"], given["rest_api_port"]}
        assert exposed == {"grpc": int(given["port"]), "rest": int(given["rest_api_port"])}
    assert all(port.startswith("127.0.0.1:") for port in compose["serving"]["ports"])
    assert compose["serving"]["healthcheck"]["test"][-1].endswith(f"/{exposed['rest']}")
    for service in documents("service.yaml"):
        for port in service["spec"]["ports"]:
            assert port["port"] == exposed[port["targetPort"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (asked,) = (
            container[probe][how] for how in ("httpGet", "tcpSocket") if how in container[probe]
        )
        assert asked["port"] in exposed


def test_a_pod_is_ready_when_the_label_that_clients_ask_for_is(config: Any, container: Any) -> None:
    served = models(config["data"]["models.config"])
    versions = list(served.model_version_policy.specific.versions)
    assert set(served.version_labels.values()) <= set(versions)
    path = f"/v1/models/{served.name}"
    assert container["startupProbe"]["httpGet"]["path"] == path
    assert container["readinessProbe"]["httpGet"]["path"] == f"{path}/labels/stable/metadata"
    assert "stable" in served.version_labels
    # Without it, no pod with labels in its configuration starts.
    assert flags(container["args"])["allow_version_labels_for_unavailable_models"] == "true"


def test_objects_find_one_another(deployment: Any) -> None:
    (autoscaler,) = documents("autoscaler.yaml")
    target = autoscaler["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    for service in documents("service.yaml"):
        assert service["spec"]["selector"] == labels


def test_resources_fit_what_runs(messages: dict[str, Any], container: Any, deployment: Any) -> None:
    given, resources = flags(container["args"]), container["resources"]
    cores = int(resources["requests"]["cpu"])
    for flag in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"):
        assert int(given[flag]) == cores
    assert parsed(messages["BatchingParameters"], "batching").num_batch_threads.value == cores
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    slept = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    longest = int(given["rest_api_timeout_in_ms"]) / 1000
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= slept + longest
