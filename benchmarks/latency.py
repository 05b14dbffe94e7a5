"""What serving adds to the bare call of a model, and what batches give, in short.

    python -m benchmarks.latency --export runs/wide_deep/export

`python -m benchmarks` compares the ratios; benchmarks.serving has all of it. Rounds of all kinds
follow one another, and of each the best one counts: whatever else the machine does makes it worse.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from benchmarks.serving import HOST, METHOD, running
from tfrec.export import newest_version

CLIENTS = 32  # of which each asks again as soon as it has an answer
ROUNDS = 3
LOADED = 60.0  # seconds until a server has to have the model

Ask = Callable[[], Awaitable[None]]


@click.command()
@click.option("--export", required=True, type=Path, help="Directory of a ranking model's versions.")
@click.option("--seconds", default=1.0, show_default=True, help="Of each measurement.")
def main(export: Path, seconds: float) -> None:
    """Print p50 in milliseconds, bare and by gRPC, and requests/s, by themselves and in batches."""
    version = newest_version(export)
    if version is None:
        raise click.ClickException(f"{export} has no version of a model")
    request = _a_request(version)
    with running(export, batching=False) as alone, running(export, batching=True) as batched:
        ports = (alone.rpc, batched.rpc)
        found = asyncio.run(_measured(_bare(version, request), request, ports, seconds))
    click.echo(json.dumps(found))


def _a_request(version: Path) -> predict_pb2.PredictRequest:
    """One row of raw columns, of the export's own warm-up requests."""
    path = str(version / "assets.extra" / "tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(path):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        if log.request.model_spec.signature_name == "predict":
            log.request.model_spec.name = "model"
            return log.request
    raise click.ClickException(f"{path} has no request for the signature predict")


def _bare(version: Path, request: predict_pb2.PredictRequest) -> Ask:
    """The signature called in this process, its tensors made and read as a server has to."""
    signature = tf.saved_model.load(str(version)).signatures["predict"]
    arrays = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}

    async def ask() -> None:
        for value in signature(**{n: tf.constant(v) for n, v in arrays.items()}).values():
            value.numpy()

    return ask


async def _measured(
    bare: Ask, request: predict_pb2.PredictRequest, ports: tuple[int, int], seconds: float
) -> dict[str, float]:
    channels = [grpc.aio.insecure_channel(f"{HOST}:{port}") for port in ports]
    alone, batched = (_by_rpc(channel, request) for channel in channels)
    for ask in (alone, batched):
        await _loaded(ask)
    wanted = {
        "bare": (bare, 1),
        "grpc": (alone, 1),
        "alone": (alone, CLIENTS),
        "batched": (batched, CLIENTS),
    }
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    for _ in range(ROUNDS):
        for name, (ask, clients) in wanted.items():
            found[name].append(await _asked(ask, clients, seconds))
    for channel in channels:
        await channel.close()
    medians = {f"{n}_ms": 1000 * min(map(np.median, found[n])) for n in ("bare", "grpc")}
    rates = {f"{n}_per_second": max(map(len, found[n])) / seconds for n in ("alone", "batched")}
    return medians | rates


def _by_rpc(channel: grpc.aio.Channel, request: predict_pb2.PredictRequest) -> Ask:
    method, sent = channel.unary_unary(METHOD), request.SerializeToString()

    async def ask() -> None:
        await method(sent)

    return ask


async def _loaded(ask: Ask) -> None:
    end = time.monotonic() + LOADED
    while True:
        try:
            return await ask()
        except grpc.aio.AioRpcError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def _asked(ask: Ask, clients: int, seconds: float) -> list[float]:
    """Seconds of every request of a closed loop."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            start = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(client() for _ in range(clients)))
    return times


if __name__ == "__main__":
    main()
