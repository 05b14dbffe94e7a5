"""However many devices and machines: the same global batches, the same weights."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tfrec import train, training
from tfrec.strategies import make_strategy
from tfrec.strict import UserError

SETTINGS = (
    "batch_size=50", "epochs=1", "model.hidden=[8]", "model.dim=4", "model.dropout=0",
    "clip_norm=0.5",
)  # fmt: skip


def arguments(shop: Path, output: Path, strategy: str) -> list[str]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["--data", str(shop), "--model", "din", "--output", str(output), "--seed", "3",
            "--strategy", strategy, *sets]  # fmt: skip


def weights(output: Path) -> dict[str, Any]:
    paths = (output / "checkpoints" / "last").glob("*.index")
    newest = max(paths, key=lambda path: int(path.stem.rpartition("-")[2]))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("model/") and "tracker" not in name and "ATTR" in name
    }


@pytest.fixture(scope="module")
def one(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("one") / "run"
    result = CliRunner().invoke(train.main, arguments(shop, output, "one"))
    assert result.exit_code == 0, result.output
    return output


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def assert_close(first: Path, second: Path) -> None:
    expected, found = weights(first), weights(second)
    assert expected.keys() == found.keys()
    assert len(expected) > 8
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    one, two = (json.loads((run / "metrics.json").read_text()) for run in (first, second))
    assert two["best"]["metrics"]["bought"]["auc"] == pytest.approx(
        one["best"]["metrics"]["bought"]["auc"], abs=1e-4
    )


def test_mirrored_equals_one_device(shop: Path, tmp_path: Path, one: Path) -> None:
    output = tmp_path / "run"
    result = CliRunner().invoke(train.main, arguments(shop, output, "mirrored"))
    assert result.exit_code == 0, result.output
    assert_close(one, output)
    assert (output / "export" / "1" / "saved_model.pb").is_file()


def test_mirrored_goes_on_from_where_it_was_ended(
    shop: Path, tmp_path: Path, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a step in mid epoch, as by SIGKILL: what was not in a checkpoint is lost."""
    output = tmp_path / "run"
    monkeypatch.setattr("tests.test_strategies.SETTINGS", (*SETTINGS, "checkpoint_steps=2"))
    step = training.Trainer._step

    def dies(trainer: training.Trainer, *arguments: Any) -> None:
        if trainer.step == 3:
            raise KeyboardInterrupt
        step(trainer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(training.Trainer, "_step", dies)
        result = CliRunner().invoke(train.main, arguments(shop, output, "mirrored"))
        assert result.exit_code, result.output
    result = CliRunner().invoke(train.main, arguments(shop, output, "mirrored"))
    assert result.exit_code == 0, result.output
    assert "going on from step 2" in result.output
    assert_close(one, output)


# What `python -m tfrec.train` does where a signal comes during step 4.
SIGNALLED = [
    "-c",
    """
import os, signal
from tfrec import train, training

step = training.Trainer._step
def signalled(trainer, *arguments):
    if trainer.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    step(trainer, *arguments)
training.Trainer._step = signalled
train.main()
""",
]
TRAIN = ["-m", "tfrec.train"]


def two_machines(
    shop: Path, output: Path, commands: tuple[list[str], list[str]] = (TRAIN, TRAIN)
) -> list[subprocess.Popen[str]]:
    """Two processes on this machine, each told by TF_CONFIG who it is."""
    ports = free_ports(2)
    workers = []
    for index in range(2):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, *commands[index], *arguments(shop, output, "multi_worker")],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def test_two_machines_equal_one_device_though_a_signal_ended_one_of_them(
    shop: Path, tmp_path: Path, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    monkeypatch.setattr("tests.test_strategies.SETTINGS", (*SETTINGS, "checkpoint_steps=2"))
    workers = two_machines(shop, output, (TRAIN, SIGNALLED))
    ends = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [128 + signal.SIGTERM] * 2, ends
    assert "interrupted after step 4" in ends[0][0]
    workers = two_machines(shop, output)
    ends = [worker.communicate() for worker in workers]
    for worker, (_, errors) in zip(workers, ends, strict=True):
        assert worker.returncode == 0, errors
    assert "going on from step 4" in ends[0][0]
    assert "exported" in ends[0][0]
    assert ends[1][0] == ""  # only the chief speaks and writes
    assert_close(one, output)


# What `python -m tfrec.train` does, and the places of the tables' parts.
TELLING = [
    "-c",
    """
from tfrec import train, training

fit = training.Trainer.fit
def telling(trainer):
    for part in trainer.groups["embedding"]:
        print("part", part.name, part.shape[0], part.device.split("/")[3], flush=True)
    return fit(trainer)
training.Trainer.fit = telling
train.main()
""",
]


def test_parameter_servers_hold_parts_of_the_tables_and_a_run_goes_on(
    shop: Path, tmp_path: Path
) -> None:
    """A chief, two workers and two parameter servers; stopped once, and started again."""
    output = tmp_path / "run"
    settings = ["model.dim=4096", "model.hidden=[8]", "batch_size=50", "epochs=6"]
    settings += ["checkpoint_steps=5", "validations_per_epoch=1"]
    base = ["--data", str(shop), "--model", "wide_deep", "--output", str(output)]
    base += ["--strategy", "parameter_server"]
    base += [part for setting in settings for part in ("--set", setting)]

    def start() -> list[subprocess.Popen[str]]:
        ports = iter(free_ports(5))
        jobs = {"chief": 1, "worker": 2, "ps": 2}
        cluster = {
            job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()
        }
        return [
            subprocess.Popen(
                [sys.executable, *(TELLING if job == "chief" else TRAIN), *base],
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for job, count in jobs.items()
            for index in range(count)
            for config in [{"cluster": cluster, "task": {"type": job, "index": index}}]
        ]

    chief, *others = start()
    while chief.poll() is None and not list((output / "checkpoints/last").glob("*.index")):
        time.sleep(0.05)
    chief.send_signal(signal.SIGTERM)
    printed, errors = chief.communicate()
    assert "interrupted after step" in printed, errors
    assert [other.wait() for other in others] == [0] * 4
    parts = [line.split()[1:] for line in printed.splitlines() if line.startswith("part")]
    product = [(rows, place) for name, rows, place in parts if "table_product/table/part" in name]
    assert {place for _, place in product} == {"task:0", "task:1"}, parts

    chief, *others = start()
    printed, errors = chief.communicate()
    assert chief.returncode == 0, errors
    assert "going on from step" in printed
    assert [other.wait() for other in others] == [0] * 4
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["best"]["metrics"]["bought"]["auc"] > 0.6
    assert metrics["history"][-1]["epoch"] == 6
    assert (output / "export" / "1" / "saved_model.pb").is_file()


@pytest.mark.parametrize("strategy", ["multi_worker", "parameter_server"])
def test_without_a_cluster_there_is_one_clear_line(monkeypatch: Any, strategy: str) -> None:
    for wrong in ("", "{}", '{"cluster": {"worker": []}, "task": {"index": 0}}'):
        monkeypatch.setenv("TF_CONFIG", wrong)
        with pytest.raises(UserError, match=f"{strategy} needs TF_CONFIG"):
            make_strategy(strategy)


def test_auto_is_one_device_without_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_strategy("auto").num_replicas_in_sync == 1
    cpus = tf.config.list_logical_devices("CPU")  # stand in for GPUs
    for count in (1, 2):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, n=count: cpus[:n])
        assert make_strategy("auto").num_replicas_in_sync == count


def test_jit_is_refused_on_several_devices(shop: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        train.main, [*arguments(shop, tmp_path / "run", "mirrored"), "--jit"]
    )
    assert result.exit_code == 1
    assert "jit works on one device only" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["two_tower", "youtube_dnn", "gru4rec", "sasrec", "bert4rec"])
def test_jit_is_refused_where_xla_lacks_operations(model: str, shop: Path, tmp_path: Path) -> None:
    command = ["--data", str(shop), "--model", model, "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(train.main, [*command, "--jit"])
    assert result.exit_code == 1
    message = f"Error: XLA lacks operations of model {model}: leave out --jit"
    assert result.output.strip() == message
