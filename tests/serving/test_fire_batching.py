"""Requests that share batches: each has its own rows, its own errors and its own patience."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import batching
from serving.batching import Batcher, BatchingParameters, merged
from serving.errors import Code, ServingError, invalid
from serving.inference import Arrays
from serving.monitoring import Metrics
from serving.runner import Runner


class Model:
    """Stands for a servable: sums of rows, and an error for rows with a negative number.

    Args:
        held: whether runs wait for `go`.
    """

    def __init__(self, held: bool = False) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.rows: list[int] = []
        self.timeouts: list[float | None] = []
        self.batchable = {"s"}
        if not held:
            self.go.set()

    def run(self, signature: str, inputs: Arrays, timeout: float | None = None) -> Arrays:
        self.rows.append(len(inputs["x"]))
        self.timeouts.append(timeout)
        self.begun.set()
        if not self.go.wait(5 if timeout is None else timeout):
            raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded")
        if (inputs["x"] < 0).any():
            raise invalid("x is negative")
        real = np.where(np.isnan(inputs["x"]), 0, inputs["x"])
        return {"sum": real.sum(axis=1), "first": inputs["x"][:, 0]}


def rows(*values: Any) -> Arrays:
    return {"x": np.array(values, np.float32)}


async def outcome(work: Any) -> Any:
    """An answer as lists, or an error's code."""
    try:
        return {name: array.tolist() for name, array in (await work).items()}
    except ServingError as error:
        return error.code


async def begun(model: Model) -> None:
    assert await asyncio.to_thread(model.begun.wait, 5)


# A request is a few rows of small numbers, all of one length; some are bad.
REQUESTS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 3)).flatmap(
        lambda shape: st.lists(
            st.lists(st.integers(-1, 20), min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, derandomize=True)
@given(
    requests=REQUESTS,
    pad=st.booleans(),
    sizes=st.sampled_from([(), (2, 8), (8,)]),
    split=st.sampled_from([None, 2, 3]),
)
def test_answers_are_those_without_batching(
    requests: list[Any], pad: bool, sizes: tuple[int, ...], split: int | None
) -> None:
    sizes = (1, split) if sizes and split else sizes
    parameters = BatchingParameters(8, 500, 100, 2, sizes, pad, split)

    async def ask() -> tuple[list[Any], list[Any]]:
        model, batcher = Model(), Batcher(parameters)
        asked = [outcome(batcher.run(model, "s", rows(*request))) for request in requests]
        together = await asyncio.gather(*asked)
        alone = []
        for request in requests:
            bad = min(map(min, request)) < 0
            alone.append(Code.INVALID_ARGUMENT if bad else Model().run("s", rows(*request)))
        return together, alone

    together, alone = asyncio.run(ask())
    for answer, expected in zip(together, alone, strict=True):
        if isinstance(expected, dict):
            expected = {name: array.tolist() for name, array in expected.items()}
        assert answer == expected


def test_what_is_missing_fills_up_shorter_rows() -> None:
    floats = merged([np.ones((1, 1), np.float32), np.ones((1, 2), np.float32)])
    np.testing.assert_array_equal(floats, [[1, np.nan], [1, 1]])
    assert floats.dtype == np.float32
    numbers = merged([np.ones((1, 1), np.int64), np.ones((1, 2), np.int64)])
    assert numbers.tolist() == [[1, 0], [1, 1]]
    texts = merged([np.array([[b"a"]], object), np.array([[b"b", b"c"]], object)])
    assert texts.tolist() == [[b"a", b""], [b"b", b"c"]]


@pytest.mark.parametrize("text", [False, True])
def test_one_large_row_does_not_fill_up_a_batch(text: bool) -> None:
    sizes = (1, 512)

    async def ask(length: int) -> tuple[list[int], int]:
        model = Model()
        batcher = Batcher(BatchingParameters(512, 0, 100, 1, sizes))
        inputs = rows([1.0], [1.0])
        if text:
            inputs["text"] = np.array([b"0" * 4 * length, b""], object)
        else:
            inputs["large"] = np.zeros((2, length), np.float32)
        answer = await batcher.run(model, "s", inputs)
        return model.rows, len(answer["sum"])

    assert asyncio.run(ask(10)) == ([512], 2)
    assert asyncio.run(ask(100_000)) == ([2], 2)


def test_one_long_row_does_not_make_all_others_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of many rows, each padded to the longest, would take all memory."""
    monkeypatch.setattr(batching, "MAX_PADDED", 100)

    async def ask() -> list[int]:
        model = Model(held=True)
        batcher = Batcher(BatchingParameters(64, 0, 100, 1, (), True))
        first = batcher.run(model, "s", rows([1]))
        await begun(model)
        others = [rows([1.0] * 90), *[rows([1.0])] * 20]
        work = [batcher.run(model, "s", one) for one in others]
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *work)
        return model.rows

    assert asyncio.run(ask()) == [1, 1, 20]


def test_a_large_request_is_split_if_there_is_room_for_all_of_it() -> None:
    async def ask() -> tuple[Any, list[int], Any, Any]:
        model = Model(held=True)
        batcher = Batcher(BatchingParameters(8, 0, 3, 1, (1, 2), False, 2))
        first = asyncio.create_task(outcome(batcher.run(model, "s", rows([1], [2], [3], [4], [5]))))
        await begun(model)
        with pytest.raises(ServingError) as raised:  # four batches, and there is room for one
            batcher.run(model, "s", rows(*[[1]] * 7))
        last = asyncio.create_task(outcome(batcher.run(model, "s", rows([6], [7]))))
        await asyncio.sleep(0)
        model.go.set()
        return await first, model.rows, raised.value.code, await last

    first, ran, code, last = asyncio.run(ask())
    assert first == {"sum": [1, 2, 3, 4, 5], "first": [1, 2, 3, 4, 5]}
    assert (ran, code) == ([2, 2, 1, 2], Code.UNAVAILABLE)
    assert last["sum"] == [6, 7]


@pytest.mark.parametrize("timeout", [None, 0])
def test_a_large_request_that_is_given_up_at_once_is_not_run(timeout: float | None) -> None:
    async def ask() -> None:
        logged: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        model = Model(held=True)
        batcher = Batcher(BatchingParameters(8, 0, 5, 1, (), False, 2))
        first = batcher.run(model, "s", rows([1]))
        await begun(model)
        leaving = batcher.run(model, "s", rows([1], [2], [3], [4], [5]), timeout)
        leaving.cancel()
        await asyncio.wait([leaving])
        last = batcher.run(model, "s", rows([6]))
        model.go.set()
        await asyncio.gather(first, last)
        del leaving
        gc.collect()
        assert model.rows == [1, 1]
        assert not logged  # no "exception was never retrieved"

    asyncio.run(ask())


def test_a_full_queue_says_so_at_once_and_room_comes_back() -> None:
    async def ask() -> None:
        model = Model(held=True)
        batcher = Batcher(BatchingParameters(1, 0, 2, 1))

        def one() -> asyncio.Task[Any]:
            return asyncio.create_task(outcome(batcher.run(model, "s", rows([1]))))

        first = one()
        await begun(model)
        second, third = one(), one()
        await asyncio.sleep(0)
        with pytest.raises(ServingError) as full:
            batcher.run(model, "s", rows([1]))
        assert full.value.code == Code.UNAVAILABLE
        model.go.set()
        answers = await asyncio.gather(first, second, third)
        assert answers == [{"sum": [1], "first": [1]}] * 3
        assert await one() == {"sum": [1], "first": [1]}

    asyncio.run(ask())


def test_who_leaves_the_queue_is_not_run_and_takes_no_memory() -> None:
    async def ask() -> None:
        model = Model(held=True)
        batcher = Batcher(BatchingParameters(4, 0, 2, 1))
        first = batcher.run(model, "s", rows([1]))
        await begun(model)
        inputs = rows([1], [2], [3])
        array = weakref.ref(inputs["x"])
        leaving = batcher.run(model, "s", inputs)
        staying = batcher.run(model, "s", rows([7]))
        await asyncio.sleep(0)
        del inputs
        leaving.cancel()
        await asyncio.wait([leaving])
        del leaving
        gc.collect()
        assert array() is None
        model.go.set()
        await first
        assert (await staying)["sum"].tolist() == [7]
        assert model.rows == [1, 1]

    asyncio.run(ask())


def test_a_batch_waits_as_long_as_its_most_patient_request() -> None:
    async def ask() -> None:
        model = Model(held=True)
        runner = Runner(Metrics(), batching=BatchingParameters(num_batch_threads=1))

        def one(timeout: float | None) -> asyncio.Task[Any]:
            work = runner.run(model, "s", rows([1]), timeout, "m")
            return asyncio.create_task(outcome(work))

        first = one(0.2)
        await begun(model)
        others = one(0.1), one(0.4)
        assert await first == Code.DEADLINE_EXCEEDED  # its run ends, and frees the thread
        assert await asyncio.gather(*others) == [Code.DEADLINE_EXCEEDED] * 2
        model.go.set()
        assert await one(None) == {"sum": [1], "first": [1]}
        assert all(timeout is None or timeout <= 0.4 for timeout in model.timeouts)
        assert model.timeouts[-1] is None

    asyncio.run(ask())


def test_requests_beyond_the_limit_are_turned_away_at_once() -> None:
    async def ask() -> None:
        model, runner = Model(held=True), Runner(Metrics(), limit=2)

        def one() -> asyncio.Task[Any]:
            return asyncio.create_task(outcome(runner.run(model, "s", rows([1]), 5, "m")))

        waiting = one(), one()
        assert await one() == Code.UNAVAILABLE
        model.go.set()
        assert await asyncio.gather(*waiting) == [{"sum": [1], "first": [1]}] * 2
        assert await one() == {"sum": [1], "first": [1]}

    asyncio.run(ask())


def test_who_gives_up_before_a_thread_is_free_takes_no_memory() -> None:
    async def ask() -> None:
        model, runner = Model(held=True), Runner(Metrics())
        threads = runner.threads._max_workers
        busy = [
            asyncio.create_task(runner.run(model, "s", rows([1]), 5, "m")) for _ in range(threads)
        ]
        await begun(model)
        inputs = rows([1])
        array = weakref.ref(inputs["x"])
        late = runner.run(model, "s", inputs, 0.01, "m")
        del inputs
        assert await outcome(late) == Code.DEADLINE_EXCEEDED
        del late
        gc.collect()
        assert array() is None
        model.go.set()
        await asyncio.gather(*busy)
        assert len(model.rows) == threads

    asyncio.run(ask())
