"""The pipeline's speed and memory on generated events.

    python -m benchmarks.pipeline --rows 1000000

Every step is a process of its own, so that its peak of memory is its own too. Events are of Zipf
distributed items, with vocabularies (users, items, brands, tags), a history with two features,
crosses and a label. The table goes into docs/results.md.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import write

PLACE = Path("runs/pipeline")
STEPS = ("ingest", "statistics", "schema", "validation", "transform")
FILES = 8
EVENTS_OF_USER = 50

DECLARATION = """
name: generated
source: {{format: parquet, path: "{path}"}}
user: user
item: item
time: time
features:
  user: {{kind: category, role: user}}
  item: {{kind: category, role: item, min_count: 2, oov_buckets: 16}}
  brand: {{kind: category, role: item}}
  tags: {{kind: category, role: item, separator: "|"}}
  session: {{kind: category, role: context, hash_buckets: 100000}}
  price: {{kind: number, role: item, normalise: log}}
  age: {{kind: buckets, role: user, buckets: 10}}
  hour: {{kind: hour, role: context}}
labels:
  click: {{column: click}}
histories:
  clicked: {{length: 20, features: [item, brand], where: click}}
crosses:
  - {{features: [user, brand], buckets: 100000}}
  - {{features: [clicked_item, item], buckets: 1000000}}
split: {{kind: user_time, fractions: [0.8, 0.1, 0.1]}}
"""


@click.command()
@click.option("--rows", "sizes", multiple=True, type=int, default=[1_000_000], show_default=True)
def main(sizes: tuple[int, ...]) -> None:
    """Measure every step on so many generated events."""
    table = []
    for rows in sizes:
        total, peak = 0.0, 0.0
        for step, seconds, memory in measured(rows, PLACE):
            total, peak = total + seconds, max(peak, memory)
            table.append(_row(rows, f"`{step}`", seconds, memory))
        table.append(_row(rows, "all", total, peak))
    command = "python -m benchmarks.pipeline" + "".join(f" --rows {rows}" for rows in sizes)
    write("pipeline", command, ("events", "step", "seconds", "events/s", "peak MiB"), table)


def measured(rows: int, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Every step's name, seconds without the imports, and peak memory in MiB.

    Args:
        rows: events to generate.
        folder: where they and all outputs go.
    """
    place = folder / str(rows)
    shutil.rmtree(place, ignore_errors=True)
    # In a process of its own: what a parent has ever held counts as its children's peak.
    generating = multiprocessing.get_context("spawn").Process(
        target=_generate, args=(place / "events", rows)
    )
    generating.start()
    generating.join()
    config = place / "generated.yaml"
    config.write_text(DECLARATION.format(path=place / "events" / "*.parquet"))
    for step in STEPS:
        yield step, *_run(config, place / "out", step)


def _row(rows: int, step: str, seconds: float, memory: float) -> list[str]:
    rate = f"{rows / seconds:,.0f}" if seconds > 0.1 else ""
    row = [f"{rows:,}", step, f"{seconds:.1f}", rate, f"{memory:,.0f}"]
    click.echo(" | ".join(row))
    return row


def _run(config: Path, output: Path, step: str) -> tuple[float, float]:
    """Seconds of one step, without the imports, and MiB."""
    command = [sys.executable, "-m", "pipeline", "run", "--config", str(config)]
    process = subprocess.Popen([*command, "--output", str(output), "--only", step])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException(f"step {step} failed")
    about = json.loads((output / step / "step.json").read_text())
    return about["seconds"], usage.ru_maxrss / 1024


def _generate(folder: Path, rows: int) -> None:
    """Parquet files of events in order of time, a user's events spread over all of them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    users, items = max(rows // EVENTS_OF_USER, 1), max(rows // 100, 10)
    for index in range(FILES):
        count = rows // FILES
        user = rng.integers(users, size=count)
        item = np.minimum(rng.zipf(1.3, count) - 1, 10**9) % items
        time_ = 1_600_000_000 + (index * count + np.arange(count)) // 2
        columns = {
            "user": np.char.add("u", user.astype(str)),
            "item": np.char.add("i", item.astype(str)),
            "brand": np.char.add("b", (item % 997).astype(str)),
            "tags": [f"t{i % 17}|t{i % 13}|t{i % 7}" for i in item],
            "session": np.char.add("s", (user * 1_000 + time_ // 86_400 % 1_000).astype(str)),
            "price": ((item * 7) % 1_000 / 10).astype(np.float32),
            "age": (user % 60 + 18).astype(np.float32),
            "click": (rng.random(count) < 0.3).astype(np.int64),
            "time": time_,
        }
        pq.write_table(pa.table(columns), folder / f"events-{index}.parquet")


if __name__ == "__main__":
    main()
