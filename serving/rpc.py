"""TF Serving's gRPC API."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from math import prod
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.errors import Code, ServingError, invalid
from serving.models import DEFAULT_SIGNATURE, Models, Servable, VersionStatus

MAX_MESSAGE = 64 * 2**20

log = logging.getLogger("serving")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def server(models: Models, executor: Executor) -> grpc.aio.Server:
    """The gRPC server, without a port yet.

    Args:
        models: that it serves.
        executor: where signatures run.
    """
    result = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.so_reuseport", 0),  # a port in use is an error
        ]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(models, executor), result
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), result)
    return result


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, models: Models, executor: Executor) -> None:
        self.models, self.executor = models, executor

    async def Predict(self, request: Any, context: Any) -> predict_pb2.PredictResponse:
        try:
            work = asyncio.get_running_loop().run_in_executor(self.executor, self._predict, request)
            return await asyncio.wait_for(work, context.time_remaining())
        except ServingError as error:
            await _abort(context, error)
        except TimeoutError:
            await _abort(context, ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded"))
        except Exception:  # whatever it is, the client reads no more of it
            log.exception("Predict")
            await _abort(context, ServingError(Code.INTERNAL, "Internal error"))
        raise AssertionError("abort raises")

    async def GetModelMetadata(
        self, request: Any, context: Any
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        try:
            return self._metadata(request)
        except ServingError as error:
            await _abort(context, error)
        raise AssertionError("abort raises")

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        number, servable = _find(self.models, request.model_spec)
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature not in servable.signature_defs:
            raise ServingError(
                Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
            )
        wanted = _filtered(list(request.output_filter), servable.signature_defs[signature])
        outputs = servable.run(
            signature, {name: _array(name, value) for name, value in request.inputs.items()}
        )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = number
        response.model_spec.signature_name = signature
        for name in wanted:
            response.outputs[name].CopyFrom(_proto(outputs[name]))
        return response

    def _metadata(self, request: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        number, servable = _find(self.models, request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = number
        response.metadata["signature_def"].Pack(signature_map(servable))
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, models: Models) -> None:
        self.models = models

    async def GetModelStatus(
        self, request: Any, context: Any
    ) -> get_model_status_pb2.GetModelStatusResponse:
        spec = request.model_spec
        try:
            if not spec.name:
                raise invalid("Missing ModelSpec")
            version = spec.version.value if spec.HasField("version") else None
            return status_response(self.models.statuses(spec.name, version))
        except ServingError as error:
            await _abort(context, error)
        raise AssertionError("abort raises")


def signature_map(servable: Servable) -> get_model_metadata_pb2.SignatureDefMap:
    """Signatures of a loaded version."""
    result = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        result.signature_def[name].CopyFrom(definition)
    return result


def status_response(
    statuses: dict[int, VersionStatus],
) -> get_model_status_pb2.GetModelStatusResponse:
    """States of versions as TF Serving reports them."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, status in statuses.items():
        entry = response.model_version_status.add(version=version, state=status.state)
        entry.status.error_code = int(status.code)
        entry.status.error_message = status.message
    return response


def _find(models: Models, spec: Any) -> tuple[int, Servable]:
    if not spec.name:
        raise invalid("Missing ModelSpec")
    return models.get(spec.name, spec.version.value if spec.HasField("version") else None)


def _filtered(names: list[str], definition: Any) -> list[str]:
    for name in names:
        if name not in definition.outputs:
            raise invalid(f"output tensor alias not found in signature: {name}")
        if names.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(definition.outputs)


def _array(name: str, value: tensor_pb2.TensorProto) -> Any:
    sizes = [dimension.size for dimension in value.tensor_shape.dim]
    # Fewer values than elements are legal, so a few bytes could ask for all memory.
    if value.tensor_shape.unknown_rank or min(sizes, default=0) < 0 or prod(sizes) > MAX_MESSAGE:
        raise invalid(f"tensor parsing error: {name}")
    try:
        return tf.make_ndarray(value)
    except (TypeError, ValueError) as error:
        raise invalid(f"input {name}: {str(error).splitlines()[0]}") from None


def _proto(array: np.ndarray[Any, Any]) -> tensor_pb2.TensorProto:
    """With the values in the field of their type, where clients of TF Serving look for them."""
    dtype = tf.string if array.dtype.kind == "O" else tf.dtypes.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    result = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    result.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    getattr(result, _FIELDS[dtype]).extend(array.ravel().tolist())
    return result


async def _abort(context: Any, error: ServingError) -> None:
    await context.abort(_STATUS[int(error.code)], error.message)
