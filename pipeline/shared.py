"""The directory in which all workers of a graph read and write."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import tensorflow as tf
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipeline.workspace import SHARED
from tfrec.strict import UserError


class Shared:
    """Where the workers of one graph find what they read, and leave what they make.

    On one machine, or where `--output` is on a disk that all workers have, that is the step's own
    directory. Where Beam's option `--temp_location` is given, it is a directory below that: what
    workers are to read is copied there, and what they have made is fetched from there.

    Args:
        options: of Beam.
        place: the step's own directory, local.

    Raises:
        UserError: the location cannot be written.
    """

    def __init__(self, options: PipelineOptions, place: Path) -> None:
        location = options.view_as(GoogleCloudOptions).temp_location
        self._place = place
        self._root = f"{location.rstrip('/')}/tfrec-{uuid.uuid4().hex}" if location else None
        self._seen: dict[Path, str] = {}
        if self._root:
            (place / SHARED).write_text(self._root)
        try:
            tf.io.gfile.makedirs(self.output)
        except tf.errors.OpError as error:
            raise UserError(f"--temp_location {location}: {error.message}") from None

    @property
    def output(self) -> str:
        """Where workers leave what belongs to the step's output."""
        return f"{self._root}/output" if self._root else str(self._place)

    @property
    def temporary(self) -> str:
        """Where they leave what is of no use later."""
        return f"{self._root}/temporary" if self._root else f"{self._place}/.temporary"

    def seen(self, folder: Path) -> str:
        """A local directory, which is there or not, as workers find it."""
        if not self._root:
            return str(folder)
        if folder not in self._seen:
            self._seen[folder] = f"{self._root}/input/{len(self._seen)}"
            _copy(str(folder), self._seen[folder])
        return self._seen[folder]

    def fetch(self) -> None:
        """Brings what the workers have left into the step's own directory."""
        if self._root:
            _copy(self.output, str(self._place))

    def clear(self) -> None:
        """Takes away all but the step's output."""
        _remove(self._root or self.temporary)
        (self._place / SHARED).unlink(missing_ok=True)


def clear_left(place: Path) -> None:
    """Takes away what workers of a killed run have left, as far as it can be reached.

    Args:
        place: directory of that run's step.
    """
    with contextlib.suppress(tf.errors.OpError):
        _remove((place / SHARED).read_text())


def _remove(path: str) -> None:
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path)


def _copy(source: str, target: str) -> None:
    """All files below a directory."""
    for folder, _, names in tf.io.gfile.walk(source):
        there = target + folder.rstrip("/").removeprefix(source)
        tf.io.gfile.makedirs(there)
        for name in names:
            tf.io.gfile.copy(f"{folder.rstrip('/')}/{name}", f"{there}/{name}", overwrite=True)
