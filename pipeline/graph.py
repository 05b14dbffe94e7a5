"""Running a Beam graph, and what is to be known when it has run."""

from __future__ import annotations

import errno
import os
import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from pipeline.progress import Progress
from tfrec.strict import UserError

_OF_DISKS = [
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
]

Keep = Callable[[str, beam.PCollection], None]


def run_graph(
    build: Callable[[beam.Pipeline, Keep], None], options: PipelineOptions, place: Path
) -> dict[str, Any]:
    """Builds a graph and runs it.

    Args:
        build: is given the pipeline, and a function that keeps the one element of a collection
            under a name.
        options: of Beam.
        place: directory that workers can write to.

    Returns:
        What was kept, by name.

    Raises:
        UserError: what a step has raised, without the name of the step that Beam adds.
    """
    with tempfile.TemporaryDirectory(prefix=".kept.", dir=place) as work:

        def keep(name: str, value: beam.PCollection) -> None:
            _ = value | f"keep {name}" >> beam.Map(_dump, f"{work}/{name}.pickle")

        pipeline = beam.Pipeline(options=options)
        build(pipeline, keep)
        try:
            with Progress(Console(stderr=True)):
                pipeline.run().wait_until_finish()
        except (UserError, OSError, RuntimeError) as error:
            raise _of_step(error, place) from error
        return {path.stem: pickle.loads(path.read_bytes()) for path in Path(work).iterdir()}


def _of_step(error: Exception, place: Path) -> Exception:
    """What the user can mend, as one line; most runners hand over the text of a traceback."""
    start = "" if isinstance(error, UserError) else r"^tfrec\.strict\.UserError: "
    if found := re.search(rf"{start}(.*?) \[while running '", str(error), re.MULTILINE):
        return UserError(found[1])
    for reason in _OF_DISKS:
        if reason in str(error):
            return UserError(f"{place.parent} cannot be written: {reason}")
    return error


def _dump(value: Any, path: str) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(pickle.dumps(value))
