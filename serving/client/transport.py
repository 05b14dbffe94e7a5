"""What the client's logic asks of an API, whichever it is and however it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from serving.client.signatures import Metadata, Signature, VersionStatus
from serving.client.tensors import Array


@dataclass(frozen=True)
class Target:
    """The model that is asked.

    Attributes:
        model: its name.
        version: of it; the one that serves, if None.
        label: of a version, instead of its number.
    """

    model: str
    version: int | None
    label: str | None


@dataclass(frozen=True)
class Tls:
    """How connections are encrypted.

    Attributes:
        roots: PEM file of the authorities to trust; the system's, if None.
        certificate: PEM files of the client's own certificate and its key, if it has one.
    """

    roots: Path | None
    certificate: tuple[Path, Path] | None


class Transport(Protocol):
    """An API of TF Serving: its requests, its replies, and the way to send them."""

    def predict(
        self, target: Target, name: str, signature: Signature, inputs: Mapping[str, Array]
    ) -> Any:
        """The request that runs a signature."""

    def metadata(self, target: Target) -> Any:
        """The request for signatures."""

    def status(self, target: Target) -> Any:
        """The request for the state of versions."""

    def read_predict(self, reply: Any, signature: Signature) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            FailedPreconditionError: the reply is not what the signature says.
        """

    def read_metadata(self, reply: Any) -> Metadata:
        """Signatures by name."""

    def read_status(self, reply: Any) -> list[VersionStatus]:
        """Versions, the newest first."""

    async def send(self, request: Any, timeout: float) -> Any:
        """The reply to a request.

        Raises:
            ClientError: there is none, or an error.
        """

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    async def close(self) -> None:
        """Ends all connections."""


class Blocking:
    """Waits where it is; its coroutines never suspend (`complete` relies on it)."""

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Async:
    """Lets others run while it waits."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def complete(coroutine: Any) -> Any:
    """Runs a coroutine over a `Blocking` transport, which no event loop is needed for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("a blocking transport suspended")
