"""`python -m serving.server`: TF Serving's API without a container. Flags are TF Serving's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from serving.flags import Options, channel_arguments, check, flags, tuning

if TYPE_CHECKING:
    from aiohttp import web
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from serving.health import Health
    from serving.models import Models
    from serving.rpc import Server

log = logging.getLogger("serving")

GRACE_SECONDS = 5  # that runs have to end after a signal
LAST_SECONDS = 1  # that their answers then have to get out
SWITCH_SECONDS = 0.0005  # Python's 0.005 is longer than what a run then waits for takes
METRICS_PATH = "/monitoring/prometheus/metrics"  # where a configuration names none


@dataclass
class Apis:
    """What answers, to be ended as one.

    Attributes:
        models: that are served.
        health: that gRPC tells.
        rpc: the gRPC server.
        rest: what runs the REST application, if there is one.
    """

    models: Models
    health: Health
    rpc: Server
    rest: web.AppRunner | None = None

    async def stop(self, grace: float) -> None:
        """Refuses what is new, and lets requests end.

        Args:
            grace: seconds, for both APIs together. Runs that then still go on are ended, so that
                their clients get an answer.
        """
        from serving import rest

        self.health.end()
        ending = asyncio.get_running_loop().call_later(grace, self.models.close)
        ends = [self.rpc.stop(grace + LAST_SECONDS)]
        if self.rest:
            ends.append(rest.end(self.rest))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + LAST_SECONDS):
                await asyncio.gather(*ends)
        ending.cancel()


@click.command()
@flags
def main(**given: Any) -> None:
    """Serve SavedModels over gRPC and REST, as TF Serving does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ignored = tuning(given)
    options = Options(**given)
    check(options)
    if ignored:
        log.info("no use for %s: threads, caches and memory are not set here", ", ".join(ignored))
    try:
        for flag, number in (("--port", options.port), ("--rest_api_port", options.rest_api_port)):
            _check_free(options.address, number, flag)
        asyncio.run(_serve(options))
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _at(address: str, port: int) -> str:
    """Both in one, as URLs have it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _check_free(address: str, port: int, flag: str) -> None:
    """Before the imports, so that this error comes at once and alone."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        if port:
            socket.create_server((address, port), family=family).close()
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
        raise OSError(f"port {port} of {address} {reason}; choose another {flag}") from None


def _allow_connections() -> None:
    """As many files as the system allows, since every connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(options: Options) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):  # first: the imports take seconds
        loop.add_signal_handler(number, stop.set)
    log.info("starting")
    _allow_connections()
    sys.setswitchinterval(SWITCH_SECONDS)

    from serving.config_files import ConfigError
    from serving.errors import ServingError

    async with contextlib.AsyncExitStack() as stack:
        try:
            await _start(options, stack)
        except (ConfigError, ServingError) as error:
            raise click.ClickException(str(error)) from None
        await stop.wait()
        log.info("stopping")
    logging.shutdown()
    os._exit(0)  # at once: a load, or an operation that does not end, would hold the process


async def _start(options: Options, stack: contextlib.AsyncExitStack) -> None:
    from serving import config_files, cors, demo_page, rest, rpc
    from serving.batching import BatchingParameters
    from serving.model import Retries
    from serving.models import Models, single
    from serving.monitoring import Metrics
    from serving.requests import Requests
    from serving.runner import Runner
    from serving.servable import Loading, Servable

    gc.freeze()  # or requests wait a fifth of a second while the collector walks through TensorFlow
    if options.model_config_file:
        config = config_files.read_models(options.model_config_file)
    else:
        assert options.model_base_path is not None  # checked
        config = single(options.model_name, options.model_base_path)
    batching = BatchingParameters() if options.enable_batching else None
    if options.batching_parameters_file:
        batching = BatchingParameters.of(
            config_files.read_batching(options.batching_parameters_file)
        )
    page = None
    if options.monitoring_config_file:
        page = config_files.read_monitoring(options.monitoring_config_file)
    both = options.tensorflow_session_parallelism
    loading = Loading(
        intra=both or options.tensorflow_intra_op_parallelism,
        inter=both or options.tensorflow_inter_op_parallelism,
        tags=tuple(options.saved_model_tags.split(",")),
        warm_up=options.enable_model_warmup,
        check_methods=options.enable_signature_method_name_check,
    )
    models = Models(
        lambda directory: Servable(directory, loading),
        options.allow_version_labels_for_unavailable_models,
        Retries(options.max_num_load_retries, options.load_retry_interval_micros / 1e6),
    )
    _check_models(models, config, options)
    metrics = Metrics()
    runner = Runner(metrics, options.max_concurrent_requests, batching)
    requests = Requests(models, runner, metrics)

    server, health = rpc.server(
        requests, options.grpc_timeout_in_ms / 1000, channel_arguments(options)
    )
    running = Apis(models, health, server)
    if options.rest_api_port:
        path = (page.path or METRICS_PATH) if page and page.enable else None
        pages = demo_page.routes(models) if options.demo_page else ()
        app = rest.application(requests, options.rest_api_timeout_in_ms / 1000, path, pages)
        if options.rest_api_enable_cors_support:
            cors.enable(app)
        running.rest = rest.runner(app, GRACE_SECONDS + LAST_SECONDS)
    stack.push_async_callback(running.stop, GRACE_SECONDS)
    await _open_rpc(server, options)
    if running.rest:
        await running.rest.setup()
        await rest.listen(running.rest, options.address, options.rest_api_port)
    ports = f"gRPC port {options.port}, REST port {options.rest_api_port}"
    log.info("serving %s: %s", options.model_config_file or options.model_name, ports)
    if options.demo_page:
        log.info("page: http://%s%s", _at(options.address, options.rest_api_port), demo_page.PATH)
    following = asyncio.create_task(_follow(models, config, options, health))
    stack.callback(following.cancel)


def _check_models(models: Models, config: ModelServerConfig, options: Options) -> None:
    """What TF Serving finds wrong with a configuration at the start, with the remedy for labels."""
    from serving.errors import Code, ServingError

    try:
        models.check(config)
    except ServingError as error:
        remedy = ""
        if error.code == Code.FAILED_PRECONDITION:
            remedy = "; give --allow_version_labels_for_unavailable_models=true"
        file = options.model_config_file
        raise ServingError(error.code, f"{f'{file}: ' if file else ''}{error}{remedy}") from None


async def _open_rpc(server: Any, options: Options) -> None:
    import grpc

    from serving import config_files

    try:
        if options.port and options.ssl_config_file:
            ssl = config_files.read_ssl(options.ssl_config_file)
            credentials = grpc.ssl_server_credentials(
                [(ssl.server_key.encode(), ssl.server_cert.encode())],
                ssl.custom_ca.encode() or None,
                ssl.client_verify,
            )
            server.add_secure_port(_at(options.address, options.port), credentials)
        elif options.port:
            server.add_insecure_port(_at(options.address, options.port))
        if options.grpc_socket_path:
            server.add_insecure_port(f"unix:{options.grpc_socket_path}")
    except RuntimeError as error:
        raise OSError(str(error)) from None
    await server.start()


async def _follow(
    models: Models, config: ModelServerConfig, options: Options, health: Health
) -> None:
    """Loads the models of a configuration, then new versions, and new configurations."""
    from serving import config_files
    from serving.config_files import ConfigError
    from serving.errors import ServingError

    await asyncio.to_thread(models.apply, config, patient=True)
    loop, file = asyncio.get_running_loop(), options.model_config_file
    look, read = options.file_system_poll_wait_seconds, options.model_config_file_poll_wait_seconds
    tick = min(wait for wait in (look, read, 1.0) if wait)
    looked = begun = loop.time()
    while True:
        health.set(models.ready)
        await asyncio.sleep(tick)
        now = loop.time() + tick / 2  # sleep is not exact
        try:
            if look and now - looked >= look:
                looked = loop.time()
                await asyncio.to_thread(models.poll)
            else:
                await asyncio.to_thread(models.poll, look=False)
            if file and read and now - begun >= read:
                begun = loop.time()
                wanted = config_files.read_models(file)
                if wanted != models.config:  # since it has changed, or a client has reloaded others
                    await asyncio.to_thread(models.apply, wanted)
        except (ConfigError, ServingError) as error:
            log.error("%s: %s", file, error)
        except Exception:  # whatever it is, the next look may find it gone
            log.exception("looking for versions and configurations")


if __name__ == "__main__":
    main()
