"""What the two APIs do alike: requests as protobufs, answered by loaded versions."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving import inference
from serving.deadline import Deadline
from serving.errors import Code, ServingError, invalid
from serving.inference import Arrays, Task
from serving.models import Models
from serving.monitoring import Metrics
from serving.runner import SMALL_REPLY, Runner, values_of
from serving.servable import Servable


@dataclass(frozen=True)
class Requests:
    """Answers requests.

    Attributes:
        models: that are served.
        runner: where signatures run.
        metrics: in which answers are counted.
    """

    models: Models
    runner: Runner
    metrics: Metrics

    async def predict(
        self, name: str, servable: Servable, signature: str, inputs: Arrays, timeout: float | None
    ) -> Arrays:
        """Outputs of a signature.

        Args:
            name: of the model.
            servable: one of its versions.
            signature: one of its names.
            inputs: arrays by name.
            timeout: seconds that the client waits; None for no end.

        Raises:
            ServingError: whatever the client can cause, or the model.
        """
        checked = servable.check(signature, inputs)
        return await self.runner.run(servable, signature, checked, timeout, name)

    async def infer(
        self,
        name: str,
        servable: Servable,
        tasks: list[Task],
        examples: np.ndarray[Any, Any],
        deadline: Deadline,
    ) -> list[list[Any]]:
        """What each task says of serialized examples (n,) by a deadline; otherwise as `predict`."""
        check = servable.loading.check_methods
        signatures = [task.signature(servable.signature_defs, check) for task in tasks]
        tensors = {servable.signature_defs[s].inputs[inference.INPUTS].name for s in signatures}
        if len(tensors) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")
        self.metrics.examples(name, len(examples))
        results = []
        for task, signature in zip(tasks, signatures, strict=True):
            inputs = {inference.INPUTS: examples}
            outputs = await self.predict(name, servable, signature, inputs, deadline.left())
            read = functools.partial(task.results, outputs, len(examples))
            small = values_of(outputs.values()) <= SMALL_REPLY
            results.append(await self.runner.convert(read, deadline, small))
        return results

    def metadata(self, spec: ModelSpec) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Signatures of a loaded version.

        Raises:
            ServingError: there is no such version.
        """
        version, servable = self.models.get(spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in servable.signature_defs.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, spec: ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """States of a model's versions.

        Raises:
            ServingError: there are none.
        """
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, status in self.models.statuses(spec).items():
            entry = response.model_version_status.add(version=version, state=status.state)
            entry.status.error_code = int(status.code)
            entry.status.error_message = status.message
        return response

    @contextmanager
    def counted(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Counts what is answered within, for models that exist."""
        start, code = time.perf_counter(), Code.INTERNAL
        try:
            yield
            code = Code.OK
        except ServingError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        finally:
            if self.models.known(model):  # names of others have no end
                seconds = time.perf_counter() - start
                self.metrics.answered(model, api, entrypoint, code, seconds)
