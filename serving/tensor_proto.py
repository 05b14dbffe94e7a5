"""TensorProtos to arrays and back, as TF Serving reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving import inference
from serving.errors import invalid
from serving.inference import Arrays


class _Kind(NamedTuple):
    """Of the values of a dtype: where they are, and how NumPy calls it."""

    field: str
    numpy: np.dtype[Any]


_KINDS = {
    dtype.as_datatype_enum: _Kind(field, np.dtype(dtype.as_numpy_dtype))
    for dtype, field in (
        (tf.float32, "float_val"),
        (tf.float64, "double_val"),
        (tf.int8, "int_val"),
        (tf.uint8, "int_val"),
        (tf.int16, "int_val"),
        (tf.int32, "int_val"),
        (tf.int64, "int64_val"),
        (tf.uint32, "uint32_val"),
        (tf.uint64, "uint64_val"),
        (tf.bool, "bool_val"),
        (tf.string, "string_val"),
    )
}
_OBJECT = np.dtype(object)


def arrays(tensors: Mapping[str, tensor_pb2.TensorProto]) -> Arrays:
    """Arrays of a request's tensors.

    Args:
        tensors: by name.

    Raises:
        ServingError: INVALID_ARGUMENT, no valid tensors, or of more than `inference.MAX_BYTES`.
    """
    left, found = inference.MAX_BYTES, {}
    for name, tensor in tensors.items():
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
            raise invalid(f"tensor parsing error: {name}")
        # Fewer values than elements are legal, so a few bytes could ask for all memory; and
        # TensorFlow multiplies sizes beside a 0, too, and ends the process when that overflows.
        left -= prod(max(size, 1) for size in sizes) * _bytes_of(tensor.dtype)
        if left < 0:
            raise invalid(
                f"tensor parsing error: {name} is larger than {inference.MAX_BYTES} bytes"
            )
        try:
            found[name] = _array(tensor, sizes)
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid(f"input {name}: {str(error).splitlines()[0]}") from None
    return found


def tensor(array: np.ndarray[Any, Any]) -> tensor_pb2.TensorProto:
    """With the values in the field of their type, where clients of TF Serving look for them.

    Args:
        array: of numbers, or of objects that are bytes.
    """
    dtype = tf.string if array.dtype.kind == "O" else tf.dtypes.as_dtype(array.dtype)
    kind = _KINDS.get(dtype.as_datatype_enum)
    if kind is None:
        return tf.make_tensor_proto(array)
    result = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        result.tensor_shape.dim.add(size=size)
    getattr(result, kind.field).extend(array.ravel().tolist())
    return result


def _bytes_of(dtype: int) -> int:
    if dtype in _KINDS:
        return _KINDS[dtype].numpy.itemsize  # of strings, the pointer
    try:
        return int(tf.dtypes.as_dtype(dtype).size or 8)
    except TypeError:  # none of TensorFlow's, as `make_ndarray` will say
        return 8


def _array(tensor: tensor_pb2.TensorProto, sizes: list[int]) -> np.ndarray[Any, Any]:
    """What `tf.make_ndarray` gives, in a third of the time where there is a value per element."""
    kind = _KINDS.get(tensor.dtype)
    if kind is None:
        return tf.make_ndarray(tensor)
    values = getattr(tensor, kind.field)
    if kind.numpy != _OBJECT and tensor.tensor_content:
        array = np.frombuffer(tensor.tensor_content, kind.numpy)
    elif len(values) != prod(sizes):  # the last one stands for those that are left out
        return tf.make_ndarray(tensor)
    elif kind.numpy == _OBJECT:
        array = np.empty(len(values), object)
        array[:] = values
    else:
        array = np.array(values, kind.numpy)
    return array.reshape(sizes)
