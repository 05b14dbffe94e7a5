"""Exports that are checked, then served; and the way back."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from serving.model import Model
from serving.push import LOCK, PushError, main, push
from tests.full_disk import on_full_disk
from tests.serving.saved_models import logged, predict_request, write_warm_up

X = np.array([2, 4], np.float32)
HALVES = predict_request({"x": X})
PYTHON = sys.executable


def recorded(source: Path, directory: Path, offset: float) -> Path:
    """A copy of a model, that was recorded to add the offset."""
    shutil.copytree(source, directory)
    write_warm_up(directory, [logged(HALVES, {"y": X / 2 + np.float32(offset)})])
    return directory


@pytest.fixture
def export(halves: Path, tmp_path: Path) -> Path:
    """Exports of two versions."""
    recorded(halves / "two", tmp_path / "export" / "1", 2)
    recorded(halves / "three", tmp_path / "export" / "2", 3)
    return tmp_path / "export"


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the process that loads the model; $3 is the copy."""

    def put(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


GOOD = """echo '{"compared": {"s": 1}, "unrecorded": 0, "problem": null}'"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(directory: Path) -> list[str]:
    """What is there, but for the lock."""
    return sorted(path.name for path in directory.iterdir() if path.name != LOCK)


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def refused(done: Result) -> str:
    """The one line of a command that failed."""
    assert done.exit_code == 1, done.output
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1
    return done.output.removeprefix("Error: ").rstrip()


def offset_of(model: Model) -> float:
    return float(model.get(None)[1].run("serving_default", {"x": np.zeros(1, np.float32)})["y"][0])


def test_push_and_rollback_change_what_is_served(export: Path, served: Path) -> None:
    done = run("--export", export / "1", "--to", served)
    assert done.exit_code == 0, done.output
    assert done.output == (
        f"pushed {export}/1 as {served}/1\nanswers that are as recorded: 1 of serving_default\n"
    )
    model = Model("m", served)
    model.poll()
    assert offset_of(model) == 2
    assert run("--export", export, "--to", served).output.startswith(
        f"pushed {export}/2 as {served}/2\n"
    )
    assert files(served / "2") == files(export / "2")
    assert names(served) == ["1", "2"]
    model.poll()
    assert offset_of(model) == 3
    done = run("--rollback", "--to", served)
    assert done.output == (
        f"{served}/2 is {served}/rolled_back-2 now, {served}/1 is served again\n"
        f"to undo: mv {served}/rolled_back-2 {served}/2\n"
    )
    model.poll()
    assert offset_of(model) == 2


def test_an_answer_that_is_not_the_recorded_one(halves: Path, tmp_path: Path, served: Path) -> None:
    (served / "4").mkdir(parents=True)
    export = recorded(halves / "two", tmp_path / "export", 3)
    assert refused(run("--export", export, "--to", served)) == (
        f"{export} is not pushed: signature 'serving_default' does not answer warm-up request 1 as "
        "recorded: 2 of 2 values of output 'y' differ, the most at row 0: 3 instead of 4, off by 1"
    )
    assert names(served) == ["4"]


def test_an_export_that_is_broken(export: Path, served: Path) -> None:
    for path in (export / "1" / "variables").iterdir():
        path.unlink()
    line = refused(run("--export", export / "1", "--to", served))
    assert line.startswith(f"{export}/1 is not pushed: it cannot be loaded and warmed up: ")
    assert f"{export}/1/variables" in line
    assert names(served) == []


@pytest.mark.parametrize(
    ("compared", "unrecorded", "what", "told"),
    [
        ('{"s": 4}', 1, "not all of its warm-up requests have recorded answers", "4 of s"),
        ("{}", 1, "it has no warm-up requests with recorded answers", "none"),
        ("{}", 0, "it has no warm-up requests with recorded answers", "none"),
    ],
)
def test_answers_that_are_not_recorded(
    compared: str,
    unrecorded: int,
    what: str,
    told: str,
    export: Path,
    served: Path,
    stand_in: Callable[[str], None],
) -> None:
    found = f'"compared": {compared}, "unrecorded": {unrecorded}, "problem": null'
    stand_in(f"echo '{{{found}}}'")
    assert refused(run("--export", export, "--to", served)) == (
        f"{export}/2 is not pushed: {what}, so nothing tells whether it answers as it should; "
        "export it again, or give --allow-unrecorded"
    )
    assert names(served) == []
    done = run("--export", export, "--to", served, "--allow-unrecorded")
    assert done.output == f"pushed {export}/2 as {served}/1\nanswers that are as recorded: {told}\n"


def test_what_the_pipeline_has_not_blessed(
    tmp_path: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    """The mark is beside the run; whatever way the export is named, it is found."""
    stand_in(GOOD)
    version = tmp_path / "out" / "train" / "export" / "7"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    mark = tmp_path / "out" / "bless" / "NOT_BLESSED"
    mark.parent.mkdir()
    mark.write_text("bless rule 1: auc is 0.6: train a better model\nbless rule 3: ece is 1\n")
    for named in (version, version.parent):
        assert refused(run("--export", named, "--to", served)) == (
            f"{version} is not pushed: the pipeline has not blessed it, bless rule 1: auc is 0.6: "
            f"train a better model (and 1 more in {mark}); or give --unblessed"
        )
    assert not served.exists()
    assert run("--export", version, "--to", served, "--unblessed").exit_code == 0
    mark.rename(mark.with_name("BLESSED"))
    assert run("--export", version, "--to", served).exit_code == 0
    shutil.rmtree(mark.parent)
    mark.parent.touch()  # a file of that name is somebody else's
    assert run("--export", version, "--to", served).exit_code == 0
    assert names(served) == ["1", "2", "3"]


def test_a_disk_that_is_full(export: Path, served: Path) -> None:
    command = [sys.executable, "-m", "serving.push", "--export", str(export), "--to", str(served)]
    done = subprocess.run(on_full_disk(command, 500), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"Error: {served}: File too large; what {served} serves is as it was\n"
    assert names(served) == []


def test_no_version_is_seen_before_it_is_whole(
    export: Path, served: Path, stand_in: Callable[[str], None], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    stand_in(f'ls -A {served} > {seen}; cp -r "$3" {tmp_path}/copy; {GOOD}')
    assert run("--export", export, "--to", served).exit_code == 0
    assert [name.split("-")[0] for name in seen.read_text().split()] == [".push.lock", ".pushing"]
    assert files(tmp_path / "copy") == files(export / "2")
    assert names(served) == ["1"]


def test_what_a_killed_push_left_is_removed(
    export: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("kill -KILL $PPID")
    code = "import sys; from serving.push import main; sys.executable = sys.argv.pop(1); main()"
    arguments = [sys.executable, "--export", str(export), "--to", str(served)]
    done = subprocess.run([PYTHON, "-c", code, *arguments])
    assert done.returncode == -9
    assert [name.split("-")[0] for name in names(served)] == [".pushing"]
    stand_in(GOOD)
    push(export, served)
    assert names(served) == ["1"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -KILL $$", "killed, as when memory runs out"),
        ("echo first >&2; echo last >&2; exit 3", "last"),
        ("exit 3", "status 3"),
    ],
)
def test_a_process_that_ends_without_a_word(
    script: str, reason: str, export: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(script)
    line = refused(run("--export", export, "--to", served))
    assert line == f"{export}/2 is not pushed: the process that loaded it ended ({reason})"
    assert names(served) == []


def test_a_number_never_means_two_models(
    export: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(GOOD)
    for name in ("9", "10", "other", "2.5"):
        (served / name).mkdir(parents=True)
    assert push(export, served).version == served / "11"
    assert run("--rollback", "--to", served).exit_code == 0
    assert names(served) == ["10", "2.5", "9", "other", "rolled_back-11"]
    assert push(export, served).version == served / "12"


def test_there_is_no_number_that_no_server_would_take(
    export: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(GOOD)
    (served / str(2**63 - 1)).mkdir(parents=True)
    line = refused(run("--export", export, "--to", served))
    assert line == f"{served} has version {2**63 - 1}, and there is none above"
    assert names(served) == [str(2**63 - 1)]


def test_links_are_followed(export: Path, served: Path, stand_in: Callable[[str], None]) -> None:
    stand_in(GOOD)
    whole = files(export / "2")
    for name in ("variables", "saved_model.pb"):
        (export / "2" / name).rename(export / name)
        (export / "2" / name).symlink_to(export / name)
    version = push(export / "2", served).version
    shutil.rmtree(export)
    assert files(version) == whole


def test_two_pushes_at_once(export: Path, served: Path, stand_in: Callable[[str], None]) -> None:
    stand_in(GOOD)
    served.mkdir()
    with (served / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for arguments in (["--export", export], ["--rollback"]):
            line = refused(run(*arguments, "--to", served))
            assert line == f"another push to {served} is running; start again when it is done"
    assert push(export, served).version == served / "1"


def test_extra_files(
    halves: Path, tmp_path: Path, served: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(GOOD)
    (tmp_path / "evaluation.json").write_text("{}")
    pushed = push(halves / "two", served, extra=[tmp_path / "evaluation.json"])
    assert (pushed.version / "assets.extra" / "evaluation.json").read_text() == "{}"
    assert pushed.source == halves / "two"
    assert not (halves / "two" / "assets.extra").exists()


def test_paths_that_are_no_exports(export: Path, served: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", export / "1" / "variables"):
        with pytest.raises(PushError, match=f"^{path} is no export: it has no saved_model.pb and"):
            push(path, served)
    with pytest.raises(PushError, match=f"^{export}/2 is in {export} already"):
        push(export, export)
    for path in (export / "1", export / "2" / "served"):
        with pytest.raises(PushError, match=f"^{path} is in a version, or is one; give a dir"):
            push(export, path)
    assert not served.exists()
    assert sorted(path.name for path in (export / "2").iterdir()) == [
        "assets",
        "assets.extra",
        "fingerprint.pb",
        "saved_model.pb",
        "variables",
    ]


def test_paths_that_cannot_be_looked_at(served: Path) -> None:
    """As one without permission, which the tests may have anyway."""
    long = "a" * 300
    assert refused(run("--export", long, "--to", served)) == (
        f"{long}/saved_model.pb: File name too long; what {served} serves is as it was"
    )
    line = refused(run("--rollback", "--to", long))
    assert line == f"{long}: File name too long; what {long} serves is as it was"


def test_nothing_to_go_back_to(served: Path) -> None:
    assert refused(run("--rollback", "--to", served)) == (
        f"{served} is no directory; it should hold numbered versions of the model"
    )
    served.mkdir()
    assert refused(run("--rollback", "--to", served)) == (
        f"{served} has no version, and none to go back to; push another export"
    )
    (served / "3").mkdir()
    assert refused(run("--rollback", "--to", served)) == (
        f"{served} has only version 3, and none to go back to; push another export"
    )
    assert names(served) == ["3"]


def test_a_version_that_was_rolled_back_before(served: Path) -> None:
    for name in ("1", "2", "rolled_back-2"):
        (served / name).mkdir(parents=True)
    line = refused(run("--rollback", "--to", served))
    assert line == f"{served}/rolled_back-2 is in the way; remove it, or give it another name"
    assert names(served) == ["1", "2", "rolled_back-2"]


def test_one_of_two_things_is_wanted(export: Path, served: Path) -> None:
    for arguments in ([], ["--rollback", "--export", export]):
        done = run(*arguments, "--to", served)
        assert done.exit_code == 2
        assert "give --export to push, or --rollback to go back, and not both" in done.output
