"""TF Serving's JSON form of tensors. Where TF Serving has a quirk, so has this."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from serving.errors import Code, ServingError, invalid

Array = np.ndarray[Any, Any]
Format = Literal["row", "columnar"]

_EXACT = {tf.float32: 2**24 - 1, tf.float64: 2**53 - 1}  # up to here all integers are
_INFINITE = {tf.float32: 2.0**128 - 2.0**103, tf.float64: float("inf")}  # from here on, rounded
_INTEGERS = {
    dtype: (dtype.min, dtype.max)
    for dtype in (tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64, tf.uint32, tf.uint64)
}
_MAX_RANK = 63  # NumPy has 64, of which rows take one
_MAX_SHOWN = 300


@dataclass(frozen=True)
class PredictRequest:
    """A parsed body of `:predict`; tensors are made when the signature is known."""

    signature: str
    body: dict[str, Any]


def parse_predict(body: bytes) -> PredictRequest:
    """Parses the body of a predict request.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    document = parse_json(body)
    return PredictRequest(signature_of(document), document)


def signature_of(document: dict[str, Any]) -> str:
    """The `signature_name` of a request; empty where there is none.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return signature


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; NaN and Infinity are accepted.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            # Which knows NaN; its numbers stay those of orjson.
            document = json.loads(body, parse_int=orjson.loads, parse_float=orjson.loads)
    except (ValueError, RecursionError) as error:
        offset = getattr(error, "pos", 0)
        raise invalid(f"JSON Parse error: Invalid value. at offset: {offset}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def tensors(
    request: PredictRequest, infos: Mapping[str, TensorInfo]
) -> tuple[dict[str, Array], Format]:
    """Tensors of a predict request.

    Args:
        request: parsed.
        infos: inputs of its signature.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    body = request.body
    if "instances" in body and "inputs" in body:
        raise invalid(
            f"JSON Value: {shown(body)} Not formatted correctly expecting only one of 'inputs' "
            "or 'instances' keys to exist "
        )
    dtypes = {name: tf.dtypes.as_dtype(info.dtype) for name, info in infos.items()}
    if not dtypes:
        signature = request.signature or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {signature}")
    if "instances" in body:
        instances = body["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {shown(body)} Excepting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {shown(body)} No values in 'instances' array")
        return _rows(instances, dtypes), "row"
    if "inputs" in body:
        return _columns(body["inputs"], dtypes), "columnar"
    raise invalid("Missing 'inputs' or 'instances' key")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def is_base64(value: Any) -> bool:
    """Whether a value is one of bytes."""
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _rows(instances: list[Any], dtypes: dict[str, tf.DType]) -> dict[str, Array]:
    named = _is_object(instances[0])
    if not named and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    only = next(iter(dtypes))
    columns: dict[str, list[Array]] = {name: [] for name in dtypes}
    for index, instance in enumerate(instances):
        if named != _is_object(instance):
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {index} of input list")
        for name, value in (instance if named else {only: instance}).items():
            key = f" key: {name}" if named else ""
            try:
                if name not in dtypes:
                    raise invalid(f"JSON object: does not have named input: {name}")
                columns[name].append(_same_shape(_tensor(value, dtypes[name]), columns[name]))
            except ServingError as error:
                raise invalid(
                    f"Failed to process element: {index}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error.message}"
                ) from None
        if named and instance.keys() != dtypes.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{shown(instance)} keys must be equal to: {','.join(sorted(dtypes))}"
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


def _columns(inputs: Any, dtypes: dict[str, tf.DType]) -> dict[str, Array]:
    if not _is_object(inputs):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        inputs = {next(iter(dtypes)): inputs}
    for name in dtypes:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(inputs[name], dtype) for name, dtype in dtypes.items()}


def _tensor(value: Any, dtype: tf.DType) -> Array:
    """A dense tensor of nested lists."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > _MAX_RANK:
        raise invalid(f"Encountered lists nested deeper than {_MAX_RANK}")
    leaves: list[Any] = []
    _fill(value, 0, shape, dtype, leaves)
    array = np.empty(len(leaves), object if dtype == tf.string else dtype.as_numpy_dtype)
    array[:] = leaves
    return array.reshape(shape)


def _fill(value: Any, level: int, shape: list[int], dtype: tf.DType, leaves: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {rank}"
            )
        leaves.append(_leaf(value, dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        _fill(item, level + 1, shape, dtype, leaves)


def _leaf(value: Any, dtype: tf.DType) -> Any:
    if dtype == tf.string:
        if isinstance(value, str):
            return encoded(value)
        if isinstance(value, dict):
            return decoded(value)
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif dtype in _INTEGERS:
        least, most = _INTEGERS[dtype]
        if isinstance(value, int) and least <= value <= most:
            return value
    elif dtype in _EXACT:
        if isinstance(value, int) and abs(value) > _EXACT[dtype]:
            raise _lossy(value, dtype)
        if isinstance(value, float) and math.isfinite(value) and abs(value) >= _INFINITE[dtype]:
            raise _lossy(value, dtype)
        if isinstance(value, int | float):
            return value
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {dtype.name}"
        )
    raise invalid(
        f"JSON Value: {shown(value)} Type: {json_type(value)} is not of expected type: "
        f"{dtype.name.removesuffix('32') if dtype == tf.float32 else dtype.name}"
    )


def _lossy(value: Any, dtype: tf.DType) -> ServingError:
    target = "float" if dtype == tf.float32 else "double"
    return invalid(
        f"Cannot convert JSON value: {shown(value)} to {target} without loss of precision."
    )


def encoded(value: str) -> bytes:
    """As UTF-8.

    Raises:
        ServingError: INVALID_ARGUMENT, half of a surrogate pair.
    """
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def decoded(value: dict[str, Any]) -> bytes:
    """Bytes of base64.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no base64.
    """
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    try:
        text = "".join(value["b64"].split())
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def json_type(value: Any) -> str:
    """What errors call the type of a value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def shown(value: Any) -> str:
    """As JSON, but of a large value only the start."""
    pieces = json.JSONEncoder(indent=4, ensure_ascii=False).iterencode(value)
    text = "".join(itertools.islice(pieces, _MAX_SHOWN + 1))
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def response(outputs: dict[str, Array], form: Format) -> bytes:
    """Body of the reply: `predictions` for rows, `outputs` for columns.

    Raises:
        ServingError: INVALID_ARGUMENT, where outputs cannot be told apart by rows.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    values = {name: _values(name, array) for name, array in outputs.items()}
    if form == "columnar":
        body = {"outputs": values if len(values) > 1 else next(iter(values.values()))}
        return _dumped(body, outputs)
    size = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size not in (None, len(array)):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting batch size: {size}"
            )
        size = len(array)
    if len(values) == 1:
        return _dumped({"predictions": next(iter(values.values()))}, outputs)
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return _dumped({"predictions": rows}, outputs)


def _values(name: str, array: Array) -> Any:
    if array.dtype.kind in "OS":
        if name.endswith("_bytes"):
            return _mapped(array.tolist(), lambda item: {"b64": base64.b64encode(item).decode()})
        try:
            return _mapped(array.tolist(), bytes.decode)
        except UnicodeDecodeError:
            raise invalid(
                f"Tensor name: {name} is not UTF-8; bytes need a name that ends in _bytes"
            ) from None
    if array.dtype.kind not in "biuf":
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")
    if array.dtype == np.float32:
        # The shortest decimal that is this float32, not the float64 it would become.
        return _mapped(array.tolist(), lambda item: float(str(np.float32(item))))
    return array.tolist()


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, list):
        return [_mapped(item, function) for item in value]
    return function(value)


def _dumped(body: dict[str, Any], outputs: dict[str, Array]) -> bytes:
    floats = (array for array in outputs.values() if array.dtype.kind == "f")
    if all(np.isfinite(array).all() for array in floats):
        return orjson.dumps(body)
    return json.dumps(body).encode()  # which writes NaN and Infinity as TF Serving does
