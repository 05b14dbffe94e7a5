"""Classify, Regress and MultiInference: signatures of serialized tf.Examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

from serving.errors import Code, ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
METHODS = ("tensorflow/serving/predict", CLASSIFY, REGRESS)
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"

MAX_BYTES = 64 * 2**20  # of a request, as sent and as tensors
MAX_TOGETHER = 16 * MAX_BYTES  # of an API's requests, so that many large ones cannot take all
TOO_MUCH = f"Requests take {MAX_TOGETHER} bytes; try again later"

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Task:
    """What to do with examples.

    Attributes:
        name: of the signature; empty for the default one.
        method: `CLASSIFY` or `REGRESS`, by which results are read.
        missing: what is said of a signature that is not there.
    """

    name: str
    method: str
    missing: str = "No signature was found with the name: "

    def signature(self, definitions: Mapping[str, SignatureDef], check: bool) -> str:
        """Name of the signature, which can be used for this method.

        Args:
            definitions: by name.
            check: whether it has to say so itself.

        Raises:
            ServingError: there is none, or it is not for this method.
        """
        name = self.name or DEFAULT_SIGNATURE
        if name not in definitions:
            raise invalid(self.missing + name)
        definition = definitions[name]
        kind = "classification" if self.method == CLASSIFY else "regression"
        if check and definition.method_name != self.method:
            raise invalid(
                f"Expected {kind} signature method_name to be {self.method}. "
                f"Was: {definition.method_name}"
            )
        if len(definition.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if self.method == CLASSIFY and len(definition.outputs) not in (1, 2):
            found = len(definition.outputs)
            raise invalid(f"Expected one or two output Tensors, found {found}")
        if self.method == REGRESS and len(definition.outputs) != 1:
            raise invalid("Expected one output Tensor.")
        self._check_names(kind, definition)
        return name

    def results(self, outputs: Arrays, count: int) -> list[Any]:
        """What outputs say of each of so many examples: `classifications` or `regressions`.

        Raises:
            ServingError: INVALID_ARGUMENT, outputs of another dtype or shape.
        """
        read = classifications if self.method == CLASSIFY else regressions
        return read(outputs, count)

    def size(self, results: list[Any]) -> int:
        """Values in results."""
        return sum(map(len, results)) if self.method == CLASSIFY else len(results)

    def _check_names(self, kind: str, definition: SignatureDef) -> None:
        if INPUTS not in definition.inputs:
            message = f"No {kind} inputs found in SignatureDef: {definition}"
        elif self.method == REGRESS and OUTPUTS not in definition.outputs:
            message = f"No regression outputs found in SignatureDef: {definition}"
        elif self.method == CLASSIFY and not {CLASSES, SCORES} & set(definition.outputs):
            message = (
                "Expected classification signature outputs to contain at least one of "
                f'"{CLASSES}" or "{SCORES}". Signature was: {definition}'
            )
        else:
            return
        raise ServingError(Code.FAILED_PRECONDITION, message)


def tasks(request: Any) -> list[Task]:
    """Tasks of a Classify, Regress or MultiInference request.

    Raises:
        ServingError: tasks that do not go together, or of another kind.
    """
    if isinstance(request, classification_pb2.ClassificationRequest):
        return [Task(request.model_spec.signature_name, CLASSIFY)]
    if isinstance(request, regression_pb2.RegressionRequest):
        return [Task(request.model_spec.signature_name, REGRESS)]
    return _several(request)


def _several(request: inference_pb2.MultiInferenceRequest) -> list[Task]:
    found: list[Task] = []
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in [one.name for one in found]:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        missing = "Requested signature not found in model graph: "
        found.append(Task(name, task.method_name, missing))
    return found


def examples(given: input_pb2.Input) -> np.ndarray[Any, Any]:
    """Serialized examples, (n,), each with the context that they share.

    Raises:
        ServingError: INVALID_ARGUMENT, there is none, or the context is too large.
    """
    context, listed = b"", given.example_list
    if given.WhichOneof("kind") == "example_list_with_context":
        listed = given.example_list_with_context
        context = listed.context.SerializeToString()
    return serialized(with_context(context, [e.SerializeToString() for e in listed.examples]))


def with_context(context: bytes, examples: list[bytes]) -> list[bytes]:
    """Examples, each with the context that they share.

    Raises:
        ServingError: INVALID_ARGUMENT, so many copies of it would be too large.
    """
    if not context:
        return examples
    if len(context) * len(examples) > MAX_BYTES:
        raise invalid(
            f"A context of {len(context)} bytes for {len(examples)} examples makes more than "
            f"{MAX_BYTES} bytes; send fewer examples at a time"
        )
    # The one message after the other parses as the two merged.
    return [context + example for example in examples]


def serialized(values: Sequence[bytes]) -> np.ndarray[Any, Any]:
    """Serialized examples as an array, (n,).

    Raises:
        ServingError: INVALID_ARGUMENT, there is none.
    """
    if not values:
        raise invalid("Input is empty.")
    return np.array(values, object)


def classifications(outputs: Arrays, count: int) -> list[Any]:
    """(label, score) of every class, by example.

    Args:
        outputs: of a signature for `CLASSIFY`.
        count: of examples.

    Raises:
        ServingError: INVALID_ARGUMENT, outputs of another dtype or shape.
    """
    for name, dtype in ((CLASSES, types_pb2.DT_STRING), (SCORES, types_pb2.DT_FLOAT)):
        if name in outputs:
            _check_matrix(name, outputs[name], dtype, count)
    both = [outputs[name] for name in (CLASSES, SCORES) if name in outputs]
    if len({array.shape[1] for array in both}) > 1:
        sizes = " vs. ".join(str(array.shape[1]) for array in both)
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {sizes}")
    labels = outputs.get(CLASSES, np.full(both[0].shape, b"", object)).tolist()
    scores = outputs.get(SCORES, np.zeros(both[0].shape, np.float32)).tolist()
    return [list(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)]


def regressions(outputs: Arrays, count: int) -> list[Any]:
    """Value of every example.

    Args:
        outputs: of a signature for `REGRESS`.
        count: of examples.

    Raises:
        ServingError: INVALID_ARGUMENT, outputs of another dtype or shape.
    """
    values = outputs[OUTPUTS]
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(values)}"
        )
    if len(values) != count:
        raise invalid(
            f"Input batch size did not match output batch size: {count} vs. {len(values)}"
        )
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(values)}")
    return [float(value) for value in values.ravel()]


def _check_matrix(name: str, array: np.ndarray[Any, Any], dtype: int, count: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if _dtype(array) != types_pb2.DataType.Name(dtype):
        expected = types_pb2.DataType.Name(dtype)
        raise invalid(f"Expected {name} Tensor of {expected}. Got: {_dtype(array)}")
    if len(array) != count:
        raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")


def _dtype(array: np.ndarray[Any, Any]) -> str:
    dtype = tf.string if array.dtype.kind in "OS" else tf.dtypes.as_dtype(array.dtype)
    return types_pb2.DataType.Name(dtype.as_datatype_enum)


def _shape(array: np.ndarray[Any, Any]) -> str:
    return "[" + ",".join(str(size) for size in array.shape) + "]"
