"""However many devices and machines: the same global batches, the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tfrec import train
from tfrec.strategies import make_strategy
from tfrec.strict import UserError

SETTINGS = (
    "batch_size=50", "epochs=1", "model.hidden=[8]", "model.dim=4", "model.dropout=0",
    "clip_norm=0.5", "embedding_l2=0.001",
)  # fmt: skip


def arguments(shop: Path, output: Path, strategy: str) -> list[str]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["--data", str(shop), "--model", "din", "--output", str(output), "--seed", "3",
            "--strategy", strategy, *sets]  # fmt: skip


def weights(output: Path) -> dict[str, Any]:
    newest = max((output / "checkpoints" / "last").glob("*.index"))
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


def test_two_machines_equal_one_device(shop: Path, tmp_path: Path, one: Path) -> None:
    """Two processes on this machine, each told by TF_CONFIG who it is."""
    output = tmp_path / "run"
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    workers = []
    for index in range(2):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tfrec.train", *arguments(shop, output, "multi_worker")],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ends = [worker.communicate() for worker in workers]
    for worker, (_, errors) in zip(workers, ends, strict=True):
        assert worker.returncode == 0, errors
    assert "exported" in ends[0][0]
    assert ends[1][0] == ""  # only the chief speaks and writes
    assert_close(one, output)


def test_multi_worker_without_a_cluster_is_one_clear_line(monkeypatch: Any) -> None:
    for wrong in ("", "{}", '{"cluster": {"worker": []}, "task": {"index": 0}}'):
        monkeypatch.setenv("TF_CONFIG", wrong)
        with pytest.raises(UserError, match="multi_worker needs TF_CONFIG"):
            make_strategy("multi_worker")


def test_auto_is_one_device_without_several_gpus() -> None:
    assert make_strategy("auto").num_replicas_in_sync == 1
