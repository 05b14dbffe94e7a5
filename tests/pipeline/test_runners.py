"""Other runners than the default one: the same data set by workers that share nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.declaration import Declaration
from pipeline.graph import run_graph
from pipeline.shared import Shared
from pipeline.workspace import MAKING, RECORD, Workspace
from tests.pipeline import shop
from tests.serving.process import free_port
from tfrec.strict import UserError


@pytest.fixture
def cluster() -> Iterator[list[str]]:
    """Options for a job server in one process and workers in another."""
    job, pool = free_port(), free_port()
    beam = "apache_beam.runners"
    commands = [
        [f"{beam}.portability.local_job_service_main", "--port", str(job)],
        [f"{beam}.worker.worker_pool_main", "--service_port", str(pool)],
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the pool's python
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "PATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        for port in (job, pool):
            with grpc.insecure_channel(f"localhost:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=120)
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{job}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool}",
        ]
    finally:
        for process in processes:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events, and the data set that the default runner makes of them in this process."""
    folder = tmp_path_factory.mktemp("here")
    declared = declaration(shop.write_csv(shop.events(), folder / "events.csv"))
    shop.prepare(declared, folder / "made")
    return folder / "made"


def declaration(path: str) -> Declaration:
    names = ("user", "item", "genres", "price", "age")
    return shop.declare(
        source={"format": "csv", "path": path},
        features={name: shop.FEATURES[name] for name in names},
        crosses=[{"features": ["user", "age"], "buckets": 40}],
    )


def assert_same(there: Path, here: Path) -> None:
    there, here = there / "transform", here / "transform"
    assert (there / "features.json").read_bytes() == (here / "features.json").read_bytes()
    assert shop.shards(there, "train", "test") == shop.shards(here, "train", "test")
    assert (there / "transform" / "transform_fn" / "saved_model.pb").is_file()


def test_a_portable_runner(cluster: list[str], here: Path, tmp_path: Path) -> None:
    """As Flink and Spark are reached; workers leave nothing in the directory that they share."""
    seen, there = tmp_path / "seen", tmp_path / "there"
    seen.mkdir()
    declared = declaration(str(here.parent / "events.csv"))
    shop.prepare(declared, there, *cluster, f"--temp_location={seen}")
    assert not list(seen.iterdir())
    assert_same(there, here)


def test_several_processes(here: Path, tmp_path: Path) -> None:
    """The default runner with `direct_running_mode`."""
    options = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    shop.prepare(declaration(str(here.parent / "events.csv")), tmp_path / "many", *options)
    assert_same(tmp_path / "many", here)


@pytest.mark.parametrize("last", [True, False])
def test_a_worker_that_is_killed(last: bool, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Whether the runner waits for data from it, or only for its answer: one line, no traceback."""

    def build(pipeline: beam.Pipeline, *_: Any) -> None:
        killed = pipeline | beam.Create([9]) | "kill" >> beam.Map(lambda n: os.kill(os.getpid(), n))
        if not last:
            _ = killed | beam.Reshuffle()

    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]
    with pytest.raises(UserError, match=r"^a worker process of the run has ended, killed or out"):
        run_graph(build, PipelineOptions(["--runner=FnApiRunner", *flags]), tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_killed_run_has_left_for_workers_goes(tmp_path: Path) -> None:
    """With the next run of the same output; another output's stays, and its step has no trace."""
    options = PipelineOptions([f"--temp_location={tmp_path}/seen"])
    place, other = tmp_path / "out" / f".ingest.x{MAKING}", tmp_path / "other"
    for folder in (place, other):
        folder.mkdir(parents=True)
    Shared(options, place)
    at_work = Shared(options, other)
    with Workspace(tmp_path / "out").at_work():
        pass
    (left,) = (tmp_path / "seen").iterdir()
    assert at_work.output == f"{left}/output"
    at_work.clear()
    assert not list((tmp_path / "seen").iterdir())
    assert not list(other.iterdir())


def test_a_location_that_cannot_be_written(tmp_path: Path) -> None:
    declared = shop.tiny(shop.write_csv(shop.events(), tmp_path / "events.csv"))
    with pytest.raises(UserError, match=r"--temp_location nowhere://bucket: .*nowhere"):
        shop.prepare(declared, tmp_path / "out", "--temp_location=nowhere://bucket")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [RECORD]
