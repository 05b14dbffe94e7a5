"""Requests and replies that take long to convert, and the others meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import json_answer, json_tensor, rest, tensor_proto
from serving.deadline import Deadline
from serving.errors import Code, ServingError
from serving.models import Models, single
from serving.monitoring import Metrics
from serving.requests import Requests
from serving.rpc import PredictionService
from serving.runner import Runner
from tests.serving.saved_models import predict_request

SMALL, LARGE = [1.0] * 3, [1.0] * 20_000


@pytest.fixture(scope="module")
def models(everything: Path) -> Models:
    result = Models()
    result.apply(single("model", everything))
    return result


def requests_of(models: Models, limit: int = 1_000) -> Requests:
    return Requests(models, Runner(Metrics(), limit), Metrics())


class Grpc:
    """What a servicer asks of a call."""

    def time_remaining(self) -> None:
        """No deadline."""

    async def abort(self, code: Any, message: str) -> None:
        raise AssertionError((code, message))


async def over_grpc(requests: Requests, values: list[float]) -> list[float]:
    request = predict_request({"x": np.zeros(1, np.float32)})
    request.inputs["x"].CopyFrom(tensor_proto.tensor(np.array(values, np.float32)))
    reply = await PredictionService(requests, 30).Predict(request, Grpc())
    return list(reply.outputs["y"].float_val)


async def over_rest(requests: Requests, values: list[float], timeout: float = 30) -> list[float]:
    api = rest._Api(requests, timeout)
    spec = predict_request({}).model_spec
    body = await api._predict(spec, json.dumps({"instances": values}).encode(), Deadline(timeout))
    return json.loads(body)["predictions"]


class Held:
    """Keeps all threads that convert busy."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.go = runner, threading.Event()
        self.tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> None:
        for _ in range(self.runner.converters._max_workers):
            work = self.runner.convert(self.go.wait, Deadline(), False)
            self.tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self.go.set()
        await asyncio.gather(*self.tasks)


@pytest.mark.parametrize("ask", [over_rest, over_grpc])
def test_small_requests_do_not_wait_for_large_ones(models: Models, ask: Any) -> None:
    async def both() -> None:
        requests = requests_of(models)
        async with Held(requests.runner):
            late = asyncio.create_task(ask(requests, LARGE))
            assert await ask(requests, SMALL) == [2.5] * 3
            assert not late.done()
        assert await late == [2.5] * 20_000

    asyncio.run(both())


@pytest.mark.parametrize("ask", [over_rest, over_grpc])
@pytest.mark.parametrize(
    ("count", "threads"),
    [(10, ["MainThread", "MainThread"]), (3_000, ["MainThread", "convert"]),
     (20_000, ["convert", "convert"])],
)  # fmt: skip
def test_what_is_converted_decides_where(
    models: Models, monkeypatch: pytest.MonkeyPatch, ask: Any, count: int, threads: list[str]
) -> None:
    """The reply to a small request may be large."""
    found = []
    for module, name in (
        (json_tensor, "tensors"),
        (json_answer, "response"),
        (tensor_proto, "arrays"),
        (tensor_proto, "tensor"),
    ):
        function = getattr(module, name)

        def traced(*given: Any, function: Any = function) -> Any:
            if len(given) > 1:  # not the test's own
                found.append(threading.current_thread().name.partition("_")[0])
            return function(*given)

        monkeypatch.setattr(module, name, traced)
    assert asyncio.run(ask(requests_of(models), [0] * count)) == [2.0] * count
    assert found == threads


def test_few_requests_are_parsed_at_a_time(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is parsed takes far more memory than the body, and is not kept in a queue."""
    parsed: list[weakref.ref[json_tensor.PredictRequest]] = []
    most = 0

    def parse(*given: Any, function: Any = json_tensor.parse_predict) -> Any:
        nonlocal most
        result = function(*given)
        parsed.append(weakref.ref(result))
        most = max(most, sum(one() is not None for one in parsed))
        return result

    monkeypatch.setattr(json_tensor, "parse_predict", parse)

    async def ask() -> None:
        requests = requests_of(models)
        await asyncio.gather(*(over_rest(requests, LARGE) for _ in range(8)))

    asyncio.run(ask())
    assert 1 <= most <= 2


def test_conversions_count_as_requests(models: Models) -> None:
    async def ask() -> None:
        requests = requests_of(models, limit=2)
        async with Held(requests.runner):
            for values in (LARGE, SMALL):
                with pytest.raises(ServingError, match="More than 2 requests") as raised:
                    await over_rest(requests, values)
                assert raised.value.code == Code.UNAVAILABLE
        assert await over_rest(requests, LARGE) == [2.5] * 20_000

    asyncio.run(ask())


def test_a_conversion_ends_at_the_deadline(models: Models) -> None:
    async def ask() -> None:
        requests, ended = requests_of(models), threading.Event()
        deadline = Deadline(0.05)

        def work() -> None:
            try:
                while True:
                    deadline.check()
            finally:
                ended.set()

        for small in (False, True):
            with pytest.raises(ServingError) as raised:
                await requests.runner.convert(work, deadline, small)
            assert raised.value.code == Code.DEADLINE_EXCEEDED
            assert await asyncio.to_thread(ended.wait, 10)
        async with Held(requests.runner):
            with pytest.raises(ServingError) as raised:
                await over_rest(requests, LARGE, 0.05)
            assert raised.value.code == Code.DEADLINE_EXCEEDED

    asyncio.run(ask())


def test_who_hangs_up_has_nothing_more_converted(models: Models) -> None:
    async def ask() -> None:
        runner, begun, ended = requests_of(models).runner, threading.Event(), threading.Event()
        deadline = Deadline()

        def work() -> None:
            begun.set()
            try:
                while True:
                    deadline.check()
            finally:
                ended.set()

        task = asyncio.create_task(runner.convert(work, deadline, False))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        assert await asyncio.to_thread(ended.wait, 10)

    asyncio.run(ask())
