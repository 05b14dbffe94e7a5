"""What a client raises: one class for each code that callers handle."""

from __future__ import annotations

from serving.errors import HTTP_STATUS, Code, ServingError

_BAD_GATEWAY, _TOO_LARGE = 502, 413
_CODES = {status: code for code, status in reversed(HTTP_STATUS.items())}
_CODES[_BAD_GATEWAY] = Code.UNAVAILABLE  # a proxy whose server is away
_CODES[_TOO_LARGE] = Code.RESOURCE_EXHAUSTED  # as gRPC says of a message


class ClientError(ServingError):
    """A call that failed; itself of the codes without a class of their own.

    Args:
        message: of the server or of the client.
        code: where it is not that of the class.
    """

    CODE = Code.UNKNOWN

    def __init__(self, message: str, code: Code | None = None) -> None:
        super().__init__(self.CODE if code is None else code, message)


class InvalidArgumentError(ClientError):
    """The request does not fit the model."""

    CODE = Code.INVALID_ARGUMENT


class DeadlineExceededError(ClientError):
    """No answer within the client's timeout."""

    CODE = Code.DEADLINE_EXCEEDED


class NotFoundError(ClientError):
    """No such model, or no such version."""

    CODE = Code.NOT_FOUND


class PermissionDeniedError(ClientError):
    """The server refuses this caller."""

    CODE = Code.PERMISSION_DENIED


class ResourceExhaustedError(ClientError):
    """A message is too large, or a quota is used up."""

    CODE = Code.RESOURCE_EXHAUSTED


class FailedPreconditionError(ClientError):
    """The model has no such signature, or answers otherwise than it says."""

    CODE = Code.FAILED_PRECONDITION


class UnimplementedError(ClientError):
    """The server has no such method, or the client cannot carry such a type."""

    CODE = Code.UNIMPLEMENTED


class InternalError(ClientError):
    """Something broke in the server."""

    CODE = Code.INTERNAL


class UnavailableError(ClientError):
    """No server there, or none that takes requests; the one error that is tried again."""

    CODE = Code.UNAVAILABLE


class UnauthenticatedError(ClientError):
    """The server does not know this caller."""

    CODE = Code.UNAUTHENTICATED


_CLASSES = {kind.CODE: kind for kind in ClientError.__subclasses__()}


def of_code(number: int, message: str) -> ClientError:
    """The error of a canonical code, as gRPC numbers them."""
    code = Code(number)
    return _CLASSES.get(code, ClientError)(message, code)


def of_http_status(status: int, message: str) -> ClientError:
    """The error of an HTTP status; several codes share one, of which the commonest is taken."""
    return of_code(_CODES.get(status, Code.INTERNAL if status >= 500 else Code.UNKNOWN), message)
