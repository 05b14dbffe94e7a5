"""Peak memory of measuring by slice, by the number of events.

    python -m benchmarks.evaluation --events 1000000 --events 16000000

One part of the data set is written, and stands in all places: 1,000 users and 10,000 items, of whom
there are more and more events. Scores come from the examples themselves, so that no model is in the
figures. Every row is a process of its own.
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

PART = 100_000  # examples, and events
USERS, ITEMS = 1_000, 10_000
SLICES = ("user_events", "item_count", "score")
REPLICATES = 50


@click.command()
@click.option("--examples", default=200_000, show_default=True, help="Of the split.")
@click.option("--events", "sizes", multiple=True, type=int, default=[1_000_000, 16_000_000])
@click.option("--measure", is_flag=True, hidden=True)
def main(examples: int, sizes: tuple[int, ...], measure: bool) -> None:
    """Measure the memory of an evaluation."""
    if measure:
        click.echo(json.dumps(measured(examples, sizes[0])))
        return
    click.echo("| examples | training events | seconds | peak memory |")
    click.echo("| --- | --- | --- | --- |")
    for events in sizes:
        command = [sys.executable, "-m", "benchmarks.evaluation", "--measure"]
        command += ["--examples", str(examples), "--events", str(events)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
            raise click.ClickException(lines[-1])
        found = json.loads(done.stdout.splitlines()[-1])
        memory = found["peak_memory_bytes"] / 2**30
        click.echo(f"| {examples:,} | {events:,} | {found['seconds']} | {memory:.2f} GiB |")


def measured(examples: int, events: int) -> dict[str, Any]:
    """Seconds of an evaluation, and the peak memory of this process.

    Args:
        examples, events: how many, in whole parts.
    """
    from tfrec.evaluation import Evaluator

    with tempfile.TemporaryDirectory() as place:
        features = _write(Path(place), examples // PART, events // PART)
        measuring = Evaluator(place, features, "test")
        started = time.perf_counter()
        measuring.measured(
            "benchmark",
            lambda inputs, keys: {"click": inputs["score"].numpy()},
            SLICES,
            REPLICATES,
            alone=True,
        )
        seconds = round(time.perf_counter() - started, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak_memory_bytes": peak}


def _write(place: Path, examples: int, events: int) -> Any:
    """A data set of so many parts of both; returns its features."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    from tfrec.features import ITEM_KEY, NUMBERS, TIME_KEY, USER_KEY, Feature, Features, Label

    rng = np.random.default_rng(0)
    users = pa.array(f"user {i}" for i in rng.integers(USERS, size=PART))
    items = pa.array(f"item {i}" for i in (rng.zipf(1.2, PART) - 1) % ITEMS)
    scores = rng.random(PART, np.float32)
    labels = (rng.random(PART) < scores).astype(np.float32)
    times = np.zeros(PART, np.int64)
    columns = {
        USER_KEY: users.cast(pa.binary()),
        ITEM_KEY: items.cast(pa.binary()),
        TIME_KEY: times,
        NUMBERS: scores,
        "label:click": labels,
    }
    lists = {
        name: pa.LargeListArray.from_arrays(np.arange(PART + 1), pa.array(values))
        for name, values in columns.items()
    }
    (place / "examples").mkdir()
    (place / "interactions").mkdir()
    with tf.io.TFRecordWriter(str(place / "part.tfrecord")) as writer:
        for example in RecordBatchToExamplesEncoder(None).encode(pa.RecordBatch.from_pydict(lists)):
            writer.write(example)
    table = {"user": users, "item": items, "split": pa.array(["train"] * PART)}
    pq.write_table(pa.table(table), place / "part.parquet")
    for part in range(examples):
        path = place / "examples" / f"test-{part:05d}-of-{examples:05d}.tfrecord"
        path.symlink_to(place / "part.tfrecord")
    for part in range(events):
        (place / "interactions" / f"{part}.parquet").symlink_to(place / "part.parquet")
    features = Features(
        "synthetic",
        (Feature("score", "number", "context"),),
        (),
        (Label("click"),),
        user_key="user",
        item_key="item",
        counts={"test": examples * PART},
    )
    features.save(place)
    return features


if __name__ == "__main__":
    main()
