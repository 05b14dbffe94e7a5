"""The server's flags: TF Serving's names, and what cannot be said with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

PORT = click.IntRange(0, 65535)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SECONDS = click.FloatRange(min=0)
MILLISECONDS = click.IntRange(1)

# TF Serving's for its threads, caches and memory: no answer depends on them.
TUNING = (
    "flush_filesystem_caches",
    "grpc_max_threads",
    "num_load_threads",
    "num_request_iterations_for_warmup",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "remove_unused_fields_from_bundle_metagraph",
    "rest_api_num_threads",
)


@dataclass(frozen=True)
class Options:
    """The flags, as `--help` documents them."""

    port: int
    rest_api_port: int
    grpc_socket_path: str
    grpc_channel_arguments: str
    address: str
    model_name: str
    model_base_path: Path | None
    model_config_file: Path | None
    model_config_file_poll_wait_seconds: float
    file_system_poll_wait_seconds: float
    max_num_load_retries: int
    load_retry_interval_micros: int
    enable_model_warmup: bool
    saved_model_tags: str
    enable_signature_method_name_check: bool
    enable_batching: bool
    batching_parameters_file: Path | None
    monitoring_config_file: Path | None
    ssl_config_file: Path | None
    rest_api_timeout_in_ms: int
    rest_api_enable_cors_support: bool
    grpc_timeout_in_ms: int
    tensorflow_session_parallelism: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    allow_version_labels_for_unavailable_models: bool
    max_concurrent_requests: int
    demo_page: bool


def _truth(flag: str, what: str, default: bool = False) -> Callable[..., Any]:
    """`--flag`, `--flag=true` or `--flag=false`, as TF Serving takes them."""
    return click.option(
        f"--{flag}", is_flag=False, flag_value=True, default=default, type=bool, help=what
    )


def _say_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"Embedded ModelServer: {version('tfrec')}")
        click.echo(f"TensorFlow Library: {version('tensorflow')}")
        context.exit()


_OPTIONS = [
    click.option("--port", default=8500, type=PORT, show_default=True, help="Of gRPC; 0 for none."),
    click.option(
        "--rest_api_port", default=0, type=PORT, show_default=True, help="Of REST; 0 for none."
    ),
    click.option("--grpc_socket_path", default="", help="A Unix socket for gRPC, beside its port."),
    click.option(
        "--grpc_channel_arguments", default="", help="Of gRPC's core: key=value,key=value."
    ),
    click.option("--address", default="127.0.0.1", show_default=True, help="To listen on."),
    click.option(
        "--model_name", default="default", show_default=True, help="Of --model_base_path."
    ),
    click.option(
        "--model_base_path",
        type=Path,
        help="Directory of numbered versions of one model; ignored with --model_config_file.",
    ),
    click.option(
        "--model_config_file", type=FILE, help="Several models: text form of a ModelServerConfig."
    ),
    click.option(
        "--model_config_file_poll_wait_seconds",
        default=0.0,
        type=SECONDS,
        show_default=True,
        help="Between looks at that file; 0 for one look only.",
    ),
    click.option(
        "--file_system_poll_wait_seconds",
        default=1.0,
        type=SECONDS,
        show_default=True,
        help="Between looks for a new version; 0 for one look only.",
    ),
    click.option(
        "--max_num_load_retries",
        default=5,
        type=click.IntRange(0),
        show_default=True,
        help="Of a version that fails to load.",
    ),
    click.option(
        "--load_retry_interval_micros",
        default=60_000_000,
        type=int,
        show_default=True,
        help="Between them; below 0 for none.",
    ),
    _truth("enable_model_warmup", "Replay the warm-up requests of new versions.", True),
    click.option(
        "--saved_model_tags", default="serve", show_default=True, help="Of the graph to load: a,b."
    ),
    _truth("enable_signature_method_name_check", "Heed what a signature says it is for."),
    _truth("enable_batching", "Run small requests together."),
    click.option(
        "--batching_parameters_file", type=FILE, help="How: text form of BatchingParameters."
    ),
    click.option(
        "--monitoring_config_file",
        type=FILE,
        help="Page for Prometheus: text of a MonitoringConfig.",
    ),
    click.option("--ssl_config_file", type=FILE, help="TLS of gRPC: text form of an SSLConfig."),
    click.option(
        "--rest_api_timeout_in_ms",
        default=30_000,
        type=MILLISECONDS,
        show_default=True,
        help="Of a request.",
    ),
    _truth("rest_api_enable_cors_support", "Let pages of any origin ask the REST API."),
    click.option(
        "--grpc_timeout_in_ms",
        default=30_000,
        type=MILLISECONDS,
        show_default=True,
        help="Of a request whose client does not say less.",
    ),
    click.option(
        "--tensorflow_session_parallelism",
        default=0,
        type=click.IntRange(0),
        show_default=True,
        help="Both of the next two.",
    ),
    click.option(
        "--tensorflow_intra_op_parallelism",
        default=0,
        type=click.IntRange(0),
        show_default=True,
        help="Threads of an operation; 0 for one per core.",
    ),
    click.option(
        "--tensorflow_inter_op_parallelism",
        default=0,
        type=click.IntRange(0),
        show_default=True,
        help="Operations at a time; 0 for one per core.",
    ),
    _truth(
        "allow_version_labels_for_unavailable_models",
        "New labels may name versions that are not loaded yet, as all are at the start.",
    ),
    click.option(
        "--max_concurrent_requests",
        default=1_000,
        type=click.IntRange(1),
        show_default=True,
        help="Running and waiting; one more is UNAVAILABLE.",
    ),
    click.option(
        "--demo_page", is_flag=True, help="Show models that recommend at /demo, over REST."
    ),
    click.option(
        "--version",
        is_flag=False,
        flag_value=True,
        type=bool,
        is_eager=True,
        expose_value=False,
        callback=_say_version,
        help="Say it, and end.",
    ),
]


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags of `Options`, and those that `tuning` takes out."""
    for name in TUNING:
        command = click.option(f"--{name}", is_flag=False, flag_value="true", hidden=True)(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def tuning(given: dict[str, Any]) -> list[str]:
    """Takes out those of `TUNING`, and gives the flags that were there."""
    return [f"--{name}" for name in TUNING if given.pop(name) is not None]


def channel_arguments(options: Options) -> list[tuple[str, int | str]]:
    """Those of gRPC's core, numbers as such.

    Raises:
        click.ClickException: they are not of the form key=value,key=value.
    """
    found: list[tuple[str, int | str]] = []
    for one in filter(None, options.grpc_channel_arguments.split(",")):
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise click.ClickException(
                f"--grpc_channel_arguments has {one!r}; give key=value,key=value"
            )
        found.append((key, int(value) if value.lstrip("-").isdecimal() else value))
    return found


def check(options: Options) -> None:
    """Says which flags do not go together.

    Raises:
        click.ClickException: some do not.
    """
    if options.model_base_path is None and options.model_config_file is None:
        raise click.ClickException("give one of --model_base_path and --model_config_file")
    base_path = None if options.model_config_file else options.model_base_path
    if base_path and not base_path.is_dir():
        raise click.ClickException(
            f"{base_path} is no directory; it should hold numbered versions of the model"
        )
    if options.port == options.rest_api_port:
        raise click.ClickException(
            f"--port and --rest_api_port are both {options.port}; give them two, and one at least"
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise click.ClickException("--batching_parameters_file needs --enable_batching")
    channel_arguments(options)
    if options.demo_page and not options.rest_api_port:
        raise click.ClickException("--demo_page needs --rest_api_port: the page is there")
    if options.monitoring_config_file and not options.rest_api_port:
        raise click.ClickException(
            "--monitoring_config_file needs --rest_api_port: its page is there"
        )
