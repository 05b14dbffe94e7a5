"""`python -m serving.server`: TF Serving's API without a container. Flags are TF Serving's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

log = logging.getLogger("serving")

GRACE_SECONDS = 5


@click.command()
@click.option("--port", default=8500, show_default=True, help="Of gRPC; 0 for none.")
@click.option("--rest_api_port", default=0, show_default=True, help="Of REST; 0 for none.")
@click.option("--address", default="127.0.0.1", show_default=True, help="To listen on.")
@click.option("--model_name", default="default", show_default=True, help="Name of the model.")
@click.option("--model_base_path", required=True, type=Path, help="Directory of numbered versions.")
@click.option(
    "--file_system_poll_wait_seconds", default=1.0, show_default=True,
    help="Between looks for a new version.",
)  # fmt: skip
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
    try:
        asyncio.run(
            _serve(port, rest_api_port, address, model_name, model_base_path,
                   file_system_poll_wait_seconds, rest_api_timeout_in_ms / 1000)
        )  # fmt: skip
    except OSError as error:
        raise click.ClickException(str(error)) from None


async def _serve(
    port: int,
    rest_api_port: int,
    address: str,
    model_name: str,
    model_base_path: Path,
    poll_seconds: float,
    timeout: float,
) -> None:
    from aiohttp import web

    from serving import rest, rpc
    from serving.models import Model, Models

    models = Models([Model(model_name, model_base_path)])
    executor = ThreadPoolExecutor(os.cpu_count())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if port:
            server = rpc.server(models, executor)
            try:
                server.add_insecure_port(f"{address}:{port}")
            except RuntimeError:
                raise OSError(
                    f"port {port} of {address} is in use; choose another --port"
                ) from None
            await server.start()
            stack.push_async_callback(server.stop, GRACE_SECONDS)
        if rest_api_port:
            runner = web.AppRunner(rest.application(models, executor, timeout), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            try:
                await web.TCPSite(runner, address, rest_api_port).start()
            except OSError:
                raise OSError(
                    f"port {rest_api_port} of {address} is in use; choose another --rest_api_port"
                ) from None
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
