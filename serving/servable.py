"""One loaded version of a SavedModel, run in a session as TF Serving runs it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving import inference
from serving.errors import Code, ServingError, from_tensorflow, invalid
from serving.inference import Arrays
from serving.session import Function

WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_WARM_UP_RECORDS = 1_000

log = logging.getLogger("serving")


@dataclass(frozen=True)
class Loading:
    """How versions are loaded.

    Attributes:
        intra: threads of an operation; 0 for one per core.
        inter: operations at a time; 0 for one per core.
        tags: of the graph in a SavedModel.
        warm_up: whether its warm-up requests are replayed.
        check_methods: whether its signatures answer only the method that they say they are for.
            `tf.saved_model.save` calls all of them Predict's.
    """

    intra: int = 0
    inter: int = 0
    tags: tuple[str, ...] = ("serve",)
    warm_up: bool = True
    check_methods: bool = False


DEFAULT = Loading()


class Servable:
    """One loaded version of a model.

    Its memory is freed when the last request that holds it has ended.

    Attributes:
        signature_defs: by name.
        batchable: names of those of whose requests rows can be run together.

    Args:
        directory: of the SavedModel.
        loading: how.

    Raises:
        Exception: it cannot be loaded, or a warm-up record cannot be answered.
    """

    def __init__(self, directory: Path, loading: Loading = DEFAULT) -> None:
        self.directory, self.loading = directory, loading
        self.signature_defs = _signature_defs(directory, loading.tags)
        self._inputs = {
            signature: {name: _Input(info) for name, info in definition.inputs.items()}
            for signature, definition in self.signature_defs.items()
        }
        self._defaults = {
            signature: {name: tf.make_ndarray(value) for name, value in definition.defaults.items()}
            for signature, definition in self.signature_defs.items()
        }
        self.batchable = {
            signature
            for signature, definition in self.signature_defs.items()
            if _batchable(definition)
        }
        config = tf.compat.v1.ConfigProto(
            allow_soft_placement=True,
            intra_op_parallelism_threads=loading.intra,
            inter_op_parallelism_threads=loading.inter,
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        tf.compat.v1.saved_model.loader.load(self._session, loading.tags, str(directory))
        self._functions: dict[str, Function] = {}
        if loading.warm_up:
            self._warm_up(directory / WARM_UP)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Frees its memory, and ends the runs that still go on with CANCELLED."""
        if hasattr(self, "_session"):
            self._session.close()  # the graph is in reference cycles, and may stay for long

    def definition(self, signature: str) -> meta_graph_pb2.SignatureDef:
        """A signature for Predict.

        Raises:
            ServingError: FAILED_PRECONDITION, there is none of that name; or INTERNAL, it is for
                nothing that is served.
        """
        if signature not in self.signature_defs:
            raise ServingError(
                Code.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.'
            )
        definition = self.signature_defs[signature]
        if self.loading.check_methods and definition.method_name not in inference.METHODS:
            raise ServingError(
                Code.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{', '.join(inference.METHODS)}}}. Was: {definition.method_name}",
            )
        return definition

    def check(self, signature: str, inputs: Mapping[str, Any]) -> Arrays:
        """Inputs in the order of the signature.

        Args:
            signature: its name.
            inputs: arrays by name.

        Raises:
            ServingError: as `definition`; or INVALID_ARGUMENT, names, dtypes or shapes that do not
                fit.
        """
        self.definition(signature)
        expected = self._inputs[signature]
        defaults = self._defaults[signature]
        if defaults:
            inputs = {**defaults, **inputs}
        if inputs.keys() != expected.keys():
            raise _other_names(set(inputs), set(expected))
        return {name: one.fitting(name, inputs[name]) for name, one in expected.items()}

    def run(self, signature: str, inputs: Arrays, timeout: float | None = None) -> Arrays:
        """Runs a signature.

        Args:
            signature: its name.
            inputs: as `check` gives them.
            timeout: seconds after which the run is given up.

        Raises:
            ServingError: the model's own error, or DEADLINE_EXCEEDED.
        """
        definition = self.signature_defs[signature]
        for name, info in definition.outputs.items():
            if info.dtype in (types_pb2.DT_VARIANT, types_pb2.DT_RESOURCE):
                kind = tf.dtypes.as_dtype(info.dtype).name
                raise invalid(f"output {name} is of type {kind}, which has no values to send")
        try:
            if signature not in self._functions:
                self._functions[signature] = Function(self._session, definition)
            return self._functions[signature](inputs, timeout)
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from None
        except (KeyError, TypeError, ValueError) as error:
            raise invalid(str(error).splitlines()[0]) from None

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        count = 0
        for record in tf.data.TFRecordDataset(str(path)):
            count += 1
            if count > MAX_WARM_UP_RECORDS:
                raise invalid(
                    "Number of warmup records exceeds the maximum "
                    f"({MAX_WARM_UP_RECORDS}) at {path}"
                )
            self._replay(prediction_log_pb2.PredictionLog.FromString(record.numpy()))
        log.info("warmed up with %d requests of %s", count, path)

    def _replay(self, logged: prediction_log_pb2.PredictionLog) -> None:
        kind = logged.WhichOneof("log_type")
        if kind == "predict_log":
            request = logged.predict_log.request
            signature = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
            self.definition(signature)
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            self.run(signature, self.check(signature, inputs))
        elif kind in ("classify_log", "regress_log", "multi_inference_log"):
            request = getattr(logged, kind).request
            for task in inference.tasks(request):
                signature = task.signature(self.signature_defs, self.loading.check_methods)
                self.run(signature, {inference.INPUTS: inference.examples(request.input)})
        else:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _signature_defs(
    directory: Path, tags: tuple[str, ...]
) -> dict[str, meta_graph_pb2.SignatureDef]:
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        if set(graph.meta_info_def.tags) == set(tags):
            return dict(graph.signature_def)
    raise ServingError(Code.NOT_FOUND, f"{directory} has no graph with the tags {','.join(tags)}")


class _Input:
    """What a signature takes for an input, looked up once and not for every request."""

    def __init__(self, info: meta_graph_pb2.TensorInfo) -> None:
        self.dtype = tf.dtypes.as_dtype(info.dtype)
        self.numpy = None if self.dtype == tf.string else np.dtype(self.dtype.as_numpy_dtype)
        shape = info.tensor_shape
        self.sizes = None if shape.unknown_rank else [dimension.size for dimension in shape.dim]
        self.fixed = [(axis, size) for axis, size in enumerate(self.sizes or ()) if size != -1]

    def fitting(self, name: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The value, if it fits."""
        fits = value.dtype.kind in "OSU" if self.numpy is None else value.dtype == self.numpy
        if not fits:
            given = "string" if value.dtype.kind in "OSU" else value.dtype
            raise invalid(f"Expects arg[{name}] to be {self.dtype.name} but {given} is provided")
        if self.sizes is not None and not (
            len(self.sizes) == value.ndim
            and all(value.shape[axis] == size for axis, size in self.fixed)
        ):
            expected = tf.TensorShape([None if size == -1 else size for size in self.sizes])
            raise invalid(
                f"Expects arg[{name}] to have shape {expected} but {value.shape} is provided"
            )
        return value


def _batchable(definition: meta_graph_pb2.SignatureDef) -> bool:
    """Whether rows of a signature's requests can be run together.

    Inputs and outputs have a first dimension of any size; scalars, such as the number of wanted
    items, are of a request and not of a row.
    """
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.inputs) and all(_by_row(info) for info in infos)


def _by_row(info: meta_graph_pb2.TensorInfo) -> bool:
    dimensions = info.tensor_shape.dim
    return not info.tensor_shape.unknown_rank and bool(dimensions) and dimensions[0].size == -1


def _other_names(sent: set[str], expected: set[str]) -> ServingError:
    extra, missing = sorted(sent - expected), sorted(expected - sent)
    return invalid(
        f"input size does not match signature: {len(sent)}!={len(expected)} "
        f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(expected))}}}). "
        f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
    )
