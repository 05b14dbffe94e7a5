"""Latency of `recommend` in two stages, asked of the embedded server over gRPC and REST.

    python -m benchmarks.two_stages --items 10000 --candidates 500 --model wide_deep --model din

Events are generated; the models are trained for one epoch each, since quality does not matter here.
"""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

HISTORY = 50
USERS = 2_000
DECLARATION = """
name: latency
source: {{format: csv, path: {path}}}
user: user
item: item
time: time
features:
  user: {{kind: category, role: user}}
  item: {{kind: category, role: item}}
  tags: {{kind: category, role: item, separator: "|"}}
  price: {{kind: number, role: item}}
labels:
  like: {{column: like}}
histories:
  liked: {{length: 50, features: [item, tags], where: like}}
crosses:
  - {{features: [user, tags], buckets: 20000}}
  - {{features: [liked_item, item], buckets: 200000}}
split: {{kind: user_time, fractions: [0.8, 0.1, 0.1]}}
"""


@click.command()
@click.option("--items", default=10_000, show_default=True)
@click.option("--candidates", default=500, show_default=True)
@click.option("--model", "models", multiple=True, default=["wide_deep"], show_default=True)
@click.option("--requests", default=200, show_default=True)
def main(items: int, candidates: int, models: tuple[str, ...], requests: int) -> None:
    """Print a table of milliseconds per request of one user, one client."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _events(place, items)
        _run("pipeline", "run", "--config", place / "data.yaml", "--output", place / "data")
        _train(place, "mf")
        click.echo("| ranking | API | median ms | 95% ms |\n| --- | --- | --- | --- |")
        for model in models:
            _train(place, model)
            both = ["--retrieval", place / "mf", "--ranking", place / model]
            export = place / f"mf_{model}" / "export"
            _run("tfrec.recommend", *both, "--output", export, "--candidates", candidates)
            with _server(export) as (rest, rpc):
                for name, ask in (("gRPC", _grpc(rpc)), ("REST", _rest(rest))):
                    times = 1000 * np.array(_times(ask, requests))
                    middle, high = np.percentile(times, [50, 95])
                    click.echo(f"| `{model}` | {name} | {middle:.1f} | {high:.1f} |")


def _events(place: Path, items: int) -> None:
    rng = np.random.default_rng(0)
    with (place / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "tags", "price", "like", "time"])
        everything = rng.permutation(np.resize(np.arange(items), max(items, USERS * 2 * HISTORY)))
        for number, item in enumerate(everything):
            tags = f"t{item % 17}|t{item % 13}"
            writer.writerow([number % USERS, item, tags, item % 100, item % 3 and 1, number])
    (place / "data.yaml").write_text(DECLARATION.format(path=place / "events.csv"))


def _train(place: Path, model: str) -> None:
    data = ["--data", place / "data" / "transform", "--model", model, "--output", place / model]
    _run("tfrec.train", *data, "--set", "epochs=1", "--no-export")


def _run(module: str, *arguments: Any) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def _server(export: Path) -> Iterator[tuple[int, int]]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        rest, rpc = one.getsockname()[1], two.getsockname()[1]
    flags = [f"--model_base_path={export}", f"--rest_api_port={rest}", f"--port={rpc}"]
    command = [sys.executable, "-m", "serving.server", "--model_name=model", *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not _answers(rest):
            time.sleep(0.2)
        yield rest, rpc
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        url = f"http://127.0.0.1:{port}/v1/models/model"
        status = json.load(urllib.request.urlopen(url))["model_version_status"]
        return status[0]["state"] == "AVAILABLE"
    return False


def _request(number: int) -> dict[str, Any]:
    items = [str(item) for item in range(number, number + HISTORY)]
    tags = ["t1|t2"] * HISTORY
    columns = {"user": str(number), "liked_item": items, "liked_tags": tags}
    return {**columns, "k": 10, "exclude_seen": True, "exclude": [""]}


def _rest(port: int) -> Callable[[int], Any]:
    url = f"http://127.0.0.1:{port}/v1/models/model:predict"

    def ask(number: int) -> None:
        body = {"signature_name": "recommend", "instances": [_request(number)]}
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())).read()

    return ask


def _grpc(port: int) -> Callable[[int], Any]:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def ask(number: int) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "model"
        request.model_spec.signature_name = "recommend"
        for name, value in _request(number).items():
            dtype = tf.int32 if name == "k" else None
            request.inputs[name].CopyFrom(tf.make_tensor_proto([value], dtype))
        stub.Predict(request)

    return ask


def _times(ask: Callable[[int], Any], requests: int) -> list[float]:
    times = []
    for number in range(-20, requests):
        started = time.perf_counter()
        ask(abs(number))
        if number >= 0:
            times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
