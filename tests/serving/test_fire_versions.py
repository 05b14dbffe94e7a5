"""Versions that go while they are in use, disks that go, and ends with requests in flight."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp.web
import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving import model as model_module
from serving import rest, rpc
from serving.batching import BatchingParameters
from serving.errors import Code, ServingError
from serving.health import Health
from serving.model import Model
from serving.models import Models, single
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.runner import Runner
from serving.server import _follow
from tests.serving.process import until
from tests.serving.saved_models import predict_request

SPEC = ModelSpec(name="model")
LATE = BatchingParameters(batch_timeout_micros=300_000)
X = {"x": np.zeros(1, np.float32)}


def served(base: Path) -> Models:
    result = Models()
    result.apply(single("model", base))
    return result


def test_a_version_goes_while_its_batch_waits(halves: Path, tmp_path: Path) -> None:
    shutil.copytree(halves / "two", tmp_path / "1")
    models = served(tmp_path)

    async def ask() -> list[float]:
        runner, waiting = Runner(Metrics(), batching=LATE), []

        def one() -> None:
            work = runner.run(models.get(SPEC)[1], "serving_default", X, 10, "model")
            waiting.append(asyncio.create_task(work))

        one()
        await asyncio.sleep(0)
        shutil.copytree(halves / "three", tmp_path / "2")
        models.poll()
        one()
        return [float(answer["y"][0]) for answer in await asyncio.gather(*waiting)]

    assert asyncio.run(ask()) == [2.0, 3.0]
    assert models.get(SPEC)[0] == 2


def test_answers_are_of_one_version_while_versions_change(halves: Path, tmp_path: Path) -> None:
    shutil.copytree(halves / "two", tmp_path / "1")
    models = served(tmp_path)
    offsets = {number: 2.0 + (number + 1) % 2 for number in range(1, 8)}

    async def ask() -> set[int]:
        runner = Runner(Metrics(), batching=BatchingParameters())
        over, seen = asyncio.Event(), set()

        async def client() -> None:
            while not over.is_set():
                version, servable = models.get(SPEC)
                answer = await runner.run(servable, "serving_default", X, 10, "model")
                assert answer["y"].tolist() == [offsets[version]]
                seen.add(version)

        def switch() -> None:
            for number in range(2, 8):
                source = halves / ("three" if offsets[number] == 3.0 else "two")
                shutil.copytree(source, tmp_path / f"new{number}")
                (tmp_path / f"new{number}").rename(tmp_path / str(number))
                models.poll()
                shutil.rmtree(tmp_path / str(number - 1))

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await asyncio.to_thread(switch)
        over.set()
        await asyncio.gather(*clients)
        return seen

    assert len(asyncio.run(ask())) > 1


def test_a_copy_is_looked_at_after_every_file(halves: Path, tmp_path: Path) -> None:
    shutil.copytree(halves / "two", tmp_path / "1")
    model = Model("m", tmp_path)
    model.poll()
    files = sorted(path for path in (halves / "three").rglob("*") if path.is_file())
    for path in files:
        assert model.get()[0] == 1
        target = tmp_path / "2" / path.relative_to(halves / "three")
        target.parent.mkdir(parents=True, exist_ok=True)
        half = path.read_bytes()[: path.stat().st_size // 2]
        target.write_bytes(half)
        model.poll()
        assert model.get()[0] == 1 or path == files[-1]
        shutil.copy(path, target)
        model.poll()
    number, servable = model.get()
    assert number == 2
    assert servable.run("serving_default", X)["y"].tolist() == [3.0]


def test_a_disk_that_goes_and_comes_back(
    halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()

    def gone(path: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(model_module, "versions", gone)
        model.poll()
    base.rename(tmp_path / "away")
    model.poll()
    assert model.get()[1].run("serving_default", X)["y"].tolist() == [2.0]
    (tmp_path / "away").rename(base)
    shutil.copytree(halves / "three", base / "2")
    model.poll()
    assert model.get()[0] == 2


@pytest.mark.parametrize(("wait", "seen"), [(0.001, True), (0, False)])
def test_an_error_that_nobody_foresaw_does_not_end_the_looking(
    wait: float, seen: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it begin where one look was all that was asked for: loads are tried again."""
    looks: list[bool] = []

    class Odd:
        ready = False

        def apply(self, config: Any, patient: bool) -> None:
            pass

        def poll(self, look: bool = True) -> None:
            looks.append(look)
            raise RuntimeError("can't start new thread")

    options: Any = SimpleNamespace(
        model_config_file=None,
        model_config_file_poll_wait_seconds=0.001,
        file_system_poll_wait_seconds=wait,
    )

    async def ask() -> None:
        following = asyncio.create_task(_follow(Odd(), None, options, Health()))  # type: ignore
        async with asyncio.timeout(10):
            while len(looks) < 2:
                await asyncio.sleep(0.001)
        following.cancel()

    asyncio.run(ask())
    assert "can't start new thread" in caplog.text
    assert set(looks) == {seen}


def test_an_expired_deadline_is_no_endless_one(everything: Path, tmp_path: Path) -> None:
    servable = served(everything).get(SPEC)[1]
    inputs = {"directory": np.array(str(tmp_path), object)}
    with pytest.raises(ServingError) as raised:
        servable.run("wait", inputs, 0.0)
    assert raised.value.code == Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("unloaded", [False, True])
def test_the_end_of_the_server_ends_runs(everything: Path, tmp_path: Path, unloaded: bool) -> None:
    models = served(everything)
    servable = models.get(SPEC)[1]
    with ThreadPoolExecutor(1) as pool:
        inputs = {"directory": np.array(str(tmp_path), object)}
        run = pool.submit(servable.run, "wait", inputs)
        until(lambda: (tmp_path / "begun").exists())
        if unloaded:
            models.apply(ModelServerConfig(model_config_list={}))
        models.close()
        error = run.exception(20)
    assert isinstance(error, ServingError)
    assert error.code == Code.CANCELLED


def test_what_waits_in_a_batch_is_answered_at_the_end(everything: Path) -> None:
    """Over both APIs; what comes later is refused."""
    models = served(everything)

    async def ask() -> tuple[int, Any, list[float]]:
        requests = Requests(models, Runner(Metrics(), batching=LATE), Metrics())
        runner = rest.runner(rest.application(requests, 30), 10)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/models/model:predict"
        server, _ = rpc.server(requests, 30)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with (
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):

            async def post() -> tuple[int, Any]:
                async with session.post(url, data=json.dumps({"instances": [1.0]})) as reply:
                    return reply.status, await reply.json()

            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            first = asyncio.create_task(post())
            second = asyncio.create_task(_predict(stub))
            while requests.runner._inside < 2:
                await asyncio.sleep(0.001)
            await asyncio.gather(runner.cleanup(), server.stop(10))
            with pytest.raises(aiohttp.ClientConnectionError):
                await post()
            return *await first, await second

    assert asyncio.run(ask()) == (200, {"predictions": [2.5]}, [2.0])


async def _predict(stub: Any) -> list[float]:
    reply = await stub.Predict(predict_request(X))
    return list(reply.outputs["y"].float_val)
