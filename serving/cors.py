"""Leave for pages of other origins to ask the REST API, in TF Serving's headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


def enable(app: web.Application) -> None:
    """Adds the headers to all replies, and answers what browsers ask before a request."""
    app.middlewares.append(_preflight)
    app.on_response_prepare.append(_add)


@web.middleware
async def _preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "OPTIONS":
        return web.Response()
    return await handler(request)


async def _add(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
