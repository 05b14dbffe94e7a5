"""Errors with the codes that gRPC and REST clients see."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any


class Code(IntEnum):
    """Canonical status codes, as gRPC numbers them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


# What TensorFlow puts around the message of an error: where in the graph, and in whose source.
_AROUND = re.compile(
    r"Graph execution error:|Detected at node |<stack traces"
    r"|\s*File \"|\s*\[\[\{\{(?:function_)?node|$"
)
_INSIDE = re.compile(r"\{\{function_node [^}]*\}\} ?| \[Op:.*")


class ServingError(Exception):
    """A request that cannot be answered.

    Args:
        code: what clients see.
        message: what they read.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def http_status(self) -> int:
        """Status of the REST reply."""
        return HTTP_STATUS.get(self.code, 500)


def invalid(message: str) -> ServingError:
    """An INVALID_ARGUMENT."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def late() -> ServingError:
    """A DEADLINE_EXCEEDED."""
    return ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded")


def from_tensorflow(error: Any) -> ServingError:
    """What a client sees of a TensorFlow error (`tf.errors.OpError`)."""
    lines = [line for line in str(error.message).splitlines() if not _AROUND.match(line)]
    message = _INSIDE.sub("", "\n".join(lines))
    return ServingError(Code(error.error_code), message or type(error).__name__)
