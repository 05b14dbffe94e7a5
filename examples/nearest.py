"""Loads an export's item vectors into Faiss, and compares what it finds with `recommend`.

    python examples/nearest.py --export runs/two_tower/export/1

Needs the extra `index`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

K = 10


@click.command()
@click.option("--export", required=True, type=Path, help="A version of an export.")
def main(export: Path) -> None:
    """Print how many of the best items of some users the index finds."""
    path = export / "assets.extra" / "item_vectors.parquet"
    if not path.is_file():
        raise click.ClickException(
            f"{path} is not there: only a version of a model whose scores are products of vectors "
            "has it (two_tower, mf, youtube_dnn, sasrec, …)"
        )

    import faiss
    import numpy as np
    import pyarrow.parquet as pq
    import tensorflow as tf

    table = pq.read_table(path)
    items = np.array(table["item"].to_pylist())
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    signatures = tf.saved_model.load(str(export)).signatures
    request = _request(export)
    exact = signatures["recommend"](**request)["items"].numpy().astype(str)
    names = signatures["user_vectors"].structured_input_signature[1]
    users = signatures["user_vectors"](**{name: request[name] for name in names})["vectors"]
    _, places = index.search(users.numpy(), K)
    found = [len(set(items[row]) & set(best)) for row, best in zip(places, exact, strict=True)]
    print(f"{len(items):,} items; of the best {K} of {len(found)} users Faiss found", end=" ")
    print(f"{np.mean(found):.2f}")


def _request(export: Path) -> dict[str, Any]:
    """The largest of the requests that the export warms up with, with nothing left out."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(export / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log for r in records]
    asked = [log.request for log in logs if log.request.model_spec.signature_name == "recommend"]
    request = {n: tf.constant(tf.make_ndarray(v)) for n, v in asked[-1].inputs.items()}
    return {**request, "exclude_seen": tf.zeros_like(request["exclude_seen"])}


if __name__ == "__main__":
    main()
