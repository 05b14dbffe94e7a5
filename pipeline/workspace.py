"""Where the steps of a pipeline leave what they make, and the record of how it was made."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrec.strict import UserError

RECORD = "record.jsonl"
ABOUT = "step.json"
MAKING = ".making"
OLD = f".old{MAKING}"
SHARED = ".shared"  # file that names the directory where workers of other machines are at work


@dataclass(frozen=True)
class About:
    """How the output of a step was made.

    Attributes:
        step: its name.
        key: digest of all that decides the output: `settings`, `code` and `inputs`.
        settings: digest of what the configuration says to the step.
        code: digest of the program and of the libraries' versions.
        inputs: digests of files, and of other steps' outputs, by name.
        output: digest of what was made.
        started: when, ISO 8601 in UTC.
        seconds: that it took.
        counts: what the step has to say of its output.
    """

    step: str
    key: str
    settings: str
    code: str
    inputs: dict[str, str]
    output: str
    started: str
    seconds: float
    counts: dict[str, Any]


class Workspace:
    """The output directory of a pipeline: a directory for every step, and the record of runs.

    Args:
        root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Makes the directory, and keeps other runs out of it.

        Raises:
            UserError: there is something else, it cannot be made, or another run is at work.
        """
        if self.root.exists() and not self._is_workspace():
            raise UserError(f"{self.root} exists and is no pipeline's; name another --output")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.root} cannot be made: {error.strerror}") from None
        lock = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UserError(f"{self.root}: another run is at work there; wait for it") from None
        try:
            self._clear()
            yield
        finally:
            os.close(lock)
            if not any(self.root.iterdir()):  # it failed at once, so there is nothing to keep
                self.root.rmdir()

    def _clear(self) -> None:
        """Takes away what a run that was killed has left, or puts it back in its place."""
        for left in self.root.glob(f".*{OLD}"):
            output = self.directory(left.name.removeprefix(".").removesuffix(OLD))
            if not output.exists():
                left.rename(output)
        for left in self.root.glob(f".*{MAKING}"):
            if (left / SHARED).is_file():
                from pipeline.shared import clear_left  # which imports TensorFlow

                clear_left(left)
            shutil.rmtree(left)

    def _is_workspace(self) -> bool:
        if not self.root.is_dir():
            return False
        others = [path for path in self.root.iterdir() if not path.name.endswith(MAKING)]
        return not others or (self.root / RECORD).is_file() or any(self.root.glob(f"*/{ABOUT}"))

    def directory(self, step: str) -> Path:
        """Where the output of a step is."""
        return self.root / step

    def about(self, step: str) -> About | None:
        """How the output of a step was made; None where there is none."""
        path = self.directory(step) / ABOUT
        return About(**json.loads(path.read_text())) if path.is_file() else None

    @contextmanager
    def making(self, step: str, resumed: str | None = None) -> Iterator[Path]:
        """A directory that takes the place of the step's output when the body succeeds.

        Args:
            step: its name.
            resumed: key of what is made, where a run that was ended is to go on; its directory
                stays when the body fails.
        """
        if resumed:
            place = self.root / f".{step}.{resumed[:16]}"
            for other in self.root.glob(f".{step}.*"):
                if other != place:
                    shutil.rmtree(other)
            place.mkdir(exist_ok=True)
        else:
            place = Path(tempfile.mkdtemp(prefix=f".{step}.", suffix=MAKING, dir=self.root))
            place.chmod(0o755)
        try:
            yield place
            old = self.root / f".{step}{OLD}"
            if self.directory(step).exists():
                self.directory(step).rename(old)
            place.rename(self.directory(step))
            shutil.rmtree(old, ignore_errors=True)
        finally:
            if not resumed:
                shutil.rmtree(place, ignore_errors=True)

    def note(self, state: str, about: About, **more: Any) -> None:
        """Adds a line to the record.

        Args:
            state: `made`, `kept` (nothing has changed since), `refused` (it is there, and the next
                steps may not use it) or `failed`.
            about: the step.
            more: what else there is to say.

        Raises:
            OSError: it cannot be written, and nothing of it is.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = json.dumps({"state": state, "noted": now, **dataclasses.asdict(about), **more})
        path = self.root / RECORD
        before = path.stat().st_size if path.exists() else None
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                os.truncate(path, before)
            raise

    def record(self) -> list[dict[str, Any]]:
        """All lines of the record, oldest first.

        Raises:
            UserError: there is none, or a line is damaged.
        """
        path = self.root / RECORD
        if not path.is_file():
            raise UserError(f"{self.root} has no {RECORD}: it is no pipeline's output")
        lines = path.read_text(encoding="utf-8").splitlines()
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None


def newest(folder: Path) -> list[Path]:
    """Outputs of pipelines below a directory, by their last run.

    Raises:
        UserError: there is none.
    """
    records = sorted(folder.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise UserError(f"{folder}/ has no pipeline's output; name it with --output")
    return [record.parent for record in reversed(records)]


def digest(parts: Iterable[bytes]) -> str:
    """Digest of some content."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def digest_of_values(values: Any) -> str:
    """Digest of plain values."""
    return digest([json.dumps(values, sort_keys=True, default=str).encode()])


def digest_of_files(paths: Iterable[Path], below: Path) -> str:
    """Digest of files' names, as seen from a directory, and their content."""

    def parts() -> Iterator[bytes]:
        for path in sorted(paths):
            yield f"{path.relative_to(below)}\0{path.stat().st_size}\0".encode()
            with path.open("rb") as file:
                while block := file.read(2**20):
                    yield block

    return digest(parts())
