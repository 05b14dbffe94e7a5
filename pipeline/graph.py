"""Running a Beam graph, and what is to be known when it has run."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from pipeline.progress import Progress
from pipeline.shared import Shared
from pipeline.workers import CLOSED, watched, worker_ended
from tfrec.strict import UserError

_OF_DISKS = [
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
]

_LEFT = 2**20  # bytes free on a disk that is taken for full

Keep = Callable[[str, beam.PCollection], None]


def run_graph(
    build: Callable[[beam.Pipeline, Keep, Shared], None], options: PipelineOptions, place: Path
) -> dict[str, Any]:
    """Builds a graph and runs it.

    Args:
        build: is given the pipeline, a function that keeps the one element of a collection under
            a name, and the directory in which workers read and write.
        options: of Beam.
        place: directory of the step, where their output is in the end.

    Returns:
        What was kept, by name.

    Raises:
        UserError: what a step has raised, without the name of the step that Beam adds; or a worker
            process has ended.
    """
    shared = Shared(options, place)
    kept: dict[str, str] = {}

    def keep(name: str, value: beam.PCollection) -> None:
        kept[name] = f"{shared.temporary}/{name}.pickle"
        _ = value | f"keep {name}" >> beam.Map(_dump, kept[name])

    try:
        tf.io.gfile.makedirs(shared.temporary)
        pipeline = beam.Pipeline(options=options)
        build(pipeline, keep, shared)
        try:
            with watched(), Progress(Console(stderr=True)):
                pipeline.run().wait_until_finish()
        except (UserError, OSError, RuntimeError, grpc.RpcError) as error:
            raise _of_step(error, place) from error
        shared.fetch()
        return {name: _load(path) for name, path in kept.items() if tf.io.gfile.exists(path)}
    finally:
        shared.clear()


def _of_step(error: Exception, place: Path) -> Exception:
    """What the user can mend, as one line; most runners hand over the text of a traceback."""
    start = "" if isinstance(error, UserError) else r"^tfrec\.strict\.UserError: "
    if found := re.search(rf"{start}(.*?) \[while running '", str(error), re.MULTILINE):
        return UserError(found[1])
    if isinstance(error, grpc.RpcError) or CLOSED in str(error):
        return worker_ended()
    for reason in _OF_DISKS:
        if reason in str(error):
            return UserError(f"{_disks(place)} cannot be written: {reason}")
    return error


def _disks(place: Path) -> str:
    """What cannot be written: the outputs, or the folder of temporary files on another disk.

    An error of a write does not name its file; a disk that is full now is the one.
    """
    temporary = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    disks = {str(place.parent): place.parent, f"{temporary} (TMPDIR)": temporary}
    if not temporary.is_dir() or temporary.stat().st_dev == place.parent.stat().st_dev:
        return str(place.parent)
    full = [name for name, path in disks.items() if shutil.disk_usage(path).free < _LEFT]
    return " or ".join(full or disks)


def _dump(value: Any, path: str) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(pickle.dumps(value))


def _load(path: str) -> Any:
    with tf.io.gfile.GFile(path, "rb") as file:
        return pickle.loads(file.read())
