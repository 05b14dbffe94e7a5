"""TF Serving's gRPC API, with the standard services for health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving import inference, tensor_proto
from serving.deadline import QUIET_SECONDS, Deadline, until_quiet
from serving.errors import ServingError, invalid
from serving.health import Health
from serving.requests import Requests
from serving.runner import SMALL_REPLY, SMALL_REQUEST, values_of

log = logging.getLogger("serving")

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_SERVICES = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
)
for _name in ("prediction_service_pb2", "model_service_pb2"):
    # They describe the services to reflection, then set what today's protobuf does not let them.
    with contextlib.suppress(AttributeError):
        importlib.import_module(f"tensorflow_serving.apis.{_name}")


def server(
    requests: Requests, timeout: float, arguments: Sequence[tuple[str, int | str]] = ()
) -> tuple[Server, Health]:
    """The gRPC server, without a port yet, and what it tells of its health.

    Args:
        requests: that answers.
        timeout: seconds before a prediction ends with DEADLINE_EXCEEDED, if not its client's.
        arguments: of gRPC's core; they do not change the limits.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)
    result = grpc.aio.server(
        # Those that wait or run, and as many whose messages are still on their way.
        maximum_concurrent_rpcs=2 * requests.runner.limit,
        options=[
            *arguments,
            ("grpc.max_receive_message_length", inference.MAX_BYTES),
            ("grpc.max_send_message_length", inference.MAX_BYTES),
            ("grpc.so_reuseport", 0),  # a port in use is an error
        ],
    )
    services: Any = _Parsing()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(requests, timeout), services
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(requests), services)
    result.add_generic_rpc_handlers([services])
    health = Health()
    health_pb2_grpc.add_HealthServicer_to_server(health, result)
    names = [*_SERVICES, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, result)
    return Server(result, services), health


def _is_ours(record: logging.LogRecord) -> bool:
    """Not of a client that gives up just as it is told of an error."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


class Server:
    """A gRPC server that answers, when it ends, whoever has asked by then.

    gRPC gives its requests to Python one by one, and when it stops, those that still wait for that
    end with CANCELLED, which clients do not try again. So before it stops, all of them are taken:
    for a moment as ever, then with UNAVAILABLE, until none comes any more.
    """

    def __init__(self, server: grpc.aio.Server, services: _Parsing) -> None:
        self._server, self._services = server, services
        self.add_insecure_port = server.add_insecure_port
        self.add_secure_port = server.add_secure_port
        self.start = server.start

    async def stop(self, grace: float) -> None:
        """Ends it.

        Args:
            grace: seconds that requests have to end.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.sleep(QUIET_SECONDS)
                self._services.refusing = True
                await until_quiet(lambda: self._services.refused)
        await self._server.stop(max(end - loop.time(), 0))


class _Parsing(grpc.GenericRpcHandler):
    """Services whose requests end with INTERNAL if they cannot be parsed, as in gRPC of C++.

    And with UNAVAILABLE where they would take too much memory, all together. Of what cannot
    be parsed, Python's gRPC says UNKNOWN, and logs a traceback whenever a client wants one. This is
    no interceptor, since that would run for every request.
    """

    def __init__(self) -> None:
        self._services: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[str, Any] = {}
        self._held = 0  # bytes of requests
        self.refusing, self.refused = False, 0

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Takes services as a server does."""
        self._services += handlers

    def service(self, handler_call_details: Any) -> Any:
        """What answers a method, as gRPC asks for it; None for those of other services."""
        method = handler_call_details.method
        if method not in self._handlers:
            found = [service.service(handler_call_details) for service in self._services]
            handler = next(filter(None, found), None)
            if handler is None:
                return None
            self._handlers[method] = self._parsing(handler)
        return self._handlers[method]

    def _parsing(self, handler: Any) -> Any:
        def parsed(message: bytes) -> tuple[Any, int]:
            try:
                return handler.request_deserializer(message), len(message)
            except DecodeError:
                return None, 0

        async def answer(given: tuple[Any, int], context: Any) -> Any:
            request, size = given
            if self.refusing:
                self.refused += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
            if request is None:
                await context.abort(grpc.StatusCode.INTERNAL, "The request cannot be parsed")
            if self._held + size > inference.MAX_TOGETHER:
                await context.abort(grpc.StatusCode.UNAVAILABLE, inference.TOO_MUCH)
            self._held += size
            try:
                return await handler.unary_unary(request, context)
            finally:
                self._held -= size

        return grpc.unary_unary_rpc_method_handler(answer, parsed, handler.response_serializer)


async def _answer(context: Any, name: str, work: Awaitable[Any]) -> Any:
    """What the work gives, or the error that it ends with, as gRPC tells it."""
    try:
        return await work
    except ServingError as error:
        await context.abort(_STATUS[int(error.code)], error.message)
    except Exception:  # whatever it is, the client reads no more of it
        log.exception(name)
        await context.abort(grpc.StatusCode.INTERNAL, "Internal error")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    def __init__(self, requests: Requests, timeout: float) -> None:
        self.requests, self.timeout = requests, timeout

    async def Predict(self, request: Any, context: Any) -> predict_pb2.PredictResponse:
        return await self._counted("Predict", request, context, self._predict)

    async def Classify(
        self, request: Any, context: Any
    ) -> classification_pb2.ClassificationResponse:
        return await self._counted("Classify", request, context, self._infer)

    async def Regress(self, request: Any, context: Any) -> regression_pb2.RegressionResponse:
        return await self._counted("Regress", request, context, self._infer)

    async def MultiInference(
        self, request: Any, context: Any
    ) -> inference_pb2.MultiInferenceResponse:
        return await self._counted("MultiInference", request, context, self._infer)

    async def GetModelMetadata(
        self, request: Any, context: Any
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        return await _answer(context, "GetModelMetadata", self._metadata(request))

    async def _counted(
        self,
        name: str,
        request: Any,
        context: Any,
        function: Callable[[ModelSpec, Any, float], Awaitable[Any]],
    ) -> Any:
        patience = context.time_remaining()
        timeout = self.timeout if patience is None else min(patience, self.timeout)

        async def counted() -> Any:
            spec = _spec(request)
            with self.requests.counted(spec.name, name, "GRPC"):
                return await function(spec, request, timeout)

        return await _answer(context, name, counted())

    async def _predict(
        self, spec: ModelSpec, request: predict_pb2.PredictRequest, timeout: float
    ) -> predict_pb2.PredictResponse:
        version, servable = self.requests.models.get(spec)
        signature = spec.signature_name or inference.DEFAULT_SIGNATURE
        wanted = _filtered(list(request.output_filter), servable.definition(signature))
        deadline, convert = Deadline(timeout), self.requests.runner.convert
        inputs = await convert(
            lambda: tensor_proto.arrays(request.inputs, deadline),
            deadline,
            request.ByteSize() <= SMALL_REQUEST,
        )
        outputs = await self.requests.predict(
            spec.name, servable, signature, inputs, deadline.left()
        )

        def response() -> predict_pb2.PredictResponse:
            result = predict_pb2.PredictResponse(
                model_spec=_resolved(spec.name, signature, version)
            )
            for name in wanted:
                result.outputs[name].CopyFrom(tensor_proto.tensor(outputs[name], deadline))
            return result

        small = values_of(outputs[name] for name in wanted) <= SMALL_REPLY
        return await convert(response, deadline, small)

    async def _infer(self, spec: ModelSpec, request: Any, timeout: float) -> Any:
        version, servable = self.requests.models.get(spec)
        tasks = inference.tasks(request)
        deadline, convert = Deadline(timeout), self.requests.runner.convert
        examples = await convert(
            lambda: inference.examples(request.input),
            deadline,
            request.ByteSize() <= SMALL_REQUEST,
        )
        results = await self.requests.infer(spec.name, servable, tasks, examples, deadline)
        return await convert(
            lambda: _inferred(spec.name, version, request, tasks, results),
            deadline,
            sum(map(inference.Task.size, tasks, results)) <= SMALL_REPLY,
        )

    async def _metadata(self, request: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
        spec = _spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        return self.requests.metadata(spec)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests

    async def GetModelStatus(
        self, request: Any, context: Any
    ) -> get_model_status_pb2.GetModelStatusResponse:
        async def status() -> get_model_status_pb2.GetModelStatusResponse:
            return self.requests.status(_spec(request))

        return await _answer(context, "GetModelStatus", status())

    async def HandleReloadConfigRequest(
        self, request: Any, context: Any
    ) -> model_management_pb2.ReloadConfigResponse:
        async def reload() -> model_management_pb2.ReloadConfigResponse:
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                    "ModelConfigList is currently supported"
                )
            await asyncio.to_thread(self.requests.models.apply, request.config)
            return model_management_pb2.ReloadConfigResponse(status={})

        return await _answer(context, "HandleReloadConfigRequest", reload())


def _spec(request: Any) -> ModelSpec:
    """What a request is for.

    Raises:
        ServingError: INVALID_ARGUMENT, it does not say.
    """
    if isinstance(request, inference_pb2.MultiInferenceRequest):
        return request.tasks[0].model_spec if request.tasks else ModelSpec()
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _resolved(name: str, signature: str, version: int) -> ModelSpec:
    return ModelSpec(name=name, signature_name=signature, version={"value": version})


def _inferred(
    model: str, version: int, request: Any, tasks: list[inference.Task], results: list[list[Any]]
) -> Any:
    """The reply to Classify, Regress or MultiInference."""
    if isinstance(request, classification_pb2.ClassificationRequest):
        response: Any = classification_pb2.ClassificationResponse()
    elif isinstance(request, regression_pb2.RegressionRequest):
        response = regression_pb2.RegressionResponse()
    else:
        response = inference_pb2.MultiInferenceResponse()
    for task, found in zip(tasks, results, strict=True):
        resolved = _resolved(model, task.name or inference.DEFAULT_SIGNATURE, version)
        if isinstance(response, inference_pb2.MultiInferenceResponse):
            entry = response.results.add(model_spec=resolved)
            classified, regressed = entry.classification_result, entry.regression_result
        else:
            response.model_spec.CopyFrom(resolved)
            classified = regressed = response.result
        if task.method == inference.CLASSIFY:
            for row in found:
                classes = classified.classifications.add().classes
                for label, score in row:
                    classes.add(label=label.decode(errors="replace"), score=score)
        else:
            for value in found:
                regressed.regressions.add(value=value)
    return response


def _filtered(names: list[str], definition: Any) -> list[str]:
    for name in names:
        if name not in definition.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(sorted(definition.outputs))}}}."
            )
        if names.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or list(definition.outputs)
