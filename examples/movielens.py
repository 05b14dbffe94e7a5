"""Serves exported MovieLens models, asks them in every way, and recommends movies to a user.

    python examples/movielens.py --run runs/wide_deep --recommender runs/recommender

The server is stopped at the end, whatever happens.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

USER_COLUMNS = ("userId", "timestamp", "liked_movieId", "liked_genres")
ITEM_COLUMNS = ("movieId", "genres", "year")


@click.command()
@click.option("--run", "run_directory", required=True, type=Path, help="Run directory.")
@click.option("--recommender", type=Path, help="Where `python -m tfrec.recommend` has exported.")
@click.option("--user", help="Id of a user in the sample; one with a long history unless given.")
def main(run_directory: Path, recommender: Path | None, user: str | None) -> None:
    """Serve a run's export, send a request of each kind and print recommendations."""
    from tfrec.cli import quiet_import

    with quiet_import():
        import tensorflow as tf  # noqa: F401

    data = _data_directory(run_directory)
    example, row = _request_of(data, user)
    with _server(run_directory / "export") as (rest, grpc):
        _every_kind(rest, grpc, example, row)
        _rank(grpc, data, row)
    if recommender:
        with _server(recommender / "export") as (rest, _):
            _recommend(rest, data, row)


def _data_directory(run_directory: Path) -> Path:
    import yaml

    config = run_directory / "config.yaml"
    if not config.is_file():
        raise click.ClickException(f"{run_directory} is no run: it has no config.yaml")
    return Path(yaml.safe_load(config.read_text())["data"])


@contextlib.contextmanager
def _server(base_path: Path) -> Iterator[tuple[str, str]]:
    """The embedded server; yields its REST and gRPC addresses."""
    rest, grpc = _free_port(), _free_port()
    command = [
        sys.executable,
        "-m",
        "serving.server",
        "--model_name=movielens",
        f"--model_base_path={base_path}",
        f"--rest_api_port={rest}",
        f"--port={grpc}",
    ]
    print("$ " + " ".join(["python", *command[1:]]))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_available(process, rest)
        yield f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        print("server stopped")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_available(process: subprocess.Popen[str], port: int) -> None:
    url = f"http://127.0.0.1:{port}/v1/models/movielens"
    for _ in range(600):
        if process.poll() is not None:
            assert process.stderr
            raise click.ClickException(f"the server ended: {process.stderr.read().strip()}")
        with contextlib.suppress(OSError):
            status = json.load(urllib.request.urlopen(url))["model_version_status"]
            if status[0]["state"] == "AVAILABLE":
                return
        time.sleep(0.1)
    raise click.ClickException("the server did not load the model within a minute")


def _request_of(data: Path, user: str | None) -> tuple[bytes, dict[str, Any]]:
    """A test example as it would be sent: serialized, and as raw columns."""
    import tensorflow as tf

    best: tuple[bytes, dict[str, Any]] | None = None
    for record in tf.data.TFRecordDataset(str(data / "sample.tfrecord")):
        example = record.numpy()
        row = _columns(tf.train.Example.FromString(example))
        if user in (None, row["userId"]) and (
            best is None or len(row["liked_movieId"]) > len(best[1]["liked_movieId"])
        ):
            best = example, row
    if best is None:
        raise click.ClickException(f"user {user} is not in {data / 'sample.tfrecord'}")
    return best


def _columns(example: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, feature in example.features.feature.items():
        values = list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)
        values = [v.decode() if isinstance(v, bytes) else v for v in values]
        row[name] = values if name.startswith("liked_") else values[0]
    return row


def _every_kind(rest: str, grpc_address: str, example: bytes, row: dict[str, Any]) -> None:
    """One request of each kind; all have to give the same score."""
    import tensorflow as tf

    status = _get(f"{rest}/v1/models/movielens")["model_version_status"][0]
    print(f"\nGET  status: version {status['version']} {status['state']}")
    metadata = _get(f"{rest}/v1/models/movielens/metadata")
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    for name, signature in sorted(signatures.items()):
        print(f"GET  metadata: {name}({', '.join(sorted(signature['inputs']))})")
    url = f"{rest}/v1/models/movielens:predict"
    rows = {"signature_name": "predict", "instances": [row]}
    columns = {"signature_name": "predict", "inputs": {k: [v] for k, v in row.items()}}
    encoded = {"instances": [{"b64": base64.b64encode(example).decode()}]}
    named = {k: tf.constant([v], _dtype(k)) for k, v in row.items()}
    scores = {
        "POST predict, row of raw columns": _post(url, rows)["predictions"][0],
        "POST predict, raw columns": _post(url, columns)["outputs"][0],
        "POST predict, serialized tf.Example": _post(url, encoded)["predictions"][0],
        "gRPC Predict, raw columns": _predict(grpc_address, "predict", named)[0],
        "gRPC Predict, serialized tf.Example": _predict(
            grpc_address, "serving_default", {"examples": tf.constant([example])}
        )[0],
    }
    for name, score in scores.items():
        print(f"{name}: {score:.4f}")
    if max(scores.values()) - min(scores.values()) > 1e-5:
        raise click.ClickException("the answers differ")


def _dtype(column: str) -> Any:
    import tensorflow as tf

    return {"timestamp": tf.int64, "year": tf.float32}.get(column, tf.string)


def _get(url: str) -> Any:
    return json.load(urllib.request.urlopen(url))


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        raise click.ClickException(f"{url}: {error.read().decode()}") from None


def _predict(address: str, signature: str, inputs: dict[str, Any]) -> Any:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "movielens"
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return tf.make_ndarray(stub.Predict(request, timeout=30).outputs["like"])


def _rank(grpc_address: str, data: Path, row: dict[str, Any]) -> None:
    """Ranks all movies of the catalogue that the user is not known to like, in one request."""
    import pyarrow.parquet as pq
    import tensorflow as tf

    items = pq.read_table(data / "items").to_pandas()
    titles = dict(zip(items.movieId, items.title, strict=True))
    candidates = items[~items.movieId.isin(row["liked_movieId"])]
    count = len(candidates)
    inputs = {name: tf.constant([row[name]] * count, _dtype(name)) for name in USER_COLUMNS}
    for name in ITEM_COLUMNS:
        inputs[name] = tf.constant(candidates[name].to_numpy(), _dtype(name))
    scores = _predict(grpc_address, "predict", inputs)
    ranked = candidates.assign(score=scores).sort_values("score", ascending=False).head(10)
    liked = [titles[movie] for movie in reversed(row["liked_movieId"])]
    print(f"\nUser {row['userId']}: {count:,} movies ranked\n")
    print(f"{'liked, newest first':<44}    ranked first")
    best = zip(ranked.score, ranked.title, strict=True)
    for title, (score, movie) in zip([*liked, *[""] * 10], best, strict=False):
        print(f"{title[:44]:<44}    {score:.3f}  {movie[:44]}")
    print()


def _recommend(rest: str, data: Path, row: dict[str, Any]) -> None:
    """Asks for recommendations: the server finds candidates and ranks them, without seen ones."""
    import pyarrow.parquet as pq

    items = pq.read_table(data / "items").to_pandas()
    titles = dict(zip(items.movieId, items.title, strict=True))
    request = {name: row[name] for name in USER_COLUMNS}
    request |= {"k": 10, "exclude_seen": True, "exclude": [""]}
    body = {"signature_name": "recommend", "instances": [request]}
    url = f"{rest}/v1/models/movielens:predict"
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        answer = _post(url, body)["predictions"][0]
        seconds.append(time.perf_counter() - started)
    median = 1000 * statistics.median(seconds)
    print(f"\nPOST predict, recommend: {median:.1f} ms a request, the median of {len(seconds)}\n")
    print(f"{'retrieval':>9}  {'ranking':>9}  recommended to user {row['userId']}")
    columns = (answer[name] for name in ("retrieval_scores", "scores", "items"))
    for retrieved, ranked, item in zip(*columns, strict=True):
        print(f"{retrieved:>9.3f}  {ranked:>9.3f}  {titles[item]}")
    print()


if __name__ == "__main__":
    main()
