"""Dynamic batching as TF Serving's: small requests for one signature run together."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.config_files import ConfigError
from serving.errors import Code, ServingError, invalid, late
from serving.inference import Arrays
from serving.servable import Servable

MAX_FILLED = 2**26  # bytes that fill up a batch, lest one large row makes hundreds
MAX_PADDED = 2**23  # values of an input in a batch, lest one long list makes a thousand


@dataclass(frozen=True)
class BatchingParameters:
    """Of all queues together, with TF Serving's defaults.

    Attributes:
        max_batch_size: rows of a request, and of a batch.
        batch_timeout_micros: that a batch waits for more rows, where a thread is free to run it.
        max_enqueued_batches: that may wait for one signature; one more is UNAVAILABLE.
        num_batch_threads: batches that run at a time.
        allowed_batch_sizes: to which batches are filled up, the last one the most rows of a batch.
        pad_variable_length_inputs: whether rows of other lengths go into one batch, filled up with
            missing values: `""`, NaN or 0.
        max_execution_batch_size: rows of a batch, where requests may have more and are split.
    """

    max_batch_size: int = 1_000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    max_execution_batch_size: int | None = None

    @classmethod
    def of(cls, config: Any) -> BatchingParameters:
        """From a `BatchingParameters` proto.

        Raises:
            ConfigError: a value that cannot be.
        """
        given: dict[str, Any] = {
            name: getattr(config, name).value
            for name in (
                "max_batch_size",
                "batch_timeout_micros",
                "max_enqueued_batches",
                "num_batch_threads",
                "max_execution_batch_size",
            )
            if config.HasField(name)
        }
        for name, value in given.items():
            if value < (name not in ("batch_timeout_micros", "max_enqueued_batches")):
                raise ConfigError(f"batching parameters: {name} cannot be {value}")
        if not config.enable_large_batch_splitting.value:
            given.pop("max_execution_batch_size", None)
        sizes = tuple(config.allowed_batch_sizes)
        result = cls(
            **given,
            allowed_batch_sizes=sizes,
            pad_variable_length_inputs=config.pad_variable_length_inputs,
        )
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
            raise ConfigError("batching parameters: allowed_batch_sizes should increase")
        if result.rows > result.max_batch_size:
            raise ConfigError(
                f"batching parameters: max_execution_batch_size, {result.rows}, should not be "
                f"above max_batch_size, {result.max_batch_size}"
            )
        if sizes and sizes[-1] != result.rows:
            name = (
                "max_execution_batch_size" if result.max_execution_batch_size else "max_batch_size"
            )
            raise ConfigError(
                f"batching parameters: the last of allowed_batch_sizes, {sizes[-1]}, should be "
                f"{name}, {result.rows}"
            )
        return result

    @property
    def rows(self) -> int:
        """Of a batch, at most."""
        return self.max_execution_batch_size or self.max_batch_size

    def filled_up(self, size: int) -> int:
        """Rows that a batch of so many is run with."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


Shapes = list[tuple[int, ...]]  # of the rows of inputs


@dataclass(eq=False)
class _Task:
    inputs: Arrays
    size: int
    shapes: Shapes
    future: asyncio.Future[Arrays]
    deadline: float | None  # of time.monotonic


@dataclass(eq=False)
class _Batch:
    servable: Servable
    signature: str
    due: float  # time of the loop from which on it need not be full
    tasks: list[_Task] = field(default_factory=list)
    size: int = 0  # rows of all tasks
    started: bool = False
    shapes: Shapes = field(default_factory=list)  # of rows, when padded

    def takes(self, task: _Task, rows: int) -> bool:
        """Whether a task fits in, where so many rows are allowed."""
        size = self.size + task.size
        if not self.tasks or size > rows:
            return size <= rows
        return size * max(map(math.prod, self._wider(task))) <= MAX_PADDED

    def add(self, task: _Task) -> None:
        """Takes a task."""
        self.shapes = self._wider(task)
        self.size += task.size
        self.tasks.append(task)

    def leave(self, task: _Task) -> None:
        """A task that is given up makes room, and takes no memory."""
        if not self.started:
            self.size -= task.size
            self.tasks.remove(task)

    def _wider(self, task: _Task) -> Shapes:
        if not self.tasks or task.shapes == self.shapes:
            return task.shapes
        return [tuple(map(max, *pair)) for pair in zip(task.shapes, self.shapes, strict=True)]


class Batcher:
    """Collects requests into batches, and runs them in threads; used from one event loop.

    A batch that fails is run once more, request by request, so that an error is the error of the
    request that caused it.

    Args:
        parameters: of all queues.
    """

    def __init__(self, parameters: BatchingParameters) -> None:
        self.parameters = parameters
        self._executor = ThreadPoolExecutor(parameters.num_batch_threads, "batch")
        self._running = 0
        # By servable, signature and shapes of rows; the batch that is open comes last.
        self._queues: dict[Any, deque[_Batch]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def run(
        self, servable: Servable, signature: str, inputs: Arrays, timeout: float | None = None
    ) -> asyncio.Future[Arrays]:
        """Outputs of a signature, run together with other requests.

        Whoever gives up should cancel what is returned: it leaves its batch then.

        Args:
            servable: that has it.
            signature: its name, one of `servable.batchable`.
            inputs: as `Servable.check` gives them, with the same number of rows each, one at least.
            timeout: seconds after which nobody waits for them any more.

        Raises:
            ServingError: UNAVAILABLE, the queue is full; INVALID_ARGUMENT, rows too many or of
                different number; DEADLINE_EXCEEDED; or the model's own error.
        """
        sizes = {len(value) for value in inputs.values()}
        if len(sizes) > 1:
            raise invalid("Batching input tensors must all have the same 0th-dimension size")
        (size,) = sizes
        if size > self.parameters.max_batch_size:
            limit = self.parameters.max_batch_size
            raise invalid(f"Task size {size} is larger than maximum input batch size {limit}")
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = self.parameters.rows
        if size <= rows:
            return self._run(servable, signature, inputs, size, deadline)
        waiting = len(self._queues.get(self._key(servable, signature, _shapes(inputs)), ()))
        if waiting + -(-size // rows) > self.parameters.max_enqueued_batches:
            raise _full()
        parts = []
        for start in range(0, size, rows):
            part = {name: value[start : start + rows] for name, value in inputs.items()}
            length = min(rows, size - start)
            parts.append(self._run(servable, signature, part, length, deadline))
        joined = asyncio.ensure_future(_joined(parts))
        # If one fails, nobody waits for the others; nor if it is given up before it has begun.
        joined.add_done_callback(lambda _: [part.cancel() for part in parts])
        return joined

    def _run(
        self, servable: Servable, signature: str, inputs: Arrays, size: int, deadline: float | None
    ) -> asyncio.Future[Arrays]:
        """Outputs of a signature for rows that fit into one batch."""
        loop = asyncio.get_running_loop()
        task = _Task(inputs, size, _shapes(inputs), loop.create_future(), deadline)
        batch = self._enqueue(servable, signature, task, loop.time())
        expiry = None
        if deadline is not None:
            expiry = loop.call_later(deadline - time.monotonic(), _expire, task.future)

        def leave(_: asyncio.Future[Arrays]) -> None:
            if expiry:
                expiry.cancel()
            batch.leave(task)

        task.future.add_done_callback(leave)
        self._start()
        return task.future

    def _enqueue(self, servable: Servable, signature: str, task: _Task, now: float) -> _Batch:
        queue = self._queues.setdefault(self._key(servable, signature, task.shapes), deque())
        if not queue or not queue[-1].takes(task, self.parameters.rows):
            if len(queue) >= self.parameters.max_enqueued_batches:
                raise _full()
            due = now + self.parameters.batch_timeout_micros / 1e6
            queue.append(_Batch(servable, signature, due))
        queue[-1].add(task)
        return queue[-1]

    def _key(self, servable: Servable, signature: str, shapes: Shapes) -> Any:
        """Of the queue: rows have one shape in a batch, or one rank where they are padded."""
        padded = self.parameters.pad_variable_length_inputs
        return servable, signature, *(map(len, shapes) if padded else shapes)

    def _start(self) -> None:
        """Runs what is due while threads are free, the batch that is due for longest first."""
        loop = asyncio.get_running_loop()
        while self._running < self.parameters.num_batch_threads and self._queues:
            key, queue = min(self._queues.items(), key=lambda item: self._ready(item[1]))
            if self._ready(queue) > loop.time():
                self._wake_at(self._ready(queue))
                return
            batch = queue.popleft()
            if not queue:
                del self._queues[key]
            batch.started = True
            batch.tasks = [task for task in batch.tasks if not task.future.done()]  # given up
            if batch.tasks:
                self._running += 1
                running = loop.run_in_executor(self._executor, self._answers, batch)
                running.add_done_callback(functools.partial(self._finish, batch))

    def _ready(self, queue: deque[_Batch]) -> float:
        full = len(queue) > 1 or queue[0].size >= self.parameters.rows
        return queue[0].due - (self.parameters.batch_timeout_micros / 1e6 if full else 0)

    def _wake_at(self, when: float) -> None:
        if self._timer and self._timer.when() == when:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._start()

    def _finish(self, batch: _Batch, done: asyncio.Future[list[Arrays | Exception]]) -> None:
        self._running -= 1
        for task, answer in zip(batch.tasks, done.result(), strict=True):
            if task.future.done():  # given up
                continue
            if isinstance(answer, Exception):
                task.future.set_exception(answer)
            else:
                task.future.set_result(answer)
        self._start()

    def _answers(self, batch: _Batch) -> list[Arrays | Exception]:
        try:
            return list(self._together(batch, batch.tasks))
        except Exception as error:  # whatever it is, each request gets its own answer
            late = isinstance(error, ServingError) and error.code == Code.DEADLINE_EXCEEDED
            if late or len(batch.tasks) == 1:
                return [error for _ in batch.tasks]
        found: list[Arrays | Exception] = []
        for task in batch.tasks:
            try:
                found += self._together(batch, [task])
            except Exception as error:  # of this request alone
                found.append(error)
        return found

    def _together(self, batch: _Batch, tasks: list[_Task]) -> Iterable[Arrays]:
        sizes = [task.size for task in tasks]
        joined = {name: merged([task.inputs[name] for task in tasks]) for name in tasks[0].inputs}
        count = self.parameters.filled_up(sum(sizes))
        inputs = filled(joined, sum(sizes[:-1]), count)
        size = len(next(iter(inputs.values())))
        deadlines = [task.deadline for task in tasks if task.deadline is not None]
        timeout = None
        if len(deadlines) == len(tasks):
            timeout = max(deadlines) - time.monotonic()
        outputs = batch.servable.run(batch.signature, inputs, timeout)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != size:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Batched output tensor {name}'s 0th dimension does not equal the sum of the "
                    "0th dimension sizes of the input tensors",
                )
        ends = np.cumsum(sizes)
        return [
            {name: array[end - size : end] for name, array in outputs.items()}
            for size, end in zip(sizes, ends, strict=True)
        ]


def _shapes(inputs: Arrays) -> Shapes:
    return [value.shape[1:] for value in inputs.values()]


def _full() -> ServingError:
    return ServingError(
        Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
    )


def _expire(future: asyncio.Future[Arrays]) -> None:
    if not future.done():
        future.set_exception(late())


async def _joined(parts: list[asyncio.Future[Arrays]]) -> Arrays:
    """Outputs of the parts of a request."""
    found = await asyncio.gather(*parts)
    return {name: merged([one[name] for one in found]) for name in found[0]}


def merged(arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Rows of arrays in one.

    Args:
        arrays: of one rank and dtype; shorter rows are padded at their end by `""`, NaN or 0.
    """
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        shape = np.max([*shapes], axis=0)
        arrays = [_padded(array, shape) for array in arrays]
    return np.concatenate(arrays)


def filled(inputs: Arrays, row: int, size: int) -> Arrays:
    """Inputs with copies of a row behind them; as they are, where these would be too large.

    Args:
        inputs: of equally many rows.
        row: its place.
        size: rows that are wanted.
    """
    count = size - len(next(iter(inputs.values())))
    copied = {name: array[row : row + 1] for name, array in inputs.items()}
    if not count or count * sum(map(_bytes_of, copied.values())) > MAX_FILLED:
        return inputs
    return {
        name: np.concatenate([array, np.repeat(copied[name], count, axis=0)])
        for name, array in inputs.items()
    }


def _bytes_of(array: np.ndarray[Any, Any]) -> int:
    """With those of strings, of which TensorFlow makes copies."""
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == object else 0)


def _padded(array: np.ndarray[Any, Any], shape: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    widths = [(0, 0), *((0, int(gap)) for gap in shape - array.shape[1:])]
    missing: Any = {"O": b"", "f": np.nan}.get(array.dtype.kind, 0)
    return np.pad(array, widths, constant_values=missing)
