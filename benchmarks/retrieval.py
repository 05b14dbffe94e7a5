"""Models that score all items, on pairs of users and items without times, as papers split them.

    python -m benchmarks.retrieval --train train.txt --test test.txt --name gowalla

The files have lines `user item item …`. A tenth of the training pairs, by hash, is held out first
to see after how many epochs a model is best; then it is trained for as many on all of them, and
measured on the test pairs: all items are ranked, but for those that the user has in training. Data
sets and runs stay in runs/retrieval/NAME: a command that was ended goes on. The table stands in
docs/results.md.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks import tables
from benchmarks.lines import to_csv
from tfrec.models.registry import ENTRIES

RUNS = Path("runs/retrieval")
METRICS = ("recall@20", "ndcg@20")
DECLARATION: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "features": {
        "user": {"kind": "category", "role": "user"},
        "item": {"kind": "category", "role": "item"},
    },
    "histories": {"taken": {"length": 100, "features": ["item"]}},
}
CHOOSING = ("top_k.monitor=ndcg@20", "top_k.users=3000", "validations_per_epoch=1", "patience=5")


@click.command()
@click.option("--train", required=True, type=Path, help="Lines of training pairs.")
@click.option("--test", required=True, type=Path, help="Lines of test pairs.")
@click.option("--name", required=True, help="Of the data set.")
@click.option(
    "--model",
    "models",
    multiple=True,
    default=tuple(entry.id for entry in ENTRIES if entry.family == "retrieval"),
    metavar="ID [KEY=VALUE …]",
    help="Only this one, with these settings; all of retrieval unless given.",
)
@click.option("--epochs", default=20, show_default=True, help="Most of them.")
def main(train: Path, test: Path, name: str, models: tuple[str, ...], epochs: int) -> None:
    """Measure models of retrieval on a data set."""
    place = RUNS / name
    place.mkdir(parents=True, exist_ok=True)
    events = {split: place / f"{split}.csv" for split in ("train", "test")}
    to_csv(train, events["train"])
    to_csv(test, events["test"])
    parts = _held_out(events["train"])
    held_out = _data_set(place / "held_out", f"{name} held out", parts)
    whole = _data_set(place / "whole", name, events)
    rows = []
    for model in models:
        choosing = _trained(held_out, model, epochs, CHOOSING)
        best = round(choosing["best"]["epoch"])
        found = _trained(whole, model, best, test=True)
        (metrics,) = found["test"][model.split()[0]].values()
        row = [f"`{model}`", *(f"{metrics[m]:.4f}" for m in METRICS)]
        seconds = f"{found['seconds'] / 60:.1f}"
        rows.append([*row, str(best), f"{found['parameters']:,}", seconds])
        click.echo(rows[-1])
    command = "python -m benchmarks.retrieval"
    command += f" --train {train.name} --test {test.name} --name {name}"
    command += "".join(f" --model {shlex.quote(model)}" for model in models)
    command += f" --epochs {epochs}"
    header = ["model", "Recall@20", "NDCG@20", "epochs", "parameters", "minutes"]
    tables.write(f"retrieval {name}", command, header, rows)


def _held_out(events: Path) -> dict[str, Path]:
    """Files of nine tenths of the events, and of the rest, by hash."""
    parts = {split: events.with_name(f"{split}_part.csv") for split in ("train", "validation")}
    with (
        events.open(newline="") as source,
        parts["train"].open("w", newline="") as kept,
        parts["validation"].open("w", newline="") as held_out,
    ):
        head, *pairs = csv.reader(source)
        for file, wanted in ((kept, False), (held_out, True)):
            rows = [p for p in pairs if (zlib.crc32(" ".join(p[:2]).encode()) % 10 == 0) == wanted]
            csv.writer(file).writerows([head, *rows])
    return parts


def _data_set(directory: Path, name: str, files: dict[str, Path]) -> Path:
    source = {"format": "csv", **{split: str(path) for split, path in files.items()}}
    path = directory.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({"name": name, "source": source, **DECLARATION}))
    _run("pipeline", "run", "--config", str(path), "--output", str(directory))
    return directory / "transform"


def _trained(
    data: Path, model: str, epochs: int, settings: tuple[str, ...] = (), test: bool = False
) -> dict[str, Any]:
    """The metrics of a run."""
    run = data.parents[1] / f"{model.replace(' ', '-')}-{data.parent.name}"
    id_, *own = model.split()
    command = ["--data", str(data), "--model", id_, "--output", str(run), "--no-export"]
    for setting in (f"epochs={epochs}", *settings, *own):
        command += ["--set", setting]
    _run("tfrec.train", *command)
    if test:
        _run("tfrec.evaluate", "--run", str(run))
    return json.loads((run / "metrics.json").read_text())


def _run(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
