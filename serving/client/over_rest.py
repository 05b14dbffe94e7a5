"""TF Serving's REST API, from the client's side."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from collections.abc import Iterator, Mapping
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
from serving.client.timely import TimelyPool, TimelyTlsPool
from serving.client.transport import Async, Blocking, Target, Tls

_HEADERS = {"Content-Type": "application/json"}
_CONNECTIONS = 16  # that are kept for the next request
_MAX_SHOWN = 200
_LATE = "no answer in time"
# Types that JSON has for those of NumPy. Servers may write a whole number for a float.
_PLAIN: dict[str, set[type]] = {
    "b": {bool},
    "f": {float, int},
    "i": {int},
    "u": {int},
    "O": {bytes},
}


class Rest:
    """Requests are triples of verb, path and body.

    Args:
        address: host:port.
        tls: how to encrypt, if at all.
    """

    def __init__(self, address: str, tls: Tls | None) -> None:
        self.address = address
        self.ssl: ssl.SSLContext | None = None
        if tls:
            self.ssl = ssl.create_default_context(cafile=tls.roots)
            if tls.certificate:
                self.ssl.load_cert_chain(*tls.certificate)

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
        with _understanding():
            outputs, names = reply["outputs"], list(signature.outputs)
        if len(names) == 1 and not isinstance(outputs, dict):
            outputs = {names[0]: outputs}
        if not isinstance(outputs, dict) or outputs.keys() != signature.outputs.keys():
            raise errors.FailedPreconditionError(
                f"the reply is not what the signature says: {', '.join(names)}"
            )
        return {name: _array(name, outputs[name], signature.outputs[name]) for name in names}

    def read_metadata(self, reply: Any) -> Metadata:
        message = SignatureDefMap()
        with _understanding():
            definition = reply["metadata"]["signature_def"]
            json_format.ParseDict(definition, message, ignore_unknown_fields=True)
            return Metadata(int(reply["model_spec"]["version"]), signatures_of(message))

    def read_status(self, reply: Any) -> list[VersionStatus]:
        message, listed = GetModelStatusResponse(), "model_version_status"
        with _understanding():
            json_format.ParseDict({listed: reply[listed]}, message, ignore_unknown_fields=True)
            return statuses_of(message)


class BlockingRest(Rest, Blocking):
    """For `Client`."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        super().__init__(address, tls)
        host, _, port = address.rpartition(":")
        where: dict[str, Any] = {"host": host, "port": int(port), "maxsize": _CONNECTIONS}
        self._pool: urllib3.HTTPConnectionPool
        try:
            if self.ssl:
                self._pool = TimelyTlsPool(**where, ssl_context=self.ssl)
            else:
                self._pool = TimelyPool(**where)
        except urllib3.exceptions.LocationParseError:
            raise errors.InvalidArgumentError(f"{host!r} cannot be the name of a host") from None

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

    def __init__(self, address: str, tls: Tls | None) -> None:
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
                allow_redirects=False,
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
    except (ValueError, RecursionError):
        reply = None
    if status == 200 and isinstance(reply, dict):
        return reply
    if isinstance(reply, dict) and "error" in reply:
        raise errors.of_http_status(status, str(reply["error"]))
    shown = body[:_MAX_SHOWN].decode(errors="replace")
    raise errors.of_http_status(status, f"HTTP status {status}, which is no reply: {shown!r}")


@contextlib.contextmanager
def _understanding() -> Iterator[None]:
    """Of JSON that is another service's, or of a model that has changed."""
    try:
        yield
    except (json_format.ParseError, LookupError, TypeError, ValueError) as error:
        raise errors.ClientError(f"the reply is none of TF Serving's: {error!r}") from None


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


def _array(name: str, value: Any, tensor: Tensor) -> Array:
    """The tensor of a reply, whose values are of its dtype: NumPy would make them so."""
    dtype = numpy_dtype(tensor.dtype)
    try:
        found = np.array(_bytes(value) if dtype.kind == "O" else value, object)
        if set(map(type, found.flat)) <= _PLAIN[dtype.kind]:
            return found.astype(dtype)
    except (LookupError, OverflowError, TypeError, ValueError):  # beyond the dtype, no base64
        pass
    raise errors.FailedPreconditionError(
        f"output {name!r} of the reply is not what the signature says: {tensor.dtype}"
    )


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value
