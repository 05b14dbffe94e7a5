"""Models of sequences: what each user takes next, on lines of items in the order they were taken.

    python -m benchmarks.next_item --lines Beauty.txt --name beauty

The file has lines `user item item …`. Every user's last item tests, the one before validates, and a
model learns from the sequence of all others. All items are ranked but for those that the user took
before; with --candidates also the last item among the ones that a line `user item item …` gives.
The table goes into docs/results.md. Data sets and runs stay in runs/next_item/NAME/LENGTH: a
command that was ended goes on.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import tf_keras as keras
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.lines import to_csv
from benchmarks.tables import write
from pipeline.checks import read
from pipeline.run import run as make_data
from tfrec import evaluate
from tfrec.overrides import from_assignments, merge
from tfrec.train import train

RUNS = Path("runs/next_item")
LENGTH = 50  # of histories, as in what is published
METRICS = ("hr@10", "ndcg@10", "mrr")
HEADER = ("model", "loss", "HR@10", "NDCG@10", "MRR", "among", "parameters", "minutes")
DECLARATION: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "time": "number",
    "features": {"item": {"kind": "category", "role": "item"}},
    "split": {"kind": "leave_one_out"},
    "examples": "sequences",
}
# All models by their defaults, and one with the loss of its paper.
ROWS = ("gru4rec", "sasrec", "bert4rec", "sasrec item_loss.kind=bce item_loss.negatives=1")


@click.command()
@click.option("--lines", required=True, type=Path, help="Users and their items.")
@click.option("--name", required=True, help="Of the data set.")
@click.option("--length", default=LENGTH, show_default=True, help="Of histories; the rest is cut.")
@click.option("--candidates", type=Path, help="Users and the items that stand beside their last.")
@click.option(
    "--model",
    "models",
    multiple=True,
    default=ROWS,
    metavar="ID [KEY=VALUE …]",
    help="Only this one, with these settings; all of next item unless given.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For all models.")
def main(
    lines: Path,
    name: str,
    length: int,
    candidates: Path | None,
    models: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Measure models of sequences on a data set."""
    data = _data_set(lines, name, length)
    rows = []
    for model in models:
        found = _measure(data, model, settings, candidates)
        for row in _rows(model, found):
            rows.append(row)
            click.echo(" | ".join(row))
    popular = found["test"]["popularity"]
    for among, metrics in popular.items():
        rows.append(["popularity", "", *_cells(metrics), among, "", ""])
    command = f"python -m benchmarks.next_item --lines {lines.name} --name {name}"
    marker = f"next item {name}"
    if length != LENGTH:
        command += f" --length {length}"
        marker += f" {length}"
    if candidates:
        command += f" --candidates {candidates.name}"
    command += "".join(f" --set {setting}" for setting in settings)
    if models != ROWS:
        command += "".join(f" --model {shlex.quote(model)}" for model in models)
    write(marker, command, HEADER, rows)


def _data_set(lines: Path, name: str, length: int) -> Path:
    place = RUNS / name / str(length)
    place.mkdir(parents=True, exist_ok=True)
    to_csv(lines, place / "events.csv")
    source = {"format": "csv", "path": str(place / "events.csv")}
    path = place / "declaration.yaml"
    histories = {"taken": {"length": length, "features": ["item"]}}
    declaration = {"name": name, "source": source, **DECLARATION, "histories": histories}
    path.write_text(yaml.safe_dump(declaration))
    make_data(read(str(path)), place / "data", PipelineOptions(["--runner=FnApiRunner"]))
    return place / "data" / "transform"


def _measure(
    data: Path, model: str, settings: tuple[str, ...], candidates: Path | None
) -> dict[str, Any]:
    """The metrics of a run, and its loss."""
    run = data.parent / "-".join((*model.split(), *settings))
    id_, *own = model.split()
    named = {"data": str(data), "model": {"id": id_}}
    metrics = train(merge(named, from_assignments([*settings, *own])), run, export=False)
    protocols: list[list[str]] = [[]]
    if candidates:
        protocols.append(["top_k.candidates=given", f"top_k.file={candidates}"])
    if len(metrics.get("test", {}).get(id_, {})) < len(protocols):
        for protocol in protocols:
            options = [part for setting in protocol for part in ("--set", setting)]
            evaluate.main(["--run", str(run), *options], standalone_mode=False)
    keras.backend.clear_session()
    loss = yaml.safe_load((run / "config.yaml").read_text())["item_loss"]
    return {**json.loads((run / "metrics.json").read_text()), "loss": loss}


def _rows(model: str, found: dict[str, Any]) -> list[list[str]]:
    loss = found["loss"]["kind"]
    if loss != "softmax":
        loss += f", {found['loss']['negatives']} negatives"
    id_, minutes = model.split()[0], f"{found['seconds'] / 60:.0f}"
    return [
        [f"`{model}`", loss, *_cells(metrics), among, f"{found['parameters']:,}", minutes]
        for among, metrics in found["test"][id_].items()
    ]


def _cells(metrics: dict[str, float]) -> list[str]:
    return [f"{metrics[metric]:.4f}" for metric in METRICS]


if __name__ == "__main__":
    main()
