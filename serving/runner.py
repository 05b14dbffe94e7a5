"""Where requests wait their turn: bounded in number, in threads, batched or not."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from serving.batching import Batcher, BatchingParameters
from serving.errors import Code, ServingError
from serving.inference import Arrays
from serving.monitoring import Metrics
from serving.servable import Servable


class Runner:
    """Runs signatures for all requests of a server; used from one event loop.

    Args:
        metrics: to which run times are added.
        limit: of requests at a time, waiting ones included.
        batching: parameters, or None for requests one by one.
    """

    def __init__(
        self, metrics: Metrics, limit: int = 1_000, batching: BatchingParameters | None = None
    ) -> None:
        self.metrics, self.limit = metrics, limit
        self.batcher = Batcher(batching) if batching else None
        self.threads = ThreadPoolExecutor(os.cpu_count(), "run")
        self._inside = 0

    async def run(
        self, servable: Servable, signature: str, inputs: Arrays, timeout: float | None, label: str
    ) -> Arrays:
        """Outputs of a signature.

        Args:
            servable: that has it.
            signature: its name.
            inputs: as `Servable.check` gives them.
            timeout: seconds until the client no longer waits; None for no end.
            label: of the model, for metrics.

        Raises:
            ServingError: DEADLINE_EXCEEDED; UNAVAILABLE, too many requests are waiting; or the
                model's own error.
        """
        if self._inside >= self.limit:
            raise ServingError(
                Code.UNAVAILABLE, f"More than {self.limit} requests at a time; try again later"
            )
        self._inside += 1
        start, waiting = time.perf_counter(), [inputs]

        def run() -> Arrays:
            left = None if timeout is None else timeout - (time.perf_counter() - start)
            return servable.run(signature, waiting.pop(), left)

        try:
            by_row = signature in servable.batchable and all(map(len, inputs.values()))
            if self.batcher and by_row:
                work = self.batcher.run(servable, signature, inputs, timeout)
            else:
                # The run ends a little after its client's patience, and only then frees a thread.
                work = asyncio.get_running_loop().run_in_executor(self.threads, run)
            return await asyncio.wait_for(work, timeout)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline exceeded") from None
        finally:
            self._inside -= 1
            waiting.clear()  # what is given up waits on for its thread, and should take no memory
            self.metrics.ran(label, time.perf_counter() - start)
