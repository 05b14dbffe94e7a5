"""Full load on the embedded server while versions come and go.

    python -m benchmarks.soak --minutes 5

Processes of clients ask over gRPC and REST for rows of many sizes, as soon as they have an answer,
and look whether it is that of their own rows. Every ten seconds a new version is copied into the
folder, and the one before the last is removed. Fails when a request failed, and when memory is not
flat: in the last third of the time the server's largest resident size is above that of the middle
third by more than 5% or 20 MiB, whichever is more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.serving import AT_ONCE, HOST, METHOD, running

SIZES = (1, 2, 7, 32)
WIDTH = 4_096  # numbers of the model's table, by 64
PAUSE = 0.5  # seconds between looks at memory

Ask = Callable[[np.ndarray[Any, Any]], Awaitable[Any]]


@dataclass
class Count:
    """What a process of clients has seen in one interval.

    Attributes:
        times: seconds that answers took.
        failures: what was wrong, for each request that failed.
    """

    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@click.command()
@click.option("--minutes", default=5.0, show_default=True, help="Of full load.")
@click.option("--clients", default=16, show_default=True, help="Of each API.")
@click.option("--switch", default=10.0, show_default=True, help="Seconds between new versions.")
@click.option("--report", default=30.0, show_default=True, help="Seconds between lines.")
@click.option("--batching/--no-batching", default=True, show_default=True)
def main(minutes: float, clients: int, switch: float, report: float, batching: bool) -> None:
    """Load the server until it fails, or the time is over."""
    with tempfile.TemporaryDirectory() as place:
        _save_in_a_process(Path(place) / "model")
        base = Path(place) / "base"
        shutil.copytree(Path(place) / "model", base / "1")
        joined = AT_ONCE if batching else None
        with running(base, joined, "--file_system_poll_wait_seconds=0.2") as server:
            _wait(f"http://{HOST}:{server.rest}/v1/models/model")
            failures = _soak(server, base, 60 * minutes, clients, switch, report)
    if failures:
        raise click.ClickException("\n".join(failures))


def _soak(
    server: Any, base: Path, seconds: float, clients: int, switch: float, report: float
) -> list[str]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_clients, args=(api, port, clients, seconds, queue), daemon=True)
        for api, port in (("grpc", server.rpc), ("rest", server.rest))
    ]
    for process in processes:
        process.start()
    total, sizes, versions = Count(), [], [1]
    shown = queue.get(timeout=60)  # they have begun
    begin = time.time()
    switched = told = begin
    click.echo("seconds | requests | failures | p99 ms | resident MiB | version")
    while any(process.is_alive() for process in processes) or not queue.empty():
        time.sleep(PAUSE)
        while not queue.empty():
            count = queue.get()
            shown.times += count.times
            shown.failures += count.failures
        now = time.time()
        sizes.append((now - begin, server.resident()))
        if now - switched >= switch and now - begin < seconds:
            switched = now
            versions.append(_next(base, versions))
        if now - told >= report:
            told = now
            _tell(now - begin, shown, sizes[-1][1], versions[-1])
            total, shown = _added(total, shown), Count()
    total = _added(total, shown)
    click.echo("in all:")
    _tell(time.time() - begin, total, sizes[-1][1], versions[-1])
    wrong = (
        [f"{len(total.failures)} requests failed: {total.failures[0]}"] if total.failures else []
    )
    if not total.times:
        wrong.append("no request was answered")
    if server.process.poll() is not None:
        wrong.append(f"the server ended with {server.process.returncode}")
    if len(versions) < 2:
        wrong.append("no version was switched")
    return wrong + not_flat([size for at, size in sizes if at < seconds])


def _wait(url: str) -> None:
    end = time.time() + 60
    while time.time() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
            if b"AVAILABLE" in reply.read():
                return
        time.sleep(0.1)
    raise click.ClickException("the server has no version after a minute")


def not_flat(sizes: list[int]) -> list[str]:
    """What is wrong with the memory, from resident sizes in bytes at equal times."""
    third = len(sizes) // 3
    middle, last = max(sizes[third : 2 * third]), max(sizes[2 * third :])
    click.echo(
        f"memory: {middle / 2**20:.0f} MiB in the middle third, {last / 2**20:.0f} in the last"
    )
    if last > middle + max(0.05 * middle, 20 * 2**20):
        return [f"memory grew from {middle / 2**20:.0f} to {last / 2**20:.0f} MiB"]
    return []


def _added(one: Count, other: Count) -> Count:
    return Count(one.times + other.times, one.failures + other.failures)


def _tell(at: float, count: Count, resident: int, version: int) -> None:
    p99 = 1000 * np.percentile(count.times, 99) if count.times else float("nan")
    failed, done = len(count.failures), len(count.times)
    cells = f"{at:.0f}", f"{done:,}", f"{failed}", f"{p99:.1f}", f"{resident / 2**20:.0f}"
    click.echo(" | ".join([*cells, f"{version}"]))


def _next(base: Path, versions: list[int]) -> int:
    """Copies a new version into the folder, not all at once, and removes an old one."""
    shutil.copytree(base / str(versions[-1]), base / str(versions[-1] + 1))
    if len(versions) > 1:
        shutil.rmtree(base / str(versions[-2]))
    return versions[-1] + 1


def _clients(api: str, port: int, clients: int, seconds: float, queue: Any) -> None:
    asyncio.run({"grpc": _grpc, "rest": _rest}[api](port, clients, seconds, queue))


async def _load(ask: Ask, clients: int, seconds: float, queue: Any) -> None:
    count, end = Count(), time.time() + seconds

    async def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.time() < end:
            ids = random.integers(0, WIDTH, random.choice(SIZES))
            start = time.perf_counter()
            try:
                answer = await ask(ids)
                if not np.array_equal(answer, ids):
                    raise AssertionError(f"answer {answer} for {ids}")
            except Exception as error:  # whatever it is, it is what is counted
                count.failures.append(repr(error)[:500])
                await asyncio.sleep(0.1)
            count.times.append(time.perf_counter() - start)

    async def tell() -> None:
        while True:
            await asyncio.sleep(1)
            queue.put(Count(count.times[:], count.failures[:]))
            count.times.clear()
            count.failures.clear()

    telling = asyncio.create_task(tell())
    await asyncio.gather(*(client(seed) for seed in range(clients)))
    telling.cancel()
    queue.put(count)


async def _grpc(port: int, clients: int, seconds: float, queue: Any) -> None:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        method = channel.unary_unary(
            METHOD,
            predict_pb2.PredictRequest.SerializeToString,
            predict_pb2.PredictResponse.FromString,
        )

        async def ask(ids: np.ndarray[Any, Any]) -> Any:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "model"
            request.inputs["id"].CopyFrom(tf.make_tensor_proto(ids, tf.int64))
            reply = await method(request, timeout=30)
            return list(reply.outputs["id"].int64_val)

        await _load(ask, clients, seconds, queue)


async def _rest(port: int, clients: int, seconds: float, queue: Any) -> None:
    import aiohttp

    url = f"http://{HOST}:{port}/v1/models/model:predict"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(ids: np.ndarray[Any, Any]) -> Any:
            async with session.post(url, data=json.dumps({"inputs": ids.tolist()})) as reply:
                body = await reply.json()
                assert reply.status == 200, body
                return body["outputs"]["id"]

        await _load(ask, clients, seconds, queue)


def _save_in_a_process(directory: Path) -> None:
    command = [sys.executable, "-c", f"from benchmarks import soak; soak.save({str(directory)!r})"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def save(directory: str) -> None:
    """A SavedModel like an export's: a table of texts, one of vectors, and layers on top."""
    import tensorflow as tf

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors = tf.Variable(tf.random.normal([WIDTH, 64]))
            self.dense = tf.Variable(tf.random.normal([64, 64]))
            texts = tf.lookup.KeyValueTensorInitializer(
                [str(number) for number in range(WIDTH)], tf.range(WIDTH, dtype=tf.int64)
            )
            self.table = tf.lookup.StaticHashTable(texts, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "id")])
        def predict(self, id: Any) -> Any:
            found = self.table.lookup(tf.strings.as_string(id))
            hidden = tf.nn.relu(tf.gather(self.vectors, found) @ self.dense)
            return {"id": found, "score": tf.sigmoid(tf.reduce_sum(hidden, 1))}

    model = Model()
    tf.saved_model.save(model, directory, {"serving_default": model.predict})


if __name__ == "__main__":
    main()
