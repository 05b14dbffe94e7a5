"""TF Serving's configuration files: text protobufs, of which the API package has only one kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

_FIELD = descriptor_pb2.FieldDescriptorProto
_WRAPPED_INT = ".google.protobuf.Int64Value"
_PACKAGE = "tfrec.serving"

# Names as TF Serving has them, and in text only those count; kind is a type, or a message's name.
_MESSAGES: dict[str, list[tuple[str, int, Any]]] = {
    "BatchingParameters": [
        ("max_batch_size", 1, _WRAPPED_INT),
        ("batch_timeout_micros", 2, _WRAPPED_INT),
        ("max_enqueued_batches", 3, _WRAPPED_INT),
        ("num_batch_threads", 4, _WRAPPED_INT),
        ("thread_pool_name", 5, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, [_FIELD.TYPE_INT64]),
        ("pad_variable_length_inputs", 7, _FIELD.TYPE_BOOL),
        ("enable_large_batch_splitting", 8, ".google.protobuf.BoolValue"),
        ("max_execution_batch_size", 9, _WRAPPED_INT),
    ],
    "PrometheusConfig": [("enable", 1, _FIELD.TYPE_BOOL), ("path", 2, _FIELD.TYPE_STRING)],
    "MonitoringConfig": [("prometheus_config", 1, f".{_PACKAGE}.PrometheusConfig")],
    "SSLConfig": [
        ("server_key", 1, _FIELD.TYPE_STRING),
        ("server_cert", 2, _FIELD.TYPE_STRING),
        ("custom_ca", 3, _FIELD.TYPE_STRING),
        ("client_verify", 4, _FIELD.TYPE_BOOL),
    ],
}


class ConfigError(Exception):
    """A configuration that cannot be used; the message names it and says what would be right."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfrec/serving/config.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = described.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if isinstance(kind, list):
                field.label, kind = _FIELD.LABEL_REPEATED, kind[0]
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    names = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES}
    return {name: message_factory.GetMessageClass(found) for name, found in names.items()}


_CLASSES = _classes()


def read_models(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """A `--model_config_file`.

    Raises:
        ConfigError: the file cannot be read or is none of this kind.
    """
    return _read(path, model_server_config_pb2.ModelServerConfig())


def read_batching(path: Path) -> Any:
    """A `--batching_parameters_file`.

    Raises:
        ConfigError: the file cannot be read or is none of this kind.
    """
    return _read(path, _CLASSES["BatchingParameters"]())


def read_monitoring(path: Path) -> Any:
    """The `prometheus_config` of a `--monitoring_config_file`.

    Raises:
        ConfigError: the file cannot be read or is none of this kind.
    """
    return _read(path, _CLASSES["MonitoringConfig"]()).prometheus_config


def read_ssl(path: Path) -> Any:
    """A `--ssl_config_file`.

    Raises:
        ConfigError: the file cannot be read, is none of this kind, or lacks key or certificate.
    """
    config = _read(path, _CLASSES["SSLConfig"]())
    if not (config.server_key and config.server_cert):
        raise ConfigError(f"{path}: server_key and server_cert are both needed, as PEM text")
    return config


def _read(path: Path, message: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(), message)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise ConfigError(f"{path} is no text form of {kind}: {error}") from None
