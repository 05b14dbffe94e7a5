"""TF Serving's REST API."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import unquote

from aiohttp import StreamReader, web
from aiohttp.http import HttpProcessingError
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving import inference, json_answer, json_examples, json_tensor
from serving.deadline import Deadline, until_quiet
from serving.errors import Code, ServingError, invalid
from serving.inference import Arrays
from serving.requests import Requests
from serving.runner import SMALL_REPLY, SMALL_REQUEST, values_of
from serving.servable import Servable
from serving.versions import MAX_VERSION

_VERSION = r"(?:/(?:versions/(?P<version>[0-9]+)|labels/(?P<label>[^/:]+)))?"
_CALL = re.compile(
    rf"(?i:/v1/models/(?P<name>[^/:]+){_VERSION}):(?P<verb>classify|regress|predict)"
)
_GET = re.compile(rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<part>metadata))?")

MAX_BODY = inference.MAX_BYTES
LINGERING_SECONDS = 2  # in which the rest of a refused body is read, so that its client sees why
WAITING = 128  # connections that the system keeps until they are taken
IDLE_SECONDS = 75  # of a connection without a request, or with half of one's headers

log = logging.getLogger("serving")

Handler = Callable[[web.Request], Coroutine[Any, Any, web.Response]]


def application(
    requests: Requests,
    timeout: float,
    metrics_path: str | None = None,
    pages: Iterable[web.RouteDef] = (),
) -> web.Application:
    """The REST application.

    Args:
        requests: that answers.
        timeout: seconds before a request is answered with DEADLINE_EXCEEDED.
        metrics_path: of the page for Prometheus, if there is to be one.
        pages: for people, beside the API.
    """
    api = _Api(requests, timeout)
    app = web.Application()
    app[_API] = api
    if metrics_path:
        app.router.add_get(metrics_path, api.metrics)
    app.router.add_routes(pages)
    app.router.add_route("*", r"/{path:[\s\S]*}", api.handle)  # lines may end in a path
    return app


def runner(app: web.Application, grace: float, idle: float = IDLE_SECONDS) -> web.AppRunner:
    """What runs the application; who hangs up has no more work done.

    Args:
        app: as `application` makes it.
        grace: seconds that requests have to end when the server does.
        idle: seconds after which a connection without a whole request is closed.
    """
    logger = logging.getLogger("serving.http")
    logger.addFilter(_is_ours)
    return web.AppRunner(
        app,
        logger=logger,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=idle,
        lingering_time=LINGERING_SECONDS,
        shutdown_timeout=grace,
    )


def _is_ours(record: logging.LogRecord) -> bool:
    """Not of a client that does not speak HTTP: it is told, and could fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


async def listen(runner: web.AppRunner, address: str, port: int) -> None:
    """Opens a port for an application.

    Args:
        runner: of the application, set up.
        address: of an interface of this machine.
        port: 0 for any.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family)
    # It is also how many connections asyncio takes at a time. Where there is no file left for one,
    # it logs a traceback and comes back a second later, and does both for each of them.
    await web.SockSite(runner, listener, backlog=1).start()
    listener.listen(WAITING)


async def end(runner: web.AppRunner) -> None:
    """Refuses connections, answers what comes over those that are open, and closes them.

    Without the answers' "Connection: close", requests that come meanwhile would be lost.

    Args:
        runner: of an application.
    """
    api = runner.app[_API]
    api.ending = True
    for site in list(runner.sites):
        await site.stop()
    await until_quiet(lambda: api.asked)
    await runner.cleanup()


class _Api:
    def __init__(self, requests: Requests, timeout: float) -> None:
        self.requests, self.timeout = requests, timeout
        self.asked, self.ending = 0, False
        self._held = 0  # bytes of bodies

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        response = await self._response(request)
        if self.ending:
            response.force_close()
        # A client that does not read would hold the body for ever.
        patience = asyncio.get_running_loop().call_later(self.timeout, _hang_up, request)
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:  # the client has hung up, which aiohttp would log with a traceback
            pass
        finally:
            patience.cancel()
        return response

    async def _response(self, request: web.Request) -> web.Response:
        try:
            path = request.rel_url.raw_path
            if not path.lower().startswith("/v1/"):
                return _error(404, "Not Found")
            return _json(200, await self._answer(request, path))
        except ServingError as error:
            return _error(error.http_status, error.message)
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"The request body is larger than {MAX_BODY} bytes")
        except web.RequestPayloadError:
            return _error(400, "Malformed request: its body cannot be decoded")
        except TimeoutError:
            return _error(504, "Timed out")
        except Exception:  # whatever it is, the client reads no more of it
            log.exception("%s %s", request.method, request.rel_url.raw_path)
            return _error(500, "Internal error")

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.requests.metrics.text())

    async def _answer(self, request: web.Request, path: str) -> bytes:
        deadline = Deadline(self.timeout)
        malformed = invalid(f"Malformed request: {request.method} {path}")
        call = _CALL.fullmatch(path)
        if request.method == "POST" and call:
            spec, verb = _spec(call), call["verb"]
            if not verb.islower():  # as TF Serving, which heeds case here alone
                raise malformed
            body = bytearray()
            try:
                await self._read(request.content, body)
                with self.requests.counted(spec.name, verb, "REST"):
                    if verb == "predict":
                        return await self._predict(spec, body, deadline)
                    return await self._infer(spec, verb, body, deadline)
            finally:
                self._held -= len(body)
        get = _GET.fullmatch(path)
        if request.method == "GET" and get:
            if not get["name"]:
                raise invalid("Missing model name in request.")
            if get["part"] == "metadata":  # TF Serving takes METADATA for the status
                return _metadata(self.requests.metadata(_spec(get)))
            return _proto_json(self.requests.status(_spec(get)))
        raise malformed

    async def _read(self, content: StreamReader, body: bytearray) -> None:
        if content.is_eof():  # most have come with their headers
            self._take(content.read_nowait(), body)
            return
        async with asyncio.timeout(self.timeout):  # what follows ends at the deadline by itself
            async for part in content.iter_any():
                self._take(part, body)

    def _take(self, part: bytes, body: bytearray) -> None:
        self._held += len(part)
        body += part
        if len(body) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(body))
        if self._held > inference.MAX_TOGETHER:
            raise ServingError(Code.UNAVAILABLE, inference.TOO_MUCH)

    async def _predict(self, spec: ModelSpec, body: bytearray, deadline: Deadline) -> bytes:
        convert = self.requests.runner.convert

        def read() -> tuple[Servable, str, Arrays, json_tensor.Format]:
            # At once: what is parsed takes 20 times the body, and should wait for nothing.
            request = json_tensor.parse_predict(body, deadline)
            _, servable = self.requests.models.get(spec)
            signature = request.signature or inference.DEFAULT_SIGNATURE
            if signature not in servable.signature_defs:
                raise invalid(f'Serving signature name: "{signature}" not found in signature def')
            infos = servable.signature_defs[signature].inputs
            return servable, signature, *json_tensor.tensors(request, infos, deadline)

        servable, signature, inputs, form = await convert(
            read, deadline, len(body) <= SMALL_REQUEST
        )
        outputs = await self.requests.predict(
            spec.name, servable, signature, inputs, deadline.left()
        )
        return await convert(
            lambda: json_answer.response(outputs, form, deadline),
            deadline,
            values_of(outputs.values()) <= SMALL_REPLY,
        )

    async def _infer(
        self, spec: ModelSpec, verb: str, body: bytearray, deadline: Deadline
    ) -> bytes:
        convert = self.requests.runner.convert
        signature, examples = await convert(
            lambda: json_examples.parse_examples(body, deadline),
            deadline,
            len(body) <= SMALL_REQUEST,
        )
        method = inference.CLASSIFY if verb == "classify" else inference.REGRESS
        task = inference.Task(signature, method)
        given = inference.serialized(examples)
        _, servable = self.requests.models.get(spec)
        (results,) = await self.requests.infer(spec.name, servable, [task], given, deadline)
        write = (
            json_examples.classify_response
            if verb == "classify"
            else json_examples.regress_response
        )
        small = task.size(results) <= SMALL_REPLY
        return await convert(lambda: write(results, deadline), deadline, small)


_API = web.AppKey("api", _Api)


def _hang_up(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()


def _spec(match: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=unquote(match["name"]))
    if match["label"]:
        spec.version_label = unquote(match["label"])
    elif match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    return spec


def _metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """Without the type's name that an `Any` would have."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec = json.loads(_proto_json(response.model_spec))
    metadata = json.loads(_proto_json(signatures))
    body = {"model_spec": spec, "metadata": {"signature_def": metadata}}
    return json.dumps(body, indent=1).encode()


def _proto_json(message: Any) -> bytes:
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
    ).encode()


def _json(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json(status, json.dumps({"error": message}).encode())
