"""The standard health service of gRPC, for one server as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """NOT_SERVING until it is told otherwise; used from one event loop.

    The servicer of grpcio-health-checking forgets its other watchers when one leaves, and theirs
    would be requests that never end when the server does.
    """

    def __init__(self) -> None:
        self._serving = self._ended = False
        self._changed = asyncio.Event()  # another one after every change

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:
        status = self._status(request)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"No service {request.service}")
        return HealthCheckResponse(status=status)

    async def Watch(self, request: HealthCheckRequest, context: Any) -> None:
        said = None
        while True:
            changed, status = self._changed, self._status(request)
            if status != said:
                await context.write(HealthCheckResponse(status=status))
                said = status
            if self._ended:
                return
            await changed.wait()

    def set(self, serving: bool) -> None:
        """Tells all watchers whether requests should come, unless `end` said that none should."""
        if not self._ended:
            self._tell(serving)

    def end(self) -> None:
        """Tells them that no more should come, and lets them go."""
        self._ended = True
        self._tell(False)

    def _tell(self, serving: bool) -> None:
        self._serving, changed, self._changed = serving, self._changed, asyncio.Event()
        changed.set()

    def _status(self, request: HealthCheckRequest) -> Any:
        if request.service:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING
