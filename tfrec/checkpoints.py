"""Checkpoints of a run: what it takes to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.strict import UserError

KEPT = 3


class Position:
    """Where a run is.

    Attributes:
        epoch: whole passes over the data that are done.
        step_in_epoch: steps of the current pass that are done.
        history: validations so far, as plain values.
        variable: what a checkpoint holds of it.
        examples: trained on.
        seconds: of training, without validations.
        elapsed: seconds of all, in all processes of the run, up to the last `store`.
    """

    def __init__(self) -> None:
        with tf.device("CPU"):
            self.variable = tf.Variable("", dtype=tf.string, trainable=False)
        self.epoch = self.step_in_epoch = self.examples = 0
        self.seconds = self.elapsed = 0.0
        self._since = time.perf_counter()
        self.history: list[dict[str, Any]] = []

    def store(self) -> None:
        """Puts the values into the variable."""
        self.elapsed, self._since = self.elapsed_now(), time.perf_counter()
        self.variable.assign(json.dumps({name: getattr(self, name) for name in _STORED}))

    def load(self) -> None:
        """Takes the values from the variable."""
        for name, value in json.loads(self.variable.numpy()).items():
            setattr(self, name, value)
        self._since = time.perf_counter()

    def elapsed_now(self) -> float:
        """`elapsed`, up to now."""
        return self.elapsed + time.perf_counter() - self._since


_STORED = ("epoch", "step_in_epoch", "examples", "seconds", "elapsed", "history")


@contextlib.contextmanager
def writing(what: str, comfort: str = "") -> Iterator[None]:
    """Turns a failure to write, on a full disk for instance, into a clear line.

    Args:
        what: is written.
        comfort: what is not lost.

    Raises:
        UserError: it could not be written.
    """
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{what} could not be written ({reason}); "
            f"{comfort}make room and start the same command again"
        ) from None


class Checkpoints:
    """Numbered checkpoints in a directory; the newest few are kept.

    Args:
        directory: of the checkpoints.
        keep: how many.
        chief: whether this process keeps them. The other machines of a cluster have to take part
            in reading variables that are spread over all, and write to a place that is dropped.
        parts: what is saved, by name.
    """

    def __init__(self, directory: Path, keep: int = KEPT, chief: bool = True, **parts: Any) -> None:
        self.directory, self.chief = directory, chief
        self.checkpoint = tf.train.Checkpoint(**parts)
        self.keep = keep

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, then drops what is older than the newest few.

        Raises:
            UserError: it could not be written; older ones are as they were.
        """
        if not self.chief:
            with tempfile.TemporaryDirectory() as dropped:
                self.checkpoint.write(f"{dropped}/ckpt")
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        prefix = str(self.path(step))
        try:
            with writing(f"the checkpoint of step {step}", "older ones are kept: "):
                self.checkpoint.write(prefix)
        except UserError:
            self._remove(step)
            raise
        for old in self.steps()[: -self.keep]:
            self._remove(old)

    def path(self, step: int) -> Path:
        """Prefix of a checkpoint's files."""
        return self.directory / f"ckpt-{step}"

    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, in order."""
        found = (re.fullmatch(r"ckpt-(\d+)\.index", p.name) for p in self.directory.glob("*"))
        return sorted(int(match.group(1)) for match in found if match)

    def drop_after(self, step: int) -> None:
        """Drops the checkpoints of later steps."""
        for later in self.steps():
            if later > step and self.chief:
                self._remove(later)

    def restore(self, step: int) -> None:
        """Restores the checkpoint of a step.

        Raises:
            tf.errors.OpError: it is missing or damaged.
        """
        self.checkpoint.read(str(self.path(step))).assert_existing_objects_matched()

    def restore_newest(self, warn: Callable[[str], None]) -> int | None:
        """Restores the newest checkpoint that can be read.

        Args:
            warn: is told of every one that cannot.

        Returns:
            Its step; None where there is no checkpoint at all.

        Raises:
            UserError: there are some, and none can be read.
        """
        steps = self.steps()
        parts = (re.match(r"ckpt-(\d+)\.data-", p.name) for p in self.directory.glob("*"))
        for step in sorted({int(match.group(1)) for match in parts if match} - set(steps)):
            warn(f"checkpoint {self.path(step)} is not whole; trying the one before")
        for step in reversed(steps):
            try:
                self.restore(step)
            except Exception as error:  # every kind of damage has one of its own
                reason = (str(error).splitlines() or ["damaged"])[0]
                warn(
                    f"checkpoint {self.path(step)} cannot be read ({reason}); trying the one before"
                )
            else:
                return step
        if steps:
            raise UserError(
                f"no checkpoint in {self.directory} can be read; start with --overwrite"
            )
        return None

    def _remove(self, step: int) -> None:
        for path in self.directory.glob(f"ckpt-{step}.*"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.directory / f"ckpt-{step}_temp", ignore_errors=True)
