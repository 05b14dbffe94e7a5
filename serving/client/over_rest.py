"""TF Serving's REST API, from the client's side."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import urllib3
from google.protobuf import json_format
from yarl import URL

from serving.client import errors
from serving.client.protos import GetModelStatusResponse, SignatureDefMap
from serving.client.signatures import (
    Metadata,
    Signature,
    Tensor,
    VersionStatus,
    signatures_of,
    statuses_of,
)
from serving.client.tensors import Array, numpy_dtype
from serving.client.transport import Async, Blocking, Target

_HEADERS = {"Content-Type": "application/json"}
_CONNECTIONS = 16  # that are kept for the next request
_MAX_SHOWN = 200
_LATE = "no answer in time"


class Rest:
    """Requests are triples of verb, path and body.

    Args:
        address: host:port.
        tls: whether to encrypt, or the file of the authorities to trust.
    """

    def __init__(self, address: str, tls: bool | str | Path) -> None:
        self.address = address
        self.ssl: ssl.SSLContext | None = None
        if tls is not False:
            self.ssl = ssl.create_default_context(cafile=None if tls is True else str(tls))

    def predict(
        self, target: Target, name: str, signature: Signature, inputs: Mapping[str, Array]
    ) -> Any:
        body = {
            "signature_name": name,
            "inputs": {key: _json(array.tolist()) for key, array in inputs.items()},
        }
        return "POST", f"{_path(target)}:predict", json.dumps(body).encode()

    def metadata(self, target: Target) -> Any:
        return "GET", f"{_path(target)}/metadata", None

    def status(self, target: Target) -> Any:
        return "GET", _path(target), None

    def read_predict(self, reply: Any, signature: Signature) -> dict[str, Array]:
        outputs, names = reply["outputs"], list(signature.outputs)
        if len(names) == 1 and not isinstance(outputs, dict):
            outputs = {names[0]: outputs}
        if not isinstance(outputs, dict) or outputs.keys() != signature.outputs.keys():
            raise errors.FailedPreconditionError(
                f"the reply is not what the signature says: {', '.join(names)}"
            )
        return {name: _array(outputs[name], signature.outputs[name]) for name in names}

    def read_metadata(self, reply: Any) -> Metadata:
        message = SignatureDefMap()
        definition = reply["metadata"]["signature_def"]
        json_format.ParseDict(definition, message, ignore_unknown_fields=True)
        return Metadata(int(reply["model_spec"]["version"]), signatures_of(message))

    def read_status(self, reply: Any) -> list[VersionStatus]:
        message = GetModelStatusResponse()
        return statuses_of(json_format.ParseDict(reply, message, ignore_unknown_fields=True))


class BlockingRest(Rest, Blocking):
    """For `Client`."""

    def __init__(self, address: str, tls: bool | str | Path) -> None:
        super().__init__(address, tls)
        host, _, port = address.rpartition(":")
        where: dict[str, Any] = {"host": host, "port": int(port), "maxsize": _CONNECTIONS}
        self._pool: urllib3.HTTPConnectionPool
        if self.ssl:
            self._pool = urllib3.HTTPSConnectionPool(**where, ssl_context=self.ssl)
        else:
            self._pool = urllib3.HTTPConnectionPool(**where)

    async def send(self, request: Any, timeout: float) -> Any:
        verb, path, body = request
        try:
            reply = self._pool.urlopen(
                verb,
                path,
                body,
                _HEADERS,
                retries=False,
                timeout=urllib3.Timeout(total=timeout),
            )
        except urllib3.exceptions.NewConnectionError as error:
            raise _away(self.address, error) from None
        except urllib3.exceptions.TimeoutError:
            raise errors.DeadlineExceededError(_LATE) from None
        except urllib3.exceptions.HTTPError as error:
            raise _away(self.address, error) from None
        return _read(reply.status, reply.data)

    async def close(self) -> None:
        self._pool.close()


class AsyncRest(Rest, Async):
    """For `AsyncClient`."""

    def __init__(self, address: str, tls: bool | str | Path) -> None:
        super().__init__(address, tls)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Any, timeout: float) -> Any:
        verb, path, body = request
        if self._session is None:  # which only a running loop can make
            self._session = aiohttp.ClientSession()
        url = URL(f"{'https' if self.ssl else 'http'}://{self.address}{path}", encoded=True)
        try:
            async with self._session.request(
                verb,
                url,
                data=body,
                headers=_HEADERS,
                ssl=self.ssl or True,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as reply:
                return _read(reply.status, await reply.read())
        except TimeoutError:
            raise errors.DeadlineExceededError(_LATE) from None
        except aiohttp.ClientError as error:
            raise _away(self.address, error) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _path(target: Target) -> str:
    path = f"/v1/models/{quote(target.model, safe='')}"
    if target.version is not None:
        return f"{path}/versions/{target.version}"
    return path if target.label is None else f"{path}/labels/{quote(target.label, safe='')}"


def _read(status: int, body: bytes) -> Any:
    try:
        reply = json.loads(body)
    except ValueError:
        reply = None
    if status == 200 and isinstance(reply, dict):
        return reply
    if isinstance(reply, dict) and "error" in reply:
        raise errors.of_http_status(status, str(reply["error"]))
    shown = body[:_MAX_SHOWN].decode(errors="replace")
    raise errors.of_http_status(status, f"HTTP status {status}, which is no reply: {shown!r}")


def _away(address: str, error: Exception) -> errors.ClientError:
    return errors.UnavailableError(f"no answer from {address}: {error or type(error).__name__}")


def _json(value: Any) -> Any:
    """Strings as JSON has them; numbers are as they are."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _array(value: Any, tensor: Tensor) -> Array:
    if tensor.dtype == "string":
        value = _bytes(value)
    return np.array(value, numpy_dtype(tensor.dtype))


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()
