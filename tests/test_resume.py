"""A run that is killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.full_disk import on_full_disk
from tfrec import train
from tfrec.checkpoints import Position

SETTINGS = (
    "batch_size=16", "epochs=4", "patience=9", "checkpoint_steps=5", "deterministic=true",
    "model.hidden=[8]", "model.dim=4", "plateau={factor: 0.5, patience: 1}",
)  # fmt: skip


def command(shop: Path, output: Path, *extra: str) -> list[str]:
    sets = [part for setting in (*SETTINGS, *extra) for part in ("--set", setting)]
    base = ["--data", str(shop), "--model", "wide_deep", "--output", str(output), "--no-export"]
    return [sys.executable, "-m", "tfrec.train", *base, *sets]


def run(shop: Path, output: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(shop, output, *extra), capture_output=True, text=True)


def weights(output: Path) -> dict[str, Any]:
    """All that the newest checkpoint holds: weights, moments, dropout states."""
    newest = max((output / "checkpoints" / "last").glob("*.index"), key=lambda p: _step(p))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "position" not in name and "OBJECT_GRAPH" not in name  # which holds times
    }


def _step(path: Path) -> int:
    return int(path.stem.split("-")[1])


def history(output: Path) -> list[dict[str, Any]]:
    """Validations, which early stopping and the plateau go by."""
    return json.loads((output / "metrics.json").read_text())["history"]


def assert_same(first: Path, second: Path) -> None:
    assert history(first) == history(second)
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    done = run(shop, output)
    assert done.returncode == 0, done.stderr
    return output


def test_seconds_are_those_of_all_processes() -> None:
    first, second = Position(), Position()
    first.elapsed = 100.0
    first.store()
    second.variable.assign(first.variable)
    second.load()
    assert second.elapsed_now() >= first.elapsed >= 100


def test_two_runs_of_one_seed_are_equal_bit_for_bit(
    shop: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    assert run(shop, tmp_path / "run").returncode == 0
    assert_same(tmp_path / "run", uninterrupted)


def test_killed_and_interrupted_equals_uninterrupted(
    shop: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """SIGKILL, SIGTERM and SIGINT in mid epoch; the rest is as if they had not come."""
    output = tmp_path / "run"
    last = output / "checkpoints" / "last"
    for least, number in ((7, signal.SIGKILL), (60, signal.SIGTERM), (110, signal.SIGINT)):
        process = subprocess.Popen(
            command(shop, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None:
            if any(_step(p) >= least for p in last.glob("ckpt-*.index")):
                if number == signal.SIGKILL:
                    time.sleep(random.random() / 10)  # at whatever step it is by then
                process.send_signal(number)
                break
            time.sleep(0.002)
        printed, errors = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            assert "Traceback" not in errors
            step = int(printed.split("interrupted after step ")[1].split(";")[0])
            assert max(_step(p) for p in last.glob("*.index")) == step
    done = run(shop, output)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {step}" in done.stdout
    assert_same(output, uninterrupted)


@pytest.fixture
def nearly_done(tmp_path: Path, uninterrupted: Path) -> Path:
    """A run as it is when it was killed just before its last validation."""
    output = tmp_path / "run"
    shutil.copytree(uninterrupted, output)
    (output / "metrics.json").unlink()
    return output


@pytest.mark.parametrize("damage", ["truncated", "missing index"])
def test_damaged_newest_checkpoint_falls_back_with_a_warning(
    shop: Path, nearly_done: Path, uninterrupted: Path, damage: str
) -> None:
    last = nearly_done / "checkpoints" / "last"
    newest, before = sorted(last.glob("*.index"), key=_step)[:-3:-1]
    data = newest.with_suffix(".data-00000-of-00001")
    if damage == "truncated":
        data.write_bytes(data.read_bytes()[:100])
    else:
        newest.unlink()
    done = run(shop, nearly_done)
    assert done.returncode == 0, done.stderr
    assert f"warning: checkpoint {newest.with_suffix('')} " in done.stdout
    assert f"going on from step {_step(before)}" in done.stdout
    assert_same(nearly_done, uninterrupted)


def test_full_disk_loses_nothing_older(shop: Path, nearly_done: Path, uninterrupted: Path) -> None:
    last = nearly_done / "checkpoints" / "last"
    newest = max(last.glob("*.index"), key=_step)
    for path in last.glob(f"{newest.stem}.*"):
        path.unlink()
    kept = {p.name: p.read_bytes() for p in last.glob("ckpt-*")}
    limited = on_full_disk(command(shop, nearly_done), 8_000)
    failed = subprocess.run(limited, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "could not be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {p.name: p.read_bytes() for p in last.glob("ckpt-*")} == kept
    assert run(shop, nearly_done).returncode == 0
    assert_same(nearly_done, uninterrupted)


def test_finished_run_says_so_and_other_settings_are_refused(
    shop: Path, uninterrupted: Path
) -> None:
    again = CliRunner().invoke(train.main, command(shop, uninterrupted)[3:])
    assert again.exit_code == 0
    assert "is finished" in again.output
    changes = ["--set", "model.dropout=0.1", "--set", "batch_size=32"]
    other = CliRunner().invoke(train.main, [*command(shop, uninterrupted)[3:], *changes])
    assert other.exit_code == 1
    assert "batch_size, model.dropout" in other.output


def test_not_a_number_stops_at_once_and_keeps_the_last_good_checkpoint(
    shop: Path, tmp_path: Path
) -> None:
    """Weights overflow after some steps at a rate that rises with every step."""
    output = tmp_path / "run"
    arguments = command(shop, output)[3:]
    schedule = "schedule: {kind: constant, warm_up: 100000}"
    arguments += ["--set", f"optimizers.dense={{name: sgd, learning_rate: 1.0e+7, {schedule}}}"]
    result = CliRunner().invoke(train.main, arguments)
    assert result.exit_code == 1
    found = re.search(
        r"step (\d+): (the weight \S+|the gradient of \S+) is not finite",
        result.output.splitlines()[-1],
    )
    assert found, result.output
    kept = sorted(output.glob("checkpoints/last/*.index"), key=_step)
    assert 5 <= _step(kept[-1]) < int(found.group(1)) <= _step(kept[-1]) + 5
    reader = tf.train.load_checkpoint(str(kept[-1].with_suffix("")))
    for name in reader.get_variable_to_shape_map():
        value = np.asarray(reader.get_tensor(name))
        assert value.dtype.kind != "f" or np.isfinite(value).all(), name
