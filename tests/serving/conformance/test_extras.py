"""What the embedded server has beside TF Serving's API: health and reflection."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.serving.conformance.test_grpc import Status, error_of
from tests.serving.process import Address, until

pytestmark = pytest.mark.embedded


def test_health(server: Address) -> None:
    stub = health_pb2_grpc.HealthStub(server.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    until(lambda: stub.Check(health_pb2.HealthCheckRequest()).status == serving)
    request = health_pb2.HealthCheckRequest(service="no.such.Service")
    error_of(Status.NOT_FOUND, stub.Check, request)


def reflected(server: Address, **request: str) -> reflection_pb2.ServerReflectionResponse:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = reflection_pb2.ServerReflectionRequest(**request)
    (reply,) = stub.ServerReflectionInfo(iter([asked]))
    return reply


def test_reflection(server: Address) -> None:
    services = reflected(server, list_services="").list_services_response.service
    assert {one.name for one in services} >= {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    }
    reply = reflected(server, file_containing_symbol="tensorflow.serving.PredictionService")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(text)
        for text in reply.file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for service in file.service for m in service.method}
    assert {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"} <= methods
