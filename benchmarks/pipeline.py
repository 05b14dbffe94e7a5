"""The pipeline's speed and memory on generated events.

    python -m benchmarks.pipeline --rows 1000000
    python -m benchmarks.pipeline --distinct 1000000

Every step is a process of its own, so that its peak of memory is its own too. Events are of Zipf
distributed items, with vocabularies (users, items, brands, tags), a history with two features,
crosses and a label. With `--distinct`, they have one category of so many values instead, which
shows what its vocabulary costs `transform`. The tables go into docs/results.md.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import write

PLACE = Path("runs/pipeline")
STEPS = ("ingest", "statistics", "schema", "validation", "transform")
FILES = 8
LEAST_EVENTS = 1_000_000  # unless more are asked for
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


VOCABULARY = """
name: vocabulary
source: {{format: parquet, train: "{path}"}}
features:
  key: {{kind: category, role: context}}
labels:
  click: {{column: click}}
"""


@click.command()
@click.option("--rows", "sizes", multiple=True, type=int, help="Events, for every step.")
@click.option("--distinct", multiple=True, type=int, help="Values of a category, for transform.")
def main(sizes: tuple[int, ...], distinct: tuple[int, ...]) -> None:
    """Measure every step on so many generated events, or a vocabulary of so many values."""
    if distinct:
        _vocabularies(distinct)
    if sizes or not distinct:
        _steps(sizes or (LEAST_EVENTS,))


def _steps(sizes: tuple[int, ...]) -> None:
    table = []
    for rows in sizes:
        total, peak = 0.0, 0.0
        for step, seconds, memory in measured(rows, PLACE):
            total, peak = total + seconds, max(peak, memory)
            table.append(_row(rows, f"`{step}`", seconds, memory))
        table.append(_row(rows, "all", total, peak))
    command = "python -m benchmarks.pipeline" + "".join(f" --rows {rows}" for rows in sizes)
    write("pipeline", command, ("events", "step", "seconds", "events/s", "peak MiB"), table)


def _vocabularies(distinct: tuple[int, ...]) -> None:
    table = []
    for values in distinct:
        rows = max(values, LEAST_EVENTS)
        config = _prepared(PLACE / f"{values}-values", VOCABULARY, _generate_keys, rows, values)
        for step in ("ingest", "statistics", "transform"):
            _, memory = _run(config, config.parent / "out", step)
        table.append([f"{values:,}", f"{rows:,}", f"{memory:,.0f}"])
    command = "python -m benchmarks.pipeline" + "".join(f" --distinct {n}" for n in distinct)
    columns = ("distinct values", "events", "peak MiB of `transform`")
    write("vocabulary", command, columns, table)


def measured(rows: int, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Every step's name, seconds without the imports, and peak memory in MiB.

    Args:
        rows: events to generate.
        folder: where they and all outputs go.
    """
    config = _prepared(folder / str(rows), DECLARATION, generate, rows)
    for step in STEPS:
        yield step, *_run(config, config.parent / "out", step)


def _prepared(place: Path, declaration: str, generate: Callable[..., None], *sizes: int) -> Path:
    """A declaration beside its generated events."""
    shutil.rmtree(place, ignore_errors=True)
    # In a process of its own: what a parent has ever held counts as its children's peak.
    generating = multiprocessing.get_context("spawn").Process(
        target=generate, args=(place / "events", *sizes)
    )
    generating.start()
    generating.join()
    config = place / "generated.yaml"
    config.write_text(declaration.format(path=place / "events" / "*.parquet"))
    return config


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


def generate(folder: Path, rows: int) -> None:
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


def _generate_keys(folder: Path, rows: int, distinct: int) -> None:
    """Parquet files of events with a category, whose values are as frequent as each other."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(FILES):
        numbers = np.arange(index, rows, FILES) % distinct
        keys = np.char.add("customer-", numbers.astype(str))
        columns = {"key": keys, "click": (rng.random(len(keys)) < 0.3).astype(np.int64)}
        pq.write_table(pa.table(columns), folder / f"events-{index}.parquet")


if __name__ == "__main__":
    main()
