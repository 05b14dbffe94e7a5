"""TF Serving's JSON form of tensors. Where TF Serving has a quirk, so has this."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from serving.deadline import NEVER, TOGETHER, Deadline
from serving.errors import Code, ServingError, invalid
from serving.json_document import (
    decoded,
    encoded,
    is_base64,
    json_type,
    parse_json,
    shown,
    signature_of,
)

Array = np.ndarray[Any, Any]
Format = Literal["row", "columnar"]


class _Kind:
    """What values of a dtype are, looked up once and not for every request.

    Attributes:
        integers: the least and the greatest one, of integers; None of others.
        exact: up to which all integers are numbers of it, of floats; 0 of others.
        infinite: from which on a number is rounded to infinity, of floats.
    """

    def __init__(self, dtype: tf.DType) -> None:
        self.name = dtype.name
        self.numpy = np.dtype(dtype.as_numpy_dtype)
        self.is_string, self.is_bool = dtype == tf.string, dtype == tf.bool
        self.integers = (dtype.min, dtype.max) if dtype in _INTEGERS else None
        self.exact, self.infinite = _FLOATS.get(dtype, (0, 0.0))


_INTEGERS = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
_FLOATS = {
    tf.float32: (2**24 - 1, 2.0**128 - 2.0**103),
    tf.float64: (2**53 - 1, float("inf")),
}
_kind = functools.cache(lambda number: _Kind(tf.dtypes.as_dtype(number)))  # of a proto's dtype
_MAX_RANK = 63  # NumPy has 64, of which rows take one
_FEW = 16  # for which NumPy takes longer than it saves


class _UnevenError(Exception):
    """Lists that are no dense tensor."""


@dataclass(frozen=True)
class PredictRequest:
    """A parsed body of `:predict`; tensors are made when the signature is known."""

    signature: str
    body: dict[str, Any]


def parse_predict(body: bytes | bytearray, deadline: Deadline = NEVER) -> PredictRequest:
    """Parses the body of a predict request.

    Args:
        body: as it was sent.
        deadline: at which it ends.

    Raises:
        ServingError: INVALID_ARGUMENT.
        TimeoutError: the deadline is over.
    """
    document = parse_json(body, deadline)
    return PredictRequest(signature_of(document), document)


def tensors(
    request: PredictRequest, infos: Mapping[str, TensorInfo], deadline: Deadline = NEVER
) -> tuple[dict[str, Array], Format]:
    """Tensors of a predict request.

    Args:
        request: parsed.
        infos: inputs of its signature.
        deadline: at which it ends.

    Raises:
        ServingError: INVALID_ARGUMENT.
        TimeoutError: the deadline is over.
    """
    body = request.body
    if "instances" in body and "inputs" in body:
        raise invalid(
            f"JSON Value: {shown(body)} Not formatted correctly expecting only one of 'inputs' "
            "or 'instances' keys to exist "
        )
    kinds = {name: _kind(info.dtype) for name, info in infos.items()}
    if not kinds:
        signature = request.signature or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {signature}")
    if "instances" in body:
        instances = body["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {shown(body)} Excepting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {shown(body)} No values in 'instances' array")
        return _rows(instances, kinds, deadline), "row"
    if "inputs" in body:
        return _columns(body["inputs"], kinds, deadline), "columnar"
    raise invalid("Missing 'inputs' or 'instances' key")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _rows(instances: list[Any], kinds: dict[str, _Kind], deadline: Deadline) -> dict[str, Array]:
    named = _is_object(instances[0])
    if not named and len(kinds) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    with contextlib.suppress(_UnevenError, ServingError):
        return _even_rows(instances, named, kinds, deadline)
    only = next(iter(kinds))
    columns: dict[str, list[Array]] = {name: [] for name in kinds}
    for index, instance in enumerate(instances):  # one by one: errors name their row
        deadline.check()
        if named != _is_object(instance):
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {index} of input list")
        for name, value in (instance if named else {only: instance}).items():
            key = f" key: {name}" if named else ""
            try:
                if name not in kinds:
                    raise invalid(f"JSON object: does not have named input: {name}")
                array = _tensor(value, kinds[name], deadline)
                columns[name].append(_same_shape(array, columns[name]))
            except ServingError as error:
                raise invalid(
                    f"Failed to process element: {index}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error.message}"
                ) from None
        if named and instance.keys() != kinds.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{shown(instance)} keys must be equal to: {','.join(sorted(kinds))}"
            )
    return {name: np.stack(values) for name, values in columns.items()}


def _same_shape(array: Array, others: list[Array]) -> Array:
    if others and others[0].size != array.size:
        raise invalid(f"Expecting tensor size: {others[0].size} but got: {array.size}")
    if others and others[0].shape != array.shape:
        raise invalid(f"Expecting shape {_shape(others[0])} but got: {_shape(array)}")
    return array


def _shape(array: Array) -> str:
    return "[" + ",".join(str(size) for size in array.shape) + "]"


def _columns(inputs: Any, kinds: dict[str, _Kind], deadline: Deadline) -> dict[str, Array]:
    if not _is_object(inputs):
        if len(kinds) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        inputs = {next(iter(kinds)): inputs}
    for name in kinds:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(inputs[name], kind, deadline) for name, kind in kinds.items()}


def _even_rows(
    instances: list[Any], named: bool, kinds: dict[str, _Kind], deadline: Deadline
) -> dict[str, Array]:
    """Rows as tensors, made in bulk.

    Raises:
        _UnevenError, ServingError: there is something wrong with a row.
    """
    columns = {next(iter(kinds)): instances}
    if named:
        for start in range(0, len(instances), TOGETHER):
            deadline.check()
            for instance in instances[start : start + TOGETHER]:
                if not _is_object(instance) or instance.keys() != kinds.keys():
                    raise _UnevenError
        columns = {name: [instance[name] for instance in instances] for name in kinds}
    return {name: _even(column, kinds[name], deadline) for name, column in columns.items()}


def _tensor(value: Any, kind: _Kind, deadline: Deadline) -> Array:
    """A dense tensor of nested lists."""
    shape = _first_shape(value)
    if len(shape) > _MAX_RANK:
        raise invalid(f"Encountered lists nested deeper than {_MAX_RANK}")
    try:
        return _even(value, kind, deadline)
    except _UnevenError:
        _check_values(value, 0, shape, kind, deadline)
        raise


def _first_shape(value: Any) -> list[int]:
    """Sizes of the first list of each level."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _even(value: Any, kind: _Kind, deadline: Deadline) -> Array:
    """A dense tensor of nested lists, made in bulk.

    Raises:
        _UnevenError: a list is not of the size of the first one of its level, or is none.
        ServingError: INVALID_ARGUMENT, the first value that is not of the dtype.
    """
    shape = _first_shape(value)
    if len(shape) > _MAX_RANK + 1:
        raise _UnevenError
    items = value if shape else [value]
    for size in shape[1:]:
        inner: list[Any] = []
        step = max(TOGETHER // max(size, 1), 1)
        for start in range(0, len(items), step):
            deadline.check()
            lists = items[start : start + step]
            if set(map(type, lists)) != {list} or set(map(len, lists)) != {size}:
                raise _UnevenError
            inner.extend(itertools.chain.from_iterable(lists))
        items = inner
    if len(items) <= TOGETHER:
        array = np.array(_leaves(items, kind), kind.numpy)
    else:
        array = np.empty(len(items), kind.numpy)
        for start in range(0, len(items), TOGETHER):
            deadline.check()
            array[start : start + TOGETHER] = _leaves(items[start : start + TOGETHER], kind)
    return array if len(shape) == 1 else array.reshape(shape)


def _leaves(values: list[Any], kind: _Kind) -> Any:
    """Values as `_leaf` gives each, at once where they are many and plain."""
    types = set(map(type, values))
    if list in types:
        raise _UnevenError
    if kind.is_string and types == {str}:
        try:
            return list(map(str.encode, values))
        except UnicodeEncodeError:
            return [_leaf(value, kind) for value in values]
    if kind.integers and types == {int}:
        least, most = kind.integers
        if least <= min(values) and max(values) <= most:
            return values
    if kind.exact and types <= {int, float} and len(values) > _FEW:
        numbers = np.array(values, np.float64)
        size = np.abs(numbers)
        doubtful = np.isfinite(numbers) & (size >= kind.infinite)
        if int in types:
            doubtful |= size > kind.exact
        for index in np.flatnonzero(doubtful):
            _leaf(values[index], kind)
        return numbers
    return [_leaf(value, kind) for value in values]


def _check_values(
    value: Any, level: int, shape: list[int], kind: _Kind, deadline: Deadline
) -> None:
    """Says what is wrong with the first value that does not fit, where `_even` finds that one is.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {rank}"
            )
        _leaf(value, kind)
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for index, item in enumerate(value):
        if index % TOGETHER == 0:
            deadline.check()
        _check_values(item, level + 1, shape, kind, deadline)


def _leaf(value: Any, kind: _Kind) -> Any:
    given = type(value)
    if kind.is_string:
        if given is str:
            return encoded(value)
        if given is dict:
            return decoded(value)
    elif kind.is_bool:
        if given is bool:
            return value
    elif kind.integers:
        least, most = kind.integers
        if given is int and least <= value <= most:
            return value
    elif kind.exact:
        if given is float:
            if abs(value) >= kind.infinite and math.isfinite(value):
                raise _lossy(value, kind)
            return value
        if given is int:
            if abs(value) > kind.exact:
                raise _lossy(value, kind)
            return value
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {kind.name}"
        )
    raise invalid(
        f"JSON Value: {shown(value)} Type: {json_type(value)} is not of expected type: "
        f"{'float' if kind.name == 'float32' else kind.name}"
    )


def _lossy(value: Any, kind: _Kind) -> ServingError:
    target = "float" if kind.name == "float32" else "double"
    return invalid(
        f"Cannot convert JSON value: {shown(value)} to {target} without loss of precision."
    )
