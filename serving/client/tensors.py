"""NumPy arrays to TensorProtos and back, as `tf.make_tensor_proto` and `tf.make_ndarray` do."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.client.errors import UnimplementedError
from serving.client.protos import DataType, TensorProto
from serving.client.signatures import dtype_name

Array = np.ndarray[Any, Any]

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
}
_NUMBERS = {dtype_name(number): number for number in DataType.values()}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type for one of TensorFlow; strings are objects, of `bytes`.

    Raises:
        UnimplementedError: there is none.
    """
    if name not in _FIELDS:
        raise UnimplementedError(f"the client cannot carry tensors of type {name}")
    return np.dtype(object if name == "string" else name)


def to_proto(array: Array, dtype: str) -> TensorProto:
    """A TensorProto of an array of that type."""
    result = TensorProto(dtype=_NUMBERS[dtype])
    for size in array.shape:
        result.tensor_shape.dim.add(size=size)
    if dtype == "string":
        result.string_val.extend(array.ravel().tolist())
    else:
        result.tensor_content = np.ascontiguousarray(array).tobytes()
    return result


def to_array(message: TensorProto) -> Array:
    """The array of a TensorProto.

    Raises:
        UnimplementedError: of a type that NumPy has not.
    """
    name = dtype_name(message.dtype)
    dtype = numpy_dtype(name)
    shape = [dimension.size for dimension in message.tensor_shape.dim]
    if message.tensor_content:
        return np.frombuffer(message.tensor_content, dtype).reshape(shape)
    values = getattr(message, _FIELDS[name])
    result = np.full(int(np.prod(shape)), b"" if name == "string" else 0, dtype)
    result[: len(values)] = values
    if values:  # the last one stands for all that are left out
        result[len(values) :] = values[-1]
    return result.reshape(shape)
