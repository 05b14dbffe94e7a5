"""TF Serving's gRPC API, from the client's side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from serving.client import errors
from serving.client.protos import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServiceStub,
    ModelSpec,
    PredictionServiceStub,
    PredictRequest,
    SignatureDefMap,
)
from serving.client.signatures import (
    Metadata,
    Signature,
    VersionStatus,
    signatures_of,
    statuses_of,
)
from serving.client.tensors import Array, to_array, to_proto
from serving.client.transport import Async, Blocking, Target, Tls

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    # gRPC answers UNAVAILABLE until its own wait is over: no longer than the client's pauses.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Grpc:
    """Requests are pairs of a method's name and a message.

    Args:
        address: host:port.
        tls: how to encrypt, if at all.
    """

    module: Any

    def __init__(self, address: str, tls: Tls | None) -> None:
        self.address = address
        self._credentials: grpc.ChannelCredentials | None = None
        if tls:
            roots = tls.roots.read_bytes() if tls.roots else None
            own = [file.read_bytes() for file in tls.certificate or ()]
            chain, key = own or (None, None)
            self._credentials = grpc.ssl_channel_credentials(roots, key, chain)
        self._channel: Any = None
        self._methods: dict[str, Any] = {}

    def predict(
        self, target: Target, name: str, signature: Signature, inputs: Mapping[str, Array]
    ) -> Any:
        request = PredictRequest(model_spec=_spec(target))
        request.model_spec.signature_name = name
        for key, array in inputs.items():
            request.inputs[key].CopyFrom(to_proto(array, signature.inputs[key].dtype))
        return "Predict", request

    def metadata(self, target: Target) -> Any:
        return "GetModelMetadata", GetModelMetadataRequest(
            model_spec=_spec(target), metadata_field=["signature_def"]
        )

    def status(self, target: Target) -> Any:
        return "GetModelStatus", GetModelStatusRequest(model_spec=_spec(target))

    def read_predict(self, reply: Any, signature: Signature) -> dict[str, Array]:
        return {name: to_array(reply.outputs[name]) for name in sorted(reply.outputs)}

    def read_metadata(self, reply: Any) -> Metadata:
        message = SignatureDefMap()
        reply.metadata["signature_def"].Unpack(message)
        return Metadata(reply.model_spec.version.value, signatures_of(message))

    def read_status(self, reply: Any) -> list[VersionStatus]:
        return statuses_of(reply)

    def method(self, name: str) -> Any:
        """One of the two services; the connection is made with the first one."""
        if not self._methods:
            self._channel = self._connected()
            predictions = PredictionServiceStub(self._channel)
            self._methods = {
                "Predict": predictions.Predict,
                "GetModelMetadata": predictions.GetModelMetadata,
                "GetModelStatus": ModelServiceStub(self._channel).GetModelStatus,
            }
        return self._methods[name]

    def _connected(self) -> Any:
        if self._credentials is None:
            return self.module.insecure_channel(self.address, _OPTIONS)
        return self.module.secure_channel(self.address, self._credentials, _OPTIONS)


class BlockingGrpc(Grpc, Blocking):
    """For `Client`."""

    module = grpc

    def __init__(self, address: str, tls: Tls | None) -> None:
        super().__init__(address, tls)
        self.method("Predict")  # now, and not in two threads at once

    async def send(self, request: Any, timeout: float) -> Any:
        name, message = request
        try:
            return self.method(name)(message, timeout=timeout)
        except grpc.RpcError as error:
            raise _error(error) from None

    async def close(self) -> None:
        self._channel.close()


class AsyncGrpc(Grpc, Async):
    """For `AsyncClient`."""

    module = grpc.aio

    async def send(self, request: Any, timeout: float) -> Any:
        name, message = request
        try:
            return await self.method(name)(message, timeout=timeout)
        except grpc.RpcError as error:
            raise _error(error) from None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


def _spec(target: Target) -> ModelSpec:
    spec = ModelSpec(name=target.model)
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label
    return spec


def _error(error: Any) -> errors.ClientError:
    return errors.of_code(error.code().value[0], error.details() or error.code().name)
