"""TensorProtos to arrays and back, as TF Serving reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving import inference
from serving.deadline import NEVER, TOGETHER, Deadline
from serving.errors import invalid
from serving.inference import Arrays


class _Kind(NamedTuple):
    """Of the values of a dtype: where they are, how NumPy calls it, and the bytes of one there."""

    field: str
    numpy: np.dtype[Any]
    bytes: int  # of strings, those of the pointer


_KINDS = {
    dtype.as_datatype_enum: _Kind(field, numpy := np.dtype(dtype.as_numpy_dtype), numpy.itemsize)
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
_STRING = _KINDS[tf.string.as_datatype_enum]


def arrays(tensors: Mapping[str, tensor_pb2.TensorProto], deadline: Deadline = NEVER) -> Arrays:
    """Arrays of a request's tensors.

    Args:
        tensors: by name.
        deadline: at which it ends.

    Raises:
        ServingError: INVALID_ARGUMENT, no valid tensors, or of more than `inference.MAX_BYTES`.
        TimeoutError: the deadline is over.
    """
    left, found = inference.MAX_BYTES, {}
    for name, tensor in tensors.items():
        shape = tensor.tensor_shape
        sizes = [dimension.size for dimension in shape.dim]
        if shape.unknown_rank or (sizes and min(sizes) < 0):
            raise invalid(f"tensor parsing error: {name}")
        kind = _KINDS.get(tensor.dtype)
        # Fewer values than elements are legal, so a few bytes could ask for all memory; and
        # TensorFlow multiplies sizes beside a 0, too, and ends the process when that overflows.
        count = prod([size or 1 for size in sizes])
        left -= count * (kind.bytes if kind else _bytes_of(tensor.dtype))
        if kind is _STRING and (values := tensor.string_val):  # of which TensorFlow makes copies
            left -= max(count - len(values), 0) * len(values[-1])
        if left < 0:
            raise invalid(
                f"tensor parsing error: {name} is larger than {inference.MAX_BYTES} bytes"
            )
        try:
            found[name] = _array(tensor, kind, sizes, deadline)
        except KeyError:
            other = tf.dtypes.as_dtype(tensor.dtype).name
            raise invalid(f"input {name}: values of type {other} cannot be sent") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid(f"input {name}: {str(error).splitlines()[0]}") from None
    return found


def tensor(array: np.ndarray[Any, Any], deadline: Deadline = NEVER) -> tensor_pb2.TensorProto:
    """With the values in the field of their type, where clients of TF Serving look for them.

    Args:
        array: of numbers, or of objects that are bytes.
        deadline: at which it ends.

    Raises:
        TimeoutError: the deadline is over.
    """
    dtype = tf.string if array.dtype.kind == "O" else tf.dtypes.as_dtype(array.dtype)
    kind = _KINDS.get(dtype.as_datatype_enum)
    if kind is None:
        return tf.make_tensor_proto(array)
    result = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        result.tensor_shape.dim.add(size=size)
    values, flat = getattr(result, kind.field), array.ravel()
    for start in range(0, flat.size, TOGETHER):
        deadline.check()
        values.extend(flat[start : start + TOGETHER].tolist())
    return result


def _bytes_of(dtype: int) -> int:
    try:
        return int(tf.dtypes.as_dtype(dtype).size or 8)
    except TypeError:  # none of TensorFlow's, as `make_ndarray` will say
        return 8


def _array(
    tensor: tensor_pb2.TensorProto, kind: _Kind | None, sizes: list[int], deadline: Deadline
) -> np.ndarray[Any, Any]:
    """What `tf.make_ndarray` gives, in a third of the time where there is a value per element."""
    if kind is None:
        return tf.make_ndarray(tensor)
    if kind is not _STRING and tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, kind.numpy).reshape(sizes)
    values = getattr(tensor, kind.field)
    missing = prod(sizes) - len(values)
    if missing and not values:
        return tf.make_ndarray(tensor)
    if len(values) <= TOGETHER:
        array = np.array(values[:], kind.numpy)
    else:
        array = np.empty(len(values), kind.numpy)
        for start in range(0, len(values), TOGETHER):
            deadline.check()
            array[start : start + TOGETHER] = values[start : start + TOGETHER]
    if missing > 0:  # the last one stands for those that are left out
        array = np.concatenate([array, np.repeat(array[-1:], missing)])
    return array.reshape(sizes)
