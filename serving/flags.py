"""The server's flags: TF Serving's names, and what cannot be said with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

PORT = click.IntRange(0, 65535)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SECONDS = click.FloatRange(min=0.01)
MILLISECONDS = click.IntRange(1)


@dataclass(frozen=True)
class Options:
    """The flags, as `--help` documents them."""

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


def _truth(flag: str, what: str, default: bool = False) -> Callable[..., Any]:
    """`--flag`, `--flag=true` or `--flag=false`, as TF Serving takes them."""
    return click.option(
        f"--{flag}", is_flag=False, flag_value=True, default=default, type=bool, help=what
    )


_OPTIONS = [
    click.option("--port", default=8500, type=PORT, show_default=True, help="Of gRPC; 0 for none."),
    click.option(
        "--rest_api_port", default=0, type=PORT, show_default=True, help="Of REST; 0 for none."
    ),
    click.option("--grpc_socket_path", default="", help="A Unix socket for gRPC, beside its port."),
    click.option("--address", default="127.0.0.1", show_default=True, help="To listen on."),
    click.option(
        "--model_name", default="default", show_default=True, help="Of --model_base_path."
    ),
    click.option(
        "--model_base_path", type=Path, help="Directory of numbered versions of one model."
    ),
    click.option(
        "--model_config_file", type=FILE, help="Several models: text form of a ModelServerConfig."
    ),
    click.option(
        "--model_config_file_poll_wait_seconds",
        default=0.0,
        type=click.FloatRange(min=0),
        show_default=True,
        help="Between looks at that file; 0 for one look only.",
    ),
    click.option(
        "--file_system_poll_wait_seconds",
        default=1.0,
        type=SECONDS,
        show_default=True,
        help="Between looks for a new version.",
    ),
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
]


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags of `Options`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(options: Options) -> None:
    """Says which flags do not go together.

    Raises:
        click.ClickException: some do not.
    """
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
