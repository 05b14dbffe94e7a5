"""`Client` and `AsyncClient`: the same methods, which wait or are awaited."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from serving.client.calls import Calls
from serving.client.errors import InvalidArgumentError
from serving.client.transport import Target, Tls, Transport, complete

Api = Literal["grpc", "rest"]
P = ParamSpec("P")
T = TypeVar("T")


def _waits(
    method: Callable[Concatenate[Calls, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """The form of a method that returns when the answer is there."""

    @functools.wraps(method)
    def waiting(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = complete(method(self._calls, *args, **kwargs))
        return result

    return waiting


class Client:
    """Asks a model. May be used by several threads at once.

    Args:
        address: host:port of the API.
        model: name that the server gives it.
        version: of the model; the one that serves, if None.
        label: of a version, instead of its number.
        api: `grpc` or `rest`.
        timeout: seconds for a call, with all that it takes.
        tls: True to encrypt; or the PEM file of the authorities to trust, if not the system's.
        certificate: PEM files of the client's own certificate and its key, for a server that asks
            for one; with `tls`.
        retries: how often a call that meets UNAVAILABLE is tried again within the timeout, after
            pauses that double.

    Raises:
        InvalidArgumentError: the address is none, there is both a version and a label, or the
            version or the timeout cannot be.
        OSError: the authorities or the certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "default",
        version: int | None = None,
        label: str | None = None,
        api: Api = "grpc",
        timeout: float = 10.0,
        tls: bool | str | Path = False,
        certificate: tuple[str | Path, str | Path] | None = None,
        retries: int = 4,
    ) -> None:
        transport = _transport(address, api, _tls(tls, certificate), waits=True)
        self._calls = Calls(transport, Target(model, version, label), timeout, retries)

    predict = _waits(Calls.predict)
    predict_examples = _waits(Calls.predict_examples)
    recommend = _waits(Calls.recommend)
    status = _waits(Calls.status)
    metadata = _waits(Calls.metadata)
    close = _waits(Calls.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Calls):
    """`Client` to await, in one event loop.

    Args:
        address: host:port of the API.
        model: name that the server gives it.
        version: of the model; the one that serves, if None.
        label: of a version, instead of its number.
        api: `grpc` or `rest`.
        timeout: seconds for a call, with all that it takes.
        tls: as of `Client`.
        certificate: as of `Client`.
        retries: as of `Client`.

    Raises:
        InvalidArgumentError: the address is none, there is both a version and a label, or the
            version or the timeout cannot be.
        OSError: the authorities or the certificate cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "default",
        version: int | None = None,
        label: str | None = None,
        api: Api = "grpc",
        timeout: float = 10.0,
        tls: bool | str | Path = False,
        certificate: tuple[str | Path, str | Path] | None = None,
        retries: int = 4,
    ) -> None:
        transport = _transport(address, api, _tls(tls, certificate), waits=False)
        super().__init__(transport, Target(model, version, label), timeout, retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _tls(tls: bool | str | Path, certificate: tuple[str | Path, str | Path] | None) -> Tls | None:
    if certificate and tls is False:
        raise InvalidArgumentError("a certificate is for TLS only; give tls, too")
    if tls is False:
        return None
    own = (Path(certificate[0]), Path(certificate[1])) if certificate else None
    return Tls(None if tls is True else Path(tls), own)


def _transport(address: str, api: str, tls: Tls | None, waits: bool) -> Transport:
    """Imports only what the API needs."""
    host, _, port = address.rpartition(":")
    # gRPC takes a port above the highest for another one.
    if not host or "/" in address or not (port.isdecimal() and int(port) < 2**16):
        raise InvalidArgumentError(
            f"address {address!r} is not host:port, such as localhost:8500; "
            "TLS and paths are not part of it"
        )
    if api == "grpc":
        from serving.client.over_grpc import AsyncGrpc, BlockingGrpc

        return BlockingGrpc(address, tls) if waits else AsyncGrpc(address, tls)
    if api == "rest":
        from serving.client.over_rest import AsyncRest, BlockingRest

        return BlockingRest(address, tls) if waits else AsyncRest(address, tls)
    raise InvalidArgumentError(f"api {api!r} is neither 'grpc' nor 'rest'")
