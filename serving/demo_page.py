"""A page on which people see what a model recommends, and why: `--demo_page`.

It is one file of HTML, which asks the REST API as any client does. What it cannot ask there, users
to pick and titles of items, the model brings along in `assets.extra/demo.json` (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path

from aiohttp import web
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.errors import Code, ServingError
from serving.models import Models

PATH = "/demo"
SAMPLES_PATH = f"{PATH}/samples"
FILE = Path("assets.extra") / "demo.json"


def routes(models: Models) -> list[web.RouteDef]:
    """The page, and what it knows of models; no path of a file comes from a request.

    Args:
        models: that are served.
    """
    html = Path(__file__).with_name("demo.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _policy(html),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def samples(request: web.Request) -> web.Response:
        """Names of all models, and the file of one: of the first, unless the query names it."""
        names = models.names
        chosen = request.query.get("model") or (names[0] if names else "")
        try:
            _, servable = models.get(ModelSpec(name=chosen))
            content = await asyncio.to_thread(_content, servable.directory)
        except ServingError as error:
            status, body = error.http_status, json.dumps({"models": names, "error": error.message})
        else:
            head = json.dumps({"models": names, "model": chosen})
            status, body = 200, f'{head[:-1]}, "samples": {content}}}'
        response = web.Response(
            status=status, text=body, content_type="application/json", headers=headers
        )
        response.enable_compression()
        return response

    return [web.get(PATH, page), web.get(SAMPLES_PATH, samples)]


def _content(directory: Path) -> str:
    """The file of a model, as it is; null where it has none.

    Raises:
        ServingError: INTERNAL, it cannot be read.
    """
    try:
        text = (directory / FILE).read_text(encoding="utf-8")
        json.loads(text)
    except FileNotFoundError:
        return "null"
    except (OSError, ValueError, RecursionError) as error:  # text that is no UTF-8, too
        reason = error.strerror if isinstance(error, OSError) else error
        raise ServingError(Code.INTERNAL, f"{FILE} of the model cannot be read: {reason}") from None
    return text


def _policy(html: str) -> str:
    """Nothing but the page's own script and style runs, and nothing but this server is asked."""

    def source(tag: str) -> str:
        hashes = [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        ]
        return " ".join(f"'sha256-{one}'" for one in hashes)

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {source('script')}",
            f"style-src {source('style')}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
