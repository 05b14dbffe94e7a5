"""What the embedded server costs: throughput, latency and CPU, beside the bare call of the model.

    python -m benchmarks.serving --run runs/wide_deep

Clients ask for one row each, as soon as they have an answer (closed loop), or at random times of a
fixed rate, whether there is an answer or not (open loop). They share the machine with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import click
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from benchmarks.tables import write
from tfrec.export import newest_version

HOST = "127.0.0.1"
METHOD = "/tensorflow.serving.PredictionService/Predict"
PARAMETERS = """
max_batch_size {{ value: {rows} }}
batch_timeout_micros {{ value: {wait} }}
num_batch_threads {{ value: 1 }}
max_enqueued_batches {{ value: 100 }}
"""
HEADER = (
    "request",
    "loop",
    "clients",
    "batching",
    "requests/s",
    "× off",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "cores",
)

TURNS = 5  # of each server in a measurement

Ask = Callable[[], Awaitable[None]]


class Load(NamedTuple):
    """What came of many requests.

    Attributes:
        times: seconds of each.
        rate: requests/s.
        cores: of the server.
    """

    times: list[float]
    rate: float
    cores: float

    @classmethod
    def of(cls, several: list[Load]) -> Load:
        """All requests of several turns, and the medians of the rest."""
        times, rates, cores = zip(*several, strict=True)
        all_times = [*itertools.chain.from_iterable(times)]
        return cls(all_times, float(np.median(rates)), float(np.median(cores)))


class Batching(NamedTuple):
    """How a server joins requests: rows of a batch at most, and microseconds that it waits."""

    rows: int
    wait: int

    def __str__(self) -> str:
        return f"{self.rows}, {self.wait // 1000} ms"


# What there is at once, which suits any number of clients; and what two thirds of 32 send.
AT_ONCE, FULL = Batching(64, 0), Batching(20, 10_000)


class Asked(NamedTuple):
    """A request: what it is called, its signature, and arrays by name."""

    label: str
    signature: str
    inputs: dict[str, Any]


@click.command()
@click.option("--run", required=True, type=Path, help="Run directory of a ranking model.")
@click.option("--clients", multiple=True, type=int, default=[1, 8, 32, 64], show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Of each measurement.")
@click.option("--rows", default=500, show_default=True, help="Candidates of large requests.")
def main(run: Path, clients: tuple[int, ...], seconds: float, rows: int) -> None:
    """Print tables, and put them into docs/results.md."""
    export = newest_version(run / "export")
    small, *large = _requests(export, rows)
    table = [_bare(export, asked, seconds) for asked in (small, *large)]
    gc.collect()
    gc.freeze()  # the clients are not to stop while the collector walks through TensorFlow
    with contextlib.ExitStack() as stack:
        servers = {
            str(batching or "off"): stack.enter_context(running(export.parent, batching))
            for batching in (None, AT_ONCE, FULL)
        }
        table += asyncio.run(_measure(servers, small, large, clients, seconds))
    command = f"python -m benchmarks.serving --run {run}"
    write("serving", command, HEADER, [[str(cell) for cell in row] for row in table])


def _requests(export: Path, rows: int) -> Iterator[Asked]:
    """One row, then one user's candidates: as rows that repeat the user, and by their names."""
    one = a_request(export, "predict")
    yield Asked("predict", "predict", one)
    many = {name: np.repeat(value, rows, axis=0) for name, value in one.items()}
    yield Asked(f"predict, {rows} rows", "predict", many)
    user = a_request(export, "rank")
    user["candidates"] = np.resize(user["candidates"], (1, rows))
    yield Asked(f"rank, {rows} candidates", "rank", user)


def a_request(export: Path, signature: str) -> dict[str, Any]:
    """Arrays by name: one row of raw columns: the first of the export's own warm-up requests."""
    path = str(export / "assets.extra" / "tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        if request.model_spec.signature_name == signature:
            return {name: tf.make_ndarray(v)[:1] for name, v in request.inputs.items()}
    raise click.ClickException(f"{path} has no request for the signature {signature}")


def _row(
    label: str, loop: str, clients: int, batching: str, load: Load, alone: float | None = None
) -> list[Any]:
    """A row of the table.

    Args:
        label, loop, clients, batching: what was measured.
        load: what came of it.
        alone: requests/s without batching.
    """
    milliseconds = [f"{1000 * np.percentile(load.times, q):.2f}" for q in (50, 95, 99)]
    rates = [f"{load.rate:,.0f}", f"{load.rate / alone:.2f}" if alone else ""]
    row = [label, loop, clients, batching, *rates, *milliseconds, f"{load.cores:.2f}"]
    click.echo(" | ".join(map(str, row)))
    return row


def _bare(export: Path, asked: Asked, seconds: float) -> list[Any]:
    call, cpu, begin = bare(export, asked), time.process_time(), time.perf_counter()
    times = bare_times(call, seconds)
    wall = time.perf_counter() - begin
    load = Load(times, len(times) / wall, (time.process_time() - cpu) / wall)
    return _row(f"none: {asked.label}", "closed", 1, "", load)


def bare(export: Path, asked: Asked) -> Callable[[], None]:
    """The signature called in this process, its tensors made and read as a server has to."""
    signature = tf.saved_model.load(str(export)).signatures[asked.signature]

    def call() -> None:
        outputs = signature(**{name: tf.constant(value) for name, value in asked.inputs.items()})
        for value in outputs.values():
            value.numpy()

    for _ in range(20):
        call()
    return call


def bare_times(call: Callable[[], None], seconds: float) -> list[float]:
    """Seconds that each call takes, one after the other for so many seconds."""
    times, begin = [], time.perf_counter()
    while time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


class Running:
    """A server's process and ports."""

    def __init__(self, process: subprocess.Popen[bytes], rest: int, rpc: int) -> None:
        self.process, self.rest, self.rpc = process, rest, rpc

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(base: Path, batching: Batching | None, *more: str) -> Iterator[Running]:
    """A server of the versions in a directory, with more flags."""
    with socket.socket() as one, socket.socket() as two, tempfile.TemporaryDirectory() as place:
        one.bind((HOST, 0))
        two.bind((HOST, 0))
        rest, rpc = one.getsockname()[1], two.getsockname()[1]
        flags = [f"--model_base_path={base}", f"--rest_api_port={rest}", f"--port={rpc}", *more]
        if batching:
            file = Path(place) / "batching.config"
            file.write_text(PARAMETERS.format(**batching._asdict()))
            flags += ["--enable_batching", f"--batching_parameters_file={file}"]
        command = [sys.executable, "-m", "serving.server", "--model_name=model", *flags]
        one.close()
        two.close()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with grpc.insecure_channel(f"{HOST}:{rpc}") as channel:
                grpc.channel_ready_future(channel).result(60)
            yield Running(process, rest, rpc)
        finally:
            process.terminate()
            process.wait()


async def _measure(
    servers: dict[str, Running],
    small: Asked,
    large: list[Asked],
    clients: tuple[int, ...],
    seconds: float,
) -> list[list[Any]]:
    """Rows of a table; servers take turns, so that what the machine does beside hits all alike."""
    table = []
    for api, open_api in (("gRPC", by_grpc), ("REST", by_rest)):
        async with contextlib.AsyncExitStack() as stack:
            asks = {}
            for batching, server in servers.items():
                asks[batching] = await stack.enter_async_context(open_api(server, small))
                await warm(asks[batching])
            for count in clients:
                turns: dict[str, list[Load]] = {batching: [] for batching in servers}
                for _ in range(TURNS):
                    for batching, server in servers.items():
                        asking = [asks[batching]] * count
                        turns[batching].append(await closed(server, asking, seconds / TURNS))
                loads = {batching: Load.of(several) for batching, several in turns.items()}
                for batching, load in loads.items():
                    label = (f"{api}: {small.label}", "closed", count, batching)
                    table.append(_row(*label, load, loads["off"].rate))
            for batching, server in servers.items():
                load = await _open(server, asks[batching], loads[batching].rate / 2, seconds)
                table.append(_row(f"{api}: {small.label}", "open", clients[-1], batching, load))
        for asked in large:  # longer than a batch
            async with open_api(servers["off"], asked) as ask:
                await warm(ask)
                load = await closed(servers["off"], [ask], seconds)
                table.append(_row(f"{api}: {asked.label}", "closed", 1, "off", load))
    return table


async def warm(ask: Ask) -> None:
    """Asks until there is an answer, and then some more."""
    end = time.monotonic() + 60
    for _ in range(50):
        while True:
            try:
                await ask()
                break
            except (AssertionError, grpc.aio.AioRpcError):  # not loaded yet
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def by_grpc(server: Running, asked: Asked) -> AsyncIterator[Ask]:
    """What asks a server over gRPC."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "model", asked.signature
    for name, value in asked.inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    sent = request.SerializeToString()
    async with grpc.aio.insecure_channel(f"{HOST}:{server.rpc}") as channel:
        method = channel.unary_unary(METHOD)

        async def ask() -> None:
            await method(sent)

        yield ask


@contextlib.asynccontextmanager
async def by_rest(server: Running, asked: Asked) -> AsyncIterator[Ask]:
    """What asks a server over REST."""
    columns = {name: _plain(value.tolist()) for name, value in asked.inputs.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    sent = json.dumps({"signature_name": asked.signature, "instances": rows}).encode()
    url = f"http://{HOST}:{server.rest}/v1/models/model:predict"
    async with aiohttp.ClientSession(  # without what costs time that the server could have
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    ) as session:

        async def ask() -> None:
            async with session.post(url, data=sent) as reply:
                body = await reply.read()
                assert reply.status == 200, body

        yield ask


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


async def closed(server: Running, asks: list[Ask], seconds: float) -> Load:
    """What comes of clients that ask again as soon as they have an answer."""
    times: list[float] = []
    cpu, begin = server.cpu(), time.perf_counter()

    async def client(ask: Ask) -> None:
        while time.perf_counter() < begin + seconds:
            start = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(client(ask) for ask in asks))
    wall = time.perf_counter() - begin
    return Load(times, len(times) / wall, (server.cpu() - cpu) / wall)


async def _open(server: Running, ask: Ask, rate: float, seconds: float) -> Load:
    """Latency counts from when a request was due, so that waiting behind others is seen."""
    times: list[float] = []
    gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))
    cpu, begin = server.cpu(), time.perf_counter() + 0.5  # when all of them are waiting

    async def one(due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        await ask()
        times.append(time.perf_counter() - due)

    await asyncio.gather(*(one(begin + after) for after in np.cumsum(gaps)))
    wall = time.perf_counter() - begin
    return Load(times, len(times) / wall, (server.cpu() - cpu) / wall)


if __name__ == "__main__":
    main()
