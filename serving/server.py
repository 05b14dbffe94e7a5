"""`python -m serving.server`: TF Serving's API without a container. Flags are TF Serving's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

log = logging.getLogger("serving")

GRACE_SECONDS = 5
PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--port", default=8500, type=PORT, show_default=True, help="Of gRPC; 0 for none.")
@click.option(
    "--rest_api_port", default=0, type=PORT, show_default=True, help="Of REST; 0 for none."
)
@click.option("--address", default="127.0.0.1", show_default=True, help="To listen on.")
@click.option("--model_name", default="default", show_default=True, help="Name of the model.")
@click.option("--model_base_path", required=True, type=Path, help="Directory of numbered versions.")
@click.option(
    "--file_system_poll_wait_seconds",
    default=1.0,
    type=click.FloatRange(min=0.01),
    show_default=True,
    help="Between looks for a new version.",
)
@click.option("--rest_api_timeout_in_ms", default=30_000, show_default=True, help="Of a request.")
def main(
    port: int,
    rest_api_port: int,
    address: str,
    model_name: str,
    model_base_path: Path,
    file_system_poll_wait_seconds: float,
    rest_api_timeout_in_ms: int,
) -> None:
    """Serve the latest version of a SavedModel over gRPC and REST."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not model_base_path.is_dir():
        raise click.ClickException(
            f"{model_base_path} is no directory; it should hold numbered versions of the model"
        )
    if port == rest_api_port:
        raise click.ClickException(
            f"--port and --rest_api_port are both {port}; give them two, and one at least"
        )
    try:
        for flag, number in (("--port", port), ("--rest_api_port", rest_api_port)):
            _check_free(address, number, flag)
        asyncio.run(
            _serve(
                port,
                rest_api_port,
                address,
                model_name,
                model_base_path,
                file_system_poll_wait_seconds,
                rest_api_timeout_in_ms / 1000,
            )
        )
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _check_free(address: str, port: int, flag: str) -> None:
    """Before the imports, so that this error comes at once and alone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        if port:
            socket.create_server((address, port), family=family).close()
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
        raise OSError(f"port {port} of {address} {reason}; choose another {flag}") from None


async def _serve(
    port: int,
    rest_api_port: int,
    address: str,
    model_name: str,
    model_base_path: Path,
    poll_seconds: float,
    timeout: float,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # first: the imports take seconds
        loop.add_signal_handler(number, stop.set)
    log.info("starting")

    from aiohttp import web

    from serving import rest, rpc
    from serving.models import Model, Models

    models = Models([Model(model_name, model_base_path)])
    executor = ThreadPoolExecutor(os.cpu_count())
    async with contextlib.AsyncExitStack() as stack:
        if port:
            server = rpc.server(models, executor)
            try:
                server.add_insecure_port(f"{address}:{port}")
            except RuntimeError as error:
                raise OSError(str(error)) from None
            await server.start()
            stack.push_async_callback(server.stop, GRACE_SECONDS)
        if rest_api_port:
            runner = web.AppRunner(
                rest.application(models, executor, timeout),
                access_log=None,
                shutdown_timeout=GRACE_SECONDS,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, address, rest_api_port).start()
        polling = asyncio.create_task(_poll(models, poll_seconds))
        log.info("serving %s: gRPC port %s, REST port %s", model_name, port, rest_api_port)
        await stop.wait()
        log.info("stopping")
        polling.cancel()


async def _poll(models: object, seconds: float) -> None:
    from serving.models import Models

    assert isinstance(models, Models)
    while True:
        await asyncio.to_thread(models.poll)
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    main()
