"""Examples per second of training, by size of the tables, from memory and from TFRecords.

    python -m benchmarks.throughput --rows 1000000 --rows 10000000 --rounds 3 --against PYTHON

The work: 26 categories with ids by Zipf's law and 13 numbers, embeddings of 16, an MLP of 256 and
128, batches of 4,096; `rows` are those of all tables together. Every measurement is a process of
its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

CATEGORIES, NUMBERS, BATCH = 26, 13, 4096
STORED_BATCHES = 60
WARM_UP_STEPS = 20
SOURCES = ("memory", "tfrecord")
SETTINGS = {"dim": 16, "hidden": [256, 128], "dropout": 0.0}


@click.command()
@click.option("--model", default="deepfm", show_default=True, help="Id of the model.")
@click.option(
    "--rows",
    multiple=True,
    type=click.IntRange(min=CATEGORIES),
    default=(1_000_000,),
    show_default=True,
    help="Of all tables together.",
)
@click.option("--source", "sources", multiple=True, default=SOURCES, type=click.Choice(SOURCES))
@click.option("--optimizer", default="row_sparse_adam", show_default=True, help="Of the tables.")
@click.option("--precision", default="float32", show_default=True)
@click.option("--jit", is_flag=True, help="Losses and gradients by XLA.")
@click.option("--seconds", default=20.0, show_default=True, help="Measured, after a warm-up.")
@click.option("--rounds", default=1, show_default=True, help="Of which the median is shown.")
@click.option(
    "--against",
    "others",
    multiple=True,
    metavar="PYTHON",
    help="Another environment's Python, with torch-rechub or DeepCTR: the same there, in turn.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--measure", is_flag=True, hidden=True)
def main(
    model: str,
    rows: tuple[int, ...],
    sources: tuple[str, ...],
    optimizer: str,
    precision: str,
    jit: bool,
    seconds: float,
    rounds: int,
    others: tuple[str, ...],
    as_json: bool,
    measure: bool,
) -> None:
    """Measure the throughput of training."""
    if measure:
        found = measured(model, SETTINGS, rows[0], sources[0], optimizer, precision, jit, seconds)
        click.echo(json.dumps(found))
        return
    if others and model != "deepfm":
        raise click.UsageError("--against has deepfm only")
    if not as_json:
        click.echo("| model | optimizer | rows | source | examples/s | peak memory |")
        click.echo("| --- | --- | --- | --- | --- | --- |")
    own = [sys.executable, "-m", "benchmarks.throughput", "--measure"]
    own += ["--model", model, "--optimizer", optimizer]
    own += ["--precision", precision, "--seconds", str(seconds), *(["--jit"] if jit else [])]
    for size in rows:
        runs = {source: [*own, "--rows", str(size), "--source", source] for source in sources}
        with tempfile.TemporaryDirectory() as place:
            peer = _peer(size, seconds, place) if others else []
            runs |= {other: [other, *peer] for other in others}
            found = [(run, _run(command)) for _ in range(rounds) for run, command in runs.items()]
        rates = {}
        for run in runs:
            of_run = sorted((f for r, f in found if r == run), key=_rate)
            middle = of_run[len(of_run) // 2]
            rates[run] = _rate(middle)
            source = "memory" if run in others else run
            if as_json:
                values = {"model": model, "rows": size, "source": source, **middle}
                click.echo(json.dumps(values))
            else:
                click.echo(
                    f"| `{middle.get('package', model)}` | "
                    f"{'adam' if run in others else optimizer} | {size:,} | {source} | "
                    f"{_rate(middle):,.0f} | {middle['peak_memory_bytes'] / 2**30:.2f} GiB |"
                )
        for source in sources if others else ():
            ratio = rates[source] / max(rates[other] for other in others)
            text = f"{size:,} rows, {source}: {ratio:.2f} times the best of the others"
            click.echo(text, err=as_json)


def _rate(found: dict[str, Any]) -> float:
    return found["examples_per_second"]


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException((done.stderr.strip().splitlines() or ["killed"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _peer(rows: int, seconds: float, place: str) -> list[str]:
    """Arguments for the other environment's Python."""
    arrays = {name: a.reshape(STORED_BATCHES, BATCH) for name, a in _arrays(rows).items()}
    np.savez(f"{place}/arrays.npz", **arrays)
    work = {
        "rows": rows, "categories": CATEGORIES, "numbers": NUMBERS, "dim": SETTINGS["dim"],
        "hidden": SETTINGS["hidden"], "arrays": f"{place}/arrays.npz", "batches": STORED_BATCHES,
        "batch": BATCH, "warm_up": 3, "seconds": seconds,
    }  # fmt: skip
    return [str(Path(__file__).parent / "peer.py"), json.dumps(work)]


def measured(
    model: str,
    hyperparameters: dict[str, Any],
    rows: int,
    source: str,
    optimizer: str = "row_sparse_adam",
    precision: str = "float32",
    jit: bool = False,
    seconds: float = 20.0,
    warm_up: int = WARM_UP_STEPS,
) -> dict[str, Any]:
    """Examples per second, and the peak memory of this process."""
    import tensorflow as tf
    import tf_keras as keras

    from tfrec.config import OptimizersConfig
    from tfrec.models.registry import find
    from tfrec.optimizers import composite

    keras.mixed_precision.set_global_policy(precision)
    features = _features(rows)
    arrays = _arrays(rows)
    built = find(model).load()(features, **hyperparameters)
    configs = OptimizersConfig.parse({"embedding": {"name": optimizer}}, "benchmark")
    built.compile(composite(built.groups(), dict(configs)), jit=jit)
    with tempfile.TemporaryDirectory() as place:
        batches = _from_memory(arrays) if source == "memory" else _stored(arrays, features, place)
        train = built.make_train_function()
        iterator = iter(batches)
        for _ in range(warm_up):
            train(iterator)
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            tf.get_static_value(train(iterator)["loss"])
            steps += 1
        elapsed = time.perf_counter() - started
    return {
        "examples_per_second": round(steps * BATCH / elapsed),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _features(rows: int) -> Any:
    from tfrec.features import Feature, Features, Label, Table

    names = [f"c{i}" for i in range(CATEGORIES)]
    return Features(
        name="synthetic",
        features=(
            *(Feature(name, "category", "context", name) for name in names),
            *(Feature(f"n{i}", "number", "context") for i in range(NUMBERS)),
        ),
        tables=tuple(Table(name, rows // CATEGORIES) for name in names),
        labels=(Label("click"),),
        counts={"train": STORED_BATCHES * BATCH},
    )


def _arrays(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    count, size = STORED_BATCHES * BATCH, rows // CATEGORIES
    arrays: dict[str, Any] = {
        f"c{i}": 1 + (rng.zipf(1.2, count) - 1) % size for i in range(CATEGORIES)
    }
    for i in range(NUMBERS):
        arrays[f"n{i}"] = rng.normal(size=count).astype(np.float32)
    arrays["label:click"] = (rng.random(count) < 0.25).astype(np.float32)
    return arrays


def _from_memory(arrays: dict[str, Any]) -> Any:
    import tensorflow as tf

    inputs = {
        name: array.reshape(STORED_BATCHES, BATCH)
        for name, array in arrays.items()
        if name != "label:click"
    }
    labels = {"click": arrays["label:click"].reshape(STORED_BATCHES, BATCH)}
    weights = np.ones((STORED_BATCHES, BATCH), np.float32)
    return tf.data.Dataset.from_tensor_slices((inputs, labels, weights)).repeat().prefetch(2)


def _stored(arrays: dict[str, Any], features: Any, place: str) -> Any:
    """What `tfrec.train` reads: shards of a data set directory, pass after pass."""
    import pyarrow as pa
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    from tfrec.data import training_batches

    folder = Path(place) / "examples"
    folder.mkdir()
    columns = {
        key: np.stack([arrays[field.name] for field in fields], axis=1)
        for key, fields in features.packed.items()
    }
    columns["label:click"] = arrays["label:click"][:, np.newaxis]
    shards = 8
    for shard in range(shards):
        batch = pa.RecordBatch.from_pydict(
            {name: pa.array(list(values[shard::shards])) for name, values in columns.items()}
        )
        path = folder / f"train-{shard:05d}-of-{shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in RecordBatchToExamplesEncoder(None).encode(batch):
                writer.write(example)
    return training_batches(place, features, BATCH, 0, range(20)).repeat()


if __name__ == "__main__":
    main()
