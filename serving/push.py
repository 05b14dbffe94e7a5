"""`python -m serving.push`: puts an export where a server takes its next version from.

The export is copied beside the versions, under a name that no server takes for one. There a process
of its own loads it, replays the warm-up requests, and compares the answers with those recorded when
it was exported (`serving.replay`). Only then is it renamed to the next version: servers see all of
it, or nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from serving.versions import MAX_VERSION, is_number, versions

SAVED_MODEL = "saved_model.pb"
EXTRA = "assets.extra"
LOCK = ".push.lock"
IN_THE_MAKING = ".pushing-"
NOT_BLESSED = "bless/NOT_BLESSED"  # beside the run, in the output of a pipeline; the name is TFX's
ROLLED_BACK = "rolled_back-"
BUFFER = 2**22


class PushError(click.ClickException):
    """An export that is not pushed, or a version that stays: one line that says why."""


class Pushed(NamedTuple):
    """What became of an export.

    Attributes:
        source: version of the export.
        version: that is served.
        compared: how many answers, by signature.
    """

    source: Path
    version: Path
    compared: dict[str, int]


class RolledBack(NamedTuple):
    """What became of a version.

    Attributes:
        version: that was served.
        away: its new name.
        before: the version that is served again.
    """

    version: Path
    away: Path
    before: Path


def push(
    export: Path,
    served: Path,
    allow_unrecorded: bool = False,
    extra: Sequence[Path] = (),
    unblessed: bool = False,
) -> Pushed:
    """Checks an export, and makes it the next version.

    Args:
        export: a version's directory, or one of versions, of which the newest is meant.
        served: directory of the served versions; made if it is not there.
        allow_unrecorded: also if not all answers of the export are recorded.
        extra: files to put into its `assets.extra`.
        unblessed: also if the pipeline that made it says that it is not blessed.

    Raises:
        PushError: it does not work, is not blessed, or cannot be copied; what is served is as it
            was.
    """
    with _writing(served):
        source = _newest(export)
        if not unblessed:
            _check_blessing(source)
    if source.resolve().parent == served.resolve():
        raise PushError(f"{source} is in {served} already; push it from where it was exported to")
    if (served / SAVED_MODEL).exists() or source.resolve() in served.resolve().parents:
        raise PushError(f"{served} is in a version, or is one; give a directory for versions")
    with _writing(served):
        served.mkdir(parents=True, exist_ok=True)
        with _lock(served):
            for left in served.glob(f"{IN_THE_MAKING}*"):  # by a push that was killed
                shutil.rmtree(left)
            place = Path(tempfile.mkdtemp(prefix=IN_THE_MAKING, dir=served))
            try:
                place.chmod(0o755)
                _copy(source, place)
                for path in extra:
                    (place / EXTRA).mkdir(exist_ok=True)
                    _copy_file(path, place / EXTRA / path.name)
                compared = _check(place, source, allow_unrecorded)
                _sync(place, *(path for path in place.rglob("*") if path.is_dir()))
                version = served / str(_next_number(served))
                place.rename(version)
                _sync(served)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    return Pushed(source, version, compared)


def roll_back(served: Path) -> RolledBack:
    """Takes the newest version away, so that the one before it is served again.

    Args:
        served: directory of the served versions.

    Raises:
        PushError: there is no version to go back to.
    """
    with _writing(served):
        if not served.is_dir():
            raise PushError(
                f"{served} is no directory; it should hold numbered versions of the model"
            )
    with _writing(served), _lock(served):
        found = versions(served)
        if len(found) < 2:
            only = f"only version {min(found)}" if found else "no version"
            raise PushError(f"{served} has {only}, and none to go back to; push another export")
        newest, before = sorted(found, reverse=True)[:2]
        away = served / f"{ROLLED_BACK}{newest}"
        if away.exists():
            raise PushError(f"{away} is in the way; remove it, or give it another name")
        found[newest].rename(away)
        _sync(served)
    return RolledBack(found[newest], away, found[before])


def _newest(export: Path) -> Path:
    """The version that is meant by a directory."""
    if (export / SAVED_MODEL).is_file():
        return export
    found = versions(export) if export.is_dir() else {}
    if not found:
        raise PushError(f"{export} is no export: it has no {SAVED_MODEL} and no numbered versions")
    return found[max(found)]


def _check_blessing(source: Path) -> None:
    """Of a pipeline's run, `<output>/<run>/export/<version>`, looks for its verdict."""
    output = next(iter(source.resolve().parents[2:3]), source)
    try:
        first, *more = (output / NOT_BLESSED).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    others = f" (and {len(more)} more in {output / NOT_BLESSED})" if more else ""
    raise PushError(
        f"{source} is not pushed: the pipeline has not blessed it, {first}{others}; or give "
        "--unblessed"
    )


def _next_number(served: Path) -> int:
    """Greater than all that are there, so that no number ever means two models."""
    names = (path.name.removeprefix(ROLLED_BACK) for path in served.iterdir())
    number = 1 + max((int(name) for name in names if is_number(name)), default=0)
    if number > MAX_VERSION:
        raise PushError(f"{served} has version {MAX_VERSION}, and there is none above")
    return number


@contextmanager
def _writing(served: Path) -> Iterator[None]:
    """Of an export that is read, too."""
    try:
        yield
    except OSError as error:
        where = error.filename or served
        raise PushError(
            f"{where}: {error.strerror or error}; what {served} serves is as it was"
        ) from None


@contextmanager
def _lock(served: Path) -> Iterator[None]:
    """The file stays, since one that is removed can be locked twice; servers pass over it."""
    with (served / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PushError(
                f"another push to {served} is running; start again when it is done"
            ) from None
        yield


def _check(place: Path, source: Path, allow_unrecorded: bool) -> dict[str, int]:
    """Loads a copy in a fresh process, and compares its answers with the recorded ones."""
    command = [sys.executable, "-m", "serving.replay", str(place)]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise PushError(
            f"{source} is not pushed: the process that loaded it ended ({_end(done)})"
        ) from None
    if found["problem"]:
        problem = found["problem"].replace(str(place), str(source))
        raise PushError(f"{source} is not pushed: {problem}")
    compared: dict[str, int] = found["compared"]
    if not allow_unrecorded and (found["unrecorded"] or not compared):
        which = "not all of its warm-up requests have"
        if not compared:
            which = "it has no warm-up requests with"
        raise PushError(
            f"{source} is not pushed: {which} recorded answers, so nothing tells whether it "
            "answers as it should; export it again, or give --allow-unrecorded"
        )
    return compared


def _end(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -signal.SIGKILL:
        return "killed, as when memory runs out"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"status {done.returncode}"


def _copy(source: Path, target: Path) -> None:
    """Links are followed: what they name may be gone when the version is loaded."""
    for path in sorted(source.iterdir()):
        copy = target / path.name
        if path.is_dir():
            copy.mkdir()
            _copy(path, copy)
        else:
            _copy_file(path, copy)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, BUFFER)
        written.flush()
        os.fsync(written.fileno())


def _sync(*directories: Path) -> None:
    """Makes the entries of directories outlast a power cut."""
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@click.command()
@click.option("--export", type=Path, help="Directory of a version, or of versions: the newest.")
@click.option("--to", "served", required=True, type=Path, help="Directory of the served versions.")
@click.option("--allow-unrecorded", is_flag=True, help="Also where answers are not recorded.")
@click.option("--unblessed", is_flag=True, help="Also what the pipeline has not blessed.")
@click.option("--rollback", is_flag=True, help="Take the newest version away instead.")
def main(
    export: Path | None, served: Path, allow_unrecorded: bool, unblessed: bool, rollback: bool
) -> None:
    """Check an export, and make it the next served version; or go back to the one before."""
    if (export is None) != rollback:
        raise click.UsageError("give --export to push, or --rollback to go back, and not both")
    if export is None:
        version, away, before = roll_back(served)
        click.echo(f"{version} is {away} now, {before} is served again")
        click.echo(f"to undo: mv {away} {version}")
        return
    pushed = push(export, served, allow_unrecorded, unblessed=unblessed)
    answers = ", ".join(f"{count} of {name}" for name, count in sorted(pushed.compared.items()))
    click.echo(f"pushed {pushed.source} as {pushed.version}")
    click.echo(f"answers that are as recorded: {answers or 'none'}")


if __name__ == "__main__":
    main()
