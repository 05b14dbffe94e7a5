"""`python -m tfrec.export`: a SavedModel with the preprocessing inside, for TF Serving.

Signatures, without labels; the first two give the served value of every task by name:

- `serving_default`: `examples`, serialized tf.Examples (batch,) of raw columns;
- `predict`: raw columns by name, (batch,), or (batch, events) for a history's, padded with "";
- `explain`, of models with attention: the columns of `predict` → the attention weights;
- `recommend`, of models that score all items, and `user_vectors` and `item_vectors` where their
  product is the score: see `tfrec.recommending`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfrec.cli import command, quiet_import
from tfrec.features import Features
from tfrec.strict import UserError

if TYPE_CHECKING:
    from tfrec.models.base import Model
    from tfrec.runs import Run

WARM_UP_FILE = "tf_serving_warmup_requests"
VECTORS_FILE = "item_vectors.parquet"


def export(run: Run, model: Model) -> Path:
    """Writes the next version of a run's export; it appears whole or not at all.

    Args:
        run: whose export directory it goes to.
        model: with the weights to export.

    Returns:
        The version's directory, `<run>/export/<version>`.

    Raises:
        UserError: the run's data set is no longer there, or no longer the same, or the export
            cannot be written.
    """
    from tfrec import demo
    from tfrec.models.retrieval.base import RetrievalModel
    from tfrec.servable import servable, warm_up

    check_data(run)
    with next_version(run.export_directory) as (place, version), tempfile.TemporaryDirectory() as t:
        root, signatures = servable(run, model, Path(t))
        extra = save(place, version, root, signatures, warm_up(run, root, signatures))
        run.features.save(extra)
        if isinstance(model, RetrievalModel):
            demo.write(extra, (run,), root.retriever.keys.numpy())
            if model.dot_product:
                root.retriever.write_vectors(extra / VECTORS_FILE)
    return version


def check_data(run: Run) -> None:
    """Checks that the data set of a run is there.

    Raises:
        UserError: it is not there, not the same, or lacks what exports need.
    """
    data = Path(run.config.data)
    run.features.check_same_ids(Features.load(data), str(data))
    for part in ("transform", "sample.tfrecord"):
        if not (data / part).exists():
            raise UserError(
                f"data set {data} has no {part}, which every export needs; make it again"
            )


@contextmanager
def next_version(base: Path) -> Iterator[tuple[Path, Path]]:
    """A directory in the making, and the numbered one that it becomes when the body succeeds.

    What exports have left that were killed on this machine is removed.
    """
    base.mkdir(parents=True, exist_ok=True)
    with _writing(base):
        number = 1 + max((int(p.name) for p in base.iterdir() if p.name.isdigit()), default=0)
        place = Path(tempfile.mkdtemp(prefix=f".{number}.{socket.gethostname()}.", dir=base))
        place.chmod(0o755)
        try:
            yield place, base / str(number)
            place.rename(base / str(number))
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _writing(base: Path) -> Iterator[None]:
    """Tells others that something is in the making there, and removes what is not any more.

    A directory's lock ends with its process, and is told on its own machine alone, so that
    directories in the making have the machine's name.
    """
    folder = os.open(base, os.O_RDONLY)
    try:
        with suppress(OSError):  # others are at work, or the file system knows no locks
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = re.compile(rf"\.\d+\.{re.escape(socket.gethostname())}\.\w+")
            for path in [path for path in base.iterdir() if left.fullmatch(path.name)]:
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_SH)
        yield
    finally:
        os.close(folder)


def newest_version(base: Path) -> Path | None:
    """Directory of the highest version of a served model; None where there is none."""
    versions = base.iterdir() if base.is_dir() else ()
    numbered = (path for path in versions if path.name.isdigit())
    return max(numbered, key=lambda path: int(path.name), default=None)


def save(
    place: Path, version: Path, root: Any, signatures: dict[str, Any], logs: Iterable[bytes]
) -> Path:
    """Writes a SavedModel.

    Args:
        place: where to.
        version: what it is called in messages.
        root: object to save.
        signatures: of it.
        logs: serialized PredictionLogs to warm up with.

    Returns:
        The directory for what else belongs to it, `assets.extra`.

    Raises:
        UserError: it cannot be written.
    """
    import tensorflow as tf

    from tfrec.checkpoints import writing

    extra, records = place / "assets.extra", list(logs)
    with writing(f"export {version}"):
        tf.saved_model.save(root, str(place), signatures=signatures)
        extra.mkdir()
        with tf.io.TFRecordWriter(str(extra / WARM_UP_FILE)) as writer:
            for record in records:
                writer.write(record)
    return extra


@click.command()
@click.option("--run", "directory", required=True, type=Path, help="Run directory.")
@command
def main(directory: Path) -> None:
    """Export a run's best weights as the next version under its export directory."""
    with quiet_import():
        import tensorflow  # noqa: F401

        from tfrec.runs import Run

    run = Run.load(directory)
    click.echo(f"exported {os.fspath(export(run, run.best_model()))}")


if __name__ == "__main__":
    main()
