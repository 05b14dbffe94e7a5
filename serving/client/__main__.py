"""`python -m serving.client`: asks a model from the shell, with JSON lines in and out."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import click

from serving.errors import Code, ServingError

if TYPE_CHECKING:
    from serving.client import Client

Answer = Callable[[list[Any]], list[Any]]

ROWS = click.argument("file", type=click.File("rb"), default="-")
PEM = click.Path(exists=True, dir_okay=False)
BATCH_SIZE = click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="Lines that go in one request; 1 answers each line at once.",
)


@click.group(epilog="FILE holds one JSON object of raw columns on each line; - is standard input.")
@click.option("--address", required=True, help="host:port of the server's API.")
@click.option("--model", default="default", show_default=True, help="Name of the model.")
@click.option("--version", type=click.IntRange(min=0), help="Of the model; the one that serves.")
@click.option("--label", help="Of a version, instead of its number.")
@click.option("--api", type=click.Choice(["grpc", "rest"]), default="grpc", show_default=True)
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="Seconds for a request, with its retries.",
)  # fmt: skip
@click.option(
    "--retries", default=4, show_default=True, type=click.IntRange(min=0),
    help="Of requests that meet UNAVAILABLE.",
)  # fmt: skip
@click.option("--tls", is_flag=True, help="Encrypt.")
@click.option(
    "--tls-ca", type=PEM,
    help="PEM file of the authorities to trust, if not the system's; encrypts.",
)  # fmt: skip
@click.option(
    "--tls-certificate", type=(PEM, PEM), metavar="FILE KEY",
    help="PEM files of an own certificate and its key, for a server that asks; encrypts.",
)  # fmt: skip
@click.pass_context
def main(
    context: click.Context,
    tls: bool,
    tls_ca: str | None,
    tls_certificate: tuple[str, str] | None,
    **settings: Any,
) -> None:
    """Ask a model that a server of TF Serving's API serves."""
    encrypted = tls_ca or tls or bool(tls_certificate)
    context.obj = {**settings, "tls": encrypted, "certificate": tls_certificate}


@main.command()
@ROWS
@BATCH_SIZE
@click.option("--signature", help="To run.  [default: predict, or serving_default of --examples]")
@click.option("--examples", is_flag=True, help="Send serialized tf.Examples; columns may lack.")
@click.pass_obj
def predict(
    settings: dict[str, Any],
    file: IO[bytes],
    batch_size: int,
    signature: str | None,
    examples: bool,
) -> None:
    """Print the outputs for each line of FILE."""
    with _client(settings) as client:
        method = client.predict_examples if examples else client.predict
        named = {"signature": signature} if signature else {}
        _answer_lines(file, batch_size, lambda rows: method(rows, **named))


@main.command()
@ROWS
@BATCH_SIZE
@click.option("--k", default=10, show_default=True, type=click.IntRange(min=0), help="Items.")
@click.option(
    "--seen/--no-seen", default=False, show_default=True, help="Items of the user's histories too."
)
@click.option("--exclude", multiple=True, metavar="ITEM", help="An item not wanted; repeatable.")
@click.pass_obj
def recommend(
    settings: dict[str, Any],
    file: IO[bytes],
    batch_size: int,
    k: int,
    seen: bool,
    exclude: tuple[str, ...],
) -> None:
    """Print the best items for the user on each line of FILE, as a list.

    A line may have k, exclude_seen and exclude of its own.
    """
    with _client(settings) as client:
        _answer_lines(
            file,
            batch_size,
            lambda rows: client.recommend(rows, k, exclude_seen=not seen, exclude=exclude),
        )


@main.command()
@click.pass_obj
def status(settings: dict[str, Any]) -> None:
    """Print each version of the model and its state."""
    with _client(settings) as client:
        with _errors():
            versions = client.status()
        for version in versions:
            _print(asdict(version))


@main.command()
@click.pass_obj
def metadata(settings: dict[str, Any]) -> None:
    """Print each signature of the model, with its inputs and outputs."""
    with _client(settings) as client:
        with _errors():
            found = client.metadata()
        for name, signature in found.signatures.items():
            _print({"version": found.version, "signature": name, **asdict(signature)})


@contextlib.contextmanager
def _client(settings: dict[str, Any]) -> Iterator[Client]:
    from serving.client import Client

    try:
        with _errors():
            client = Client(**settings)
    except OSError as error:
        given = {"--tls-ca": [settings["tls"]], "--tls-certificate": settings["certificate"] or ()}
        files = [" ".join([flag, *f]) for flag, f in given.items() if f and f[0] is not True]
        raise click.ClickException(f"{', '.join(files)}: {error.strerror or error}") from None
    with client:
        yield client


@contextlib.contextmanager
def _errors(where: str = "") -> Iterator[None]:
    """Ends the command with one line, whatever the server says."""
    try:
        yield
    except ServingError as error:
        message = " ".join(error.message.split())
        raise click.ClickException(f"{where}{error.code.name}: {message}") from None


def _answer_lines(file: IO[bytes], batch_size: int, answer: Answer) -> None:
    """Prints an answer for each line, in their order, up to the first that has none."""
    batch: list[tuple[int, Any]] = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            batch.append((number, json.loads(line, object_hook=_bytes)))
        except (ValueError, RecursionError) as error:  # text that is no UTF-8 too
            _answer_batch(batch, answer)
            raise click.ClickException(f"line {number}: not JSON: {error}") from None
        if len(batch) == batch_size:
            _answer_batch(batch, answer)
            batch = []
    _answer_batch(batch, answer)


def _answer_batch(batch: list[tuple[int, Any]], answer: Answer) -> None:
    if not batch:
        return
    first, last = batch[0][0], batch[-1][0]
    where = f"line {first}: " if first == last else f"lines {first} to {last}: "
    with _errors(where):
        try:
            answers = answer([row for _, row in batch])
        except ServingError as error:
            if error.code != Code.INVALID_ARGUMENT or len(batch) == 1:
                raise
            answers = None
    if answers is None:  # one line is to blame, and asking for each alone tells which
        for line in batch:
            _answer_batch([line], answer)
        return
    for one in answers:
        _print(one)


def _bytes(value: dict[str, Any]) -> Any:
    """Bytes where TF Serving's JSON has them, as they are printed."""
    if value.keys() == {"b64"} and isinstance(value["b64"], str):
        with contextlib.suppress(ValueError):  # it is no base64, and no value of a column
            return base64.b64decode(value["b64"], validate=True)
    return value


def _print(value: Any) -> None:
    import orjson

    text = orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in text:  # so orjson writes NaN and infinities; json does as TF Serving
        text = json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()
    click.echo(text)


def _plain(value: Any) -> Any:
    """What JSON has for bytes, as TF Serving writes them, and for vectors."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    # By way of text, as a float32 has fewer digits than the same number has as Python's float.
    return value.astype(str).astype(float).tolist() if value.dtype.kind == "f" else value.tolist()


if __name__ == "__main__":
    main(prog_name="python -m serving.client")
