"""A client of TF Serving's API, of this server or any other: `Client` and `AsyncClient`.

    from serving.client import Client

    with Client("localhost:8500", model="wide_deep") as client:
        client.predict({"userId": "15", ...})

It needs no schema: names and types come from the model's signatures. Errors are classes of
`serving.client.errors`, one for each code that a caller handles.
"""

from serving.client.clients import AsyncClient, Client
from serving.client.errors import (
    ClientError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from serving.client.signatures import Metadata, Signature, Tensor, VersionStatus

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "Metadata",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Signature",
    "Tensor",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "VersionStatus",
]
