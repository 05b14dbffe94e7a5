"""`python -m serving.server`: TF Serving's API without a container. Flags are TF Serving's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    from serving.models import Models

log = logging.getLogger("serving")

GRACE_SECONDS = 5
METRICS_PATH = "/monitoring/prometheus/metrics"  # where a configuration names none
PORT = click.IntRange(0, 65535)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SECONDS = click.FloatRange(min=0.01)
MILLISECONDS = click.IntRange(1)


@dataclass(frozen=True)
class Options:
    """The flags, as `main` documents them."""

    port: int
    rest_api_port: int
    grpc_socket_path: str
    address: str
    model_name: str
    model_base_path: Path | None
    model_config_file: Path | None
    model_config_file_poll_wait_seconds: float
    file_system_poll_wait_seconds: float
    enable_batching: bool
    batching_parameters_file: Path | None
    monitoring_config_file: Path | None
    ssl_config_file: Path | None
    rest_api_timeout_in_ms: int
    grpc_timeout_in_ms: int
    tensorflow_session_parallelism: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    allow_version_labels_for_unavailable_models: bool
    max_concurrent_requests: int
    demo_page: bool


@click.command()
@click.option("--port", default=8500, type=PORT, show_default=True, help="Of gRPC; 0 for none.")
@click.option(
    "--rest_api_port", default=0, type=PORT, show_default=True, help="Of REST; 0 for none."
)
@click.option("--grpc_socket_path", default="", help="A Unix socket for gRPC, beside its port.")
@click.option("--address", default="127.0.0.1", show_default=True, help="To listen on.")
@click.option("--model_name", default="default", show_default=True, help="Of --model_base_path.")
@click.option("--model_base_path", type=Path, help="Directory of numbered versions of one model.")
@click.option(
    "--model_config_file", type=FILE, help="Several models: text form of a ModelServerConfig."
)
@click.option(
    "--model_config_file_poll_wait_seconds",
    default=0.0,
    type=click.FloatRange(min=0),
    show_default=True,
    help="Between looks at that file; 0 for one look only.",
)
@click.option(
    "--file_system_poll_wait_seconds",
    default=1.0,
    type=SECONDS,
    show_default=True,
    help="Between looks for a new version.",
)
@click.option(
    "--enable_batching",
    is_flag=False,
    flag_value=True,
    default=False,
    type=bool,
    help="Run small requests together.",
)
@click.option("--batching_parameters_file", type=FILE, help="How: text form of BatchingParameters.")
@click.option(
    "--monitoring_config_file", type=FILE, help="Page for Prometheus: text of a MonitoringConfig."
)
@click.option("--ssl_config_file", type=FILE, help="TLS of gRPC: text form of an SSLConfig.")
@click.option(
    "--rest_api_timeout_in_ms",
    default=30_000,
    type=MILLISECONDS,
    show_default=True,
    help="Of a request.",
)
@click.option(
    "--grpc_timeout_in_ms",
    default=30_000,
    type=MILLISECONDS,
    show_default=True,
    help="Of a request whose client does not say less.",
)
@click.option(
    "--tensorflow_session_parallelism",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Both of the next two.",
)
@click.option(
    "--tensorflow_intra_op_parallelism",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Threads of an operation; 0 for one per core.",
)
@click.option(
    "--tensorflow_inter_op_parallelism",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Operations at a time; 0 for one per core.",
)
@click.option(
    "--allow_version_labels_for_unavailable_models",
    is_flag=False,
    flag_value=True,
    default=False,
    type=bool,
    help="New labels may name versions that are not loaded yet, as all are at the start.",
)
@click.option(
    "--max_concurrent_requests",
    default=1_000,
    type=click.IntRange(1),
    show_default=True,
    help="Running and waiting; one more is UNAVAILABLE.",
)
@click.option("--demo_page", is_flag=True, help="Show models that recommend at /demo, over REST.")
def main(**flags: Any) -> None:
    """Serve SavedModels over gRPC and REST, as TF Serving does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = Options(**flags)
    _check(options)
    try:
        for flag, number in (("--port", options.port), ("--rest_api_port", options.rest_api_port)):
            _check_free(options.address, number, flag)
        asyncio.run(_serve(options))
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _check(options: Options) -> None:
    if (options.model_base_path is None) == (options.model_config_file is None):
        raise click.ClickException("give one of --model_base_path and --model_config_file")
    if options.model_base_path and not options.model_base_path.is_dir():
        raise click.ClickException(
            f"{options.model_base_path} is no directory; it should hold numbered versions of the "
            "model"
        )
    if options.port == options.rest_api_port:
        raise click.ClickException(
            f"--port and --rest_api_port are both {options.port}; give them two, and one at least"
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise click.ClickException("--batching_parameters_file needs --enable_batching")
    if options.demo_page and not options.rest_api_port:
        raise click.ClickException("--demo_page needs --rest_api_port: the page is there")
    if options.monitoring_config_file and not options.rest_api_port:
        raise click.ClickException(
            "--monitoring_config_file needs --rest_api_port: its page is there"
        )


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

    from serving.config_files import ConfigError
    from serving.errors import ServingError

    async with contextlib.AsyncExitStack() as stack:
        try:
            await _start(options, stack)
        except (ConfigError, ServingError) as error:
            raise click.ClickException(str(error)) from None
        await stop.wait()
        log.info("stopping")


async def _start(options: Options, stack: contextlib.AsyncExitStack) -> None:
    from serving import config_files, demo_page, rest, rpc
    from serving.batching import BatchingParameters
    from serving.models import Models, single
    from serving.monitoring import Metrics
    from serving.requests import Requests
    from serving.runner import Runner
    from serving.servable import Servable

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
    intra = both or options.tensorflow_intra_op_parallelism
    inter = both or options.tensorflow_inter_op_parallelism
    models = Models(
        lambda directory: Servable(directory, intra, inter),
        options.allow_version_labels_for_unavailable_models,
    )
    stack.callback(models.close)  # last of all: the process ends with the last run
    _check_models(models, config, options)
    metrics = Metrics()
    runner = Runner(metrics, options.max_concurrent_requests, batching)
    requests = Requests(models, runner, metrics)

    server, health = rpc.server(requests, options.grpc_timeout_in_ms / 1000)
    await _open_rpc(server, options, stack)
    if options.rest_api_port:
        path = (page.path or METRICS_PATH) if page and page.enable else None
        pages = demo_page.routes(models) if options.demo_page else ()
        app = rest.application(requests, options.rest_api_timeout_in_ms / 1000, path, pages)
        await _open_rest(app, options, stack)
    ports = f"gRPC port {options.port}, REST port {options.rest_api_port}"
    log.info("serving %s: %s", options.model_config_file or options.model_name, ports)
    if options.demo_page:
        log.info("page: http://%s:%d%s", options.address, options.rest_api_port, demo_page.PATH)
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


async def _open_rpc(server: Any, options: Options, stack: contextlib.AsyncExitStack) -> None:
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
            server.add_secure_port(f"{options.address}:{options.port}", credentials)
        elif options.port:
            server.add_insecure_port(f"{options.address}:{options.port}")
        if options.grpc_socket_path:
            server.add_insecure_port(f"unix:{options.grpc_socket_path}")
    except RuntimeError as error:
        raise OSError(str(error)) from None
    await server.start()
    stack.push_async_callback(server.stop, GRACE_SECONDS)


async def _open_rest(app: Any, options: Options, stack: contextlib.AsyncExitStack) -> None:
    from aiohttp import web

    from serving import rest

    runner = rest.runner(app, GRACE_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, options.address, options.rest_api_port).start()


async def _follow(models: Models, config: ModelServerConfig, options: Options, health: Any) -> None:
    """Loads the models of a configuration, then new versions, and new configurations."""
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    from serving import config_files
    from serving.config_files import ConfigError
    from serving.errors import ServingError

    await asyncio.to_thread(models.apply, config, patient=True)
    file, wait = options.model_config_file, options.model_config_file_poll_wait_seconds
    loop = asyncio.get_running_loop()
    looked = loop.time()
    while True:
        serving = HealthCheckResponse.SERVING if models.ready else HealthCheckResponse.NOT_SERVING
        await health.set("", serving)
        await asyncio.sleep(options.file_system_poll_wait_seconds)
        try:
            await asyncio.to_thread(models.poll)
            if file and wait and loop.time() - looked >= wait:
                looked = loop.time()
                changed = config_files.read_models(file)
                if changed != config:
                    await asyncio.to_thread(models.apply, changed)
                    config = changed
        except (ConfigError, ServingError) as error:
            log.error("%s: %s", file, error)
        except Exception:  # whatever it is, the next look may find it gone
            log.exception("looking for versions and configurations")


if __name__ == "__main__":
    main()
