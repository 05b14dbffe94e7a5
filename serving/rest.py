"""TF Serving's REST API."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from serving import json_tensor
from serving.errors import Code, ServingError, invalid
from serving.models import DEFAULT_SIGNATURE, Models
from serving.rpc import signature_map, status_response
from serving.versions import MAX_VERSION

_CALL = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/([0-9]+))?:(classify|regress|predict)", re.IGNORECASE
)
_GET = re.compile(r"/v1/models(?:/([^/:]+))?(?:/versions/([0-9]+))?(/metadata)?", re.IGNORECASE)

MAX_BODY = 64 * 2**20

log = logging.getLogger("serving")

Handler = Callable[[web.Request], Coroutine[Any, Any, web.Response]]


def application(models: Models, executor: Executor, timeout: float) -> web.Application:
    """The REST application.

    Args:
        models: that it serves.
        executor: where signatures run.
        timeout: seconds before a request is answered with DEADLINE_EXCEEDED.
    """
    api = _Api(models, executor, timeout)
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_route("*", "/{path:.*}", api.handle)
    return app


class _Api:
    def __init__(self, models: Models, executor: Executor, timeout: float) -> None:
        self.models, self.executor, self.timeout = models, executor, timeout

    async def handle(self, request: web.Request) -> web.Response:
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
            log.exception("%s %s", request.method, request.path)
            return _error(500, "Internal error")

    async def _answer(self, request: web.Request, path: str) -> bytes:
        call = _CALL.fullmatch(path)
        if request.method == "POST" and call:
            name, version, verb = call.groups()
            if verb.lower() != "predict":
                raise ServingError(Code.UNIMPLEMENTED, f"{verb} is not implemented")
            body = await request.read()
            work = asyncio.get_running_loop().run_in_executor(
                self.executor, self._predict, unquote(name), _version(version), body
            )
            return await asyncio.wait_for(work, self.timeout)
        get = _GET.fullmatch(path)
        if request.method == "GET" and get:
            name, version, metadata = get.groups()
            if not name:
                raise invalid("Missing model name in request.")
            if metadata:
                return self._metadata(unquote(name), _version(version))
            return self._status(unquote(name), _version(version))
        raise invalid(f"Malformed request: {request.method} {path}")

    def _predict(self, name: str, version: int | None, body: bytes) -> bytes:
        request = json_tensor.parse_predict(body)
        _, servable = self.models.get(name, version)
        signature = request.signature or DEFAULT_SIGNATURE
        if signature not in servable.signature_defs:
            raise invalid(f'Serving signature name: "{signature}" not found in signature def')
        infos = servable.signature_defs[signature].inputs
        inputs, form = json_tensor.tensors(request, infos)
        return json_tensor.response(servable.run(signature, inputs), form)

    def _status(self, name: str, version: int | None) -> bytes:
        response = status_response(self.models.statuses(name, version))
        return _proto_json(response)

    def _metadata(self, name: str, version: int | None) -> bytes:
        number, servable = self.models.get(name, version)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = name
        response.model_spec.version.value = number
        metadata = json.loads(_proto_json(signature_map(servable)))
        spec = json.loads(_proto_json(response.model_spec))
        body = {"model_spec": spec, "metadata": {"signature_def": metadata}}
        return json.dumps(body, indent=1).encode()


def _version(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(digits)


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
