"""Rows of raw columns to tensors and tf.Examples, and tensors to rows."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.client.errors import FailedPreconditionError, InvalidArgumentError
from serving.client.protos import Example
from serving.client.signatures import Signature, Tensor, nearest
from serving.client.tensors import Array, numpy_dtype

Row = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which UTF-8 has no bytes for
_LARGEST = float(np.finfo(np.float32).max)
_IN_EXAMPLES = {"float64": "float32", "uint64": "int64"}  # all that tf.Examples have


def columns(rows: Sequence[Row], inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    """Tensors of rows, for a signature.

    Lists are padded to the longest of the batch where the signature leaves their size open: with
    "", NaN, 0 or False. None is a missing value: "", NaN or an empty list.

    Args:
        rows: one mapping each, of the signature's inputs and no others.
        inputs: of the signature, each (batch, ...).

    Raises:
        InvalidArgumentError: a row that does not fit; it says which, and what would.
    """
    places = _places(len(rows))
    named = [_named(place, row, inputs) for place, row in zip(places, rows, strict=True)]
    for place, row in zip(places, named, strict=True):
        if missing := [repr(name) for name in inputs if name not in row]:
            raise InvalidArgumentError(
                f"{place} lacks {', '.join(missing)}; None stands for a missing value"
            )
    return {
        name: _stacked(places, name, [row[name] for row in named], inputs[name]) for name in inputs
    }


def examples(rows: Sequence[Row], types: Mapping[str, Tensor]) -> Array:
    """Serialized tf.Examples of rows, (batch,).

    Features have the names that the rows give them, and are left out where these say None or
    nothing.

    Args:
        rows: raw columns; lists as they are, without padding.
        types: inputs of a signature of the same raw columns.

    Raises:
        InvalidArgumentError: a row that does not fit; it says which, and what would.
    """
    result = np.empty(len(rows), object)
    for number, (place, row) in enumerate(zip(_places(len(rows)), rows, strict=True)):
        _named(place, row, types)
        example = Example()
        for key, value in row.items():
            if value is None:
                continue
            tensor = types[_input_name(key, types)]
            listed = _plain(value) if _is_list(value) else [value]
            found = [_leaf(place, key, item, tensor.dtype) for item in listed]
            if narrower := _IN_EXAMPLES.get(tensor.dtype):
                found = [_leaf(place, key, item, narrower) for item in found]
            feature = example.features.feature[key]
            if tensor.dtype == "string":
                feature.bytes_list.value.extend(found)
            elif tensor.dtype.startswith("float"):
                feature.float_list.value.extend(found)
            else:
                feature.int64_list.value.extend(found)
        result[number] = example.SerializeToString()
    return result


def answers(outputs: Mapping[str, Array], count: int) -> list[dict[str, Any]]:
    """What a signature answers, row by row.

    Args:
        outputs: (batch, ...) each.
        count: of the rows that were sent.

    Returns:
        For each row its outputs by name: Python's numbers and strings, and of higher ranks arrays
        of numbers and lists of strings.

    Raises:
        FailedPreconditionError: an output that does not have these rows.
    """
    by_name = {}
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != count:
            raise FailedPreconditionError(
                f"output {name!r} of shape {array.shape} does not have one row for each of {count}"
            )
        if array.dtype == object:
            by_name[name] = _decoded(array.tolist(), name)
        else:
            by_name[name] = _scalars(array) if array.ndim == 1 else list(array)
    return [{name: values[row] for name, values in by_name.items()} for row in range(count)]


def recommendations(
    outputs: Mapping[str, Array], signature: Signature, count: int
) -> list[list[dict[str, Any]]]:
    """The items of each row, the best first, with all that the signature says of them.

    Args:
        outputs: (batch, k) each; `items` ends in "" where there are fewer.
        signature: of the outputs.
        count: of the rows that were sent.

    Raises:
        FailedPreconditionError: the signature gives no items.
    """
    if "items" not in outputs or any(a.shape != outputs["items"].shape for a in outputs.values()):
        raise FailedPreconditionError(
            "a signature that recommends gives 'items' and other outputs of the same shape, not "
            + ", ".join(f"{name} {list(outputs[name].shape)}" for name in signature.outputs)
        )
    flat = {name: array.reshape(-1) for name, array in outputs.items()}
    cells = iter(answers(flat, outputs["items"].size))
    width = outputs["items"].size // max(count, 1)
    rows = [[next(cells) for _ in range(width)] for _ in range(count)]
    return [
        [{n.removesuffix("s"): v for n, v in item.items()} for item in row if item["items"]]
        for row in rows
    ]


def _places(count: int) -> list[str]:
    """What messages call the rows."""
    return ["the row"] if count == 1 else [f"row {number}" for number in range(count)]


def _named(place: str, row: Row, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """A row by the names of the signature's inputs."""
    if not isinstance(row, Mapping):
        raise InvalidArgumentError(
            f"{place} is of type {type(row).__name__}; a row is a mapping of raw columns"
        )
    result: dict[str, Any] = {}
    for key, value in row.items():
        name = _input_name(key, inputs)
        if name not in inputs:
            absent = [known for known in inputs if known not in row]
            raise InvalidArgumentError(
                f"{place} has {key!r}, which the signature does not take"
                + nearest(str(key), absent or inputs)
            )
        result[name] = value
    return result


def _input_name(key: str, inputs: Mapping[str, Tensor]) -> str:
    """A column's name in signatures, which allow letters, digits and _ only."""
    if key in inputs:
        return key
    name = re.sub(r"\W", "_", str(key), flags=re.ASCII)
    return f"arg_{name}" if name[:1].isdigit() else name


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _stacked(places: list[str], name: str, values: list[Any], tensor: Tensor) -> Array:
    """(batch, ...) of the values of a column, padded."""
    values = [_plain(value) for value in values]
    if tensor.shape and tensor.shape[1:2] == (-1,):
        values = [[] if value is None else value for value in values]
    if tensor.shape is None or not tensor.shape:
        raise InvalidArgumentError(f"input {name!r} of the signature has no rows")
    sizes = list(tensor.shape[1:])
    for place, value in zip(places, values, strict=True):
        _measure(place, name, value, tensor.shape[1:], sizes)
    sizes = [max(size, 0) for size in sizes]  # where no row has a value
    result = np.full([len(values), *sizes], _nothing(tensor.dtype), numpy_dtype(tensor.dtype))
    for number, value in enumerate(values):
        _fill(places[number], name, value, result[number : number + 1], tensor.dtype)
    return result


def _measure(
    place: str, name: str, value: Any, shape: Sequence[int], sizes: list[int], level: int = 0
) -> None:
    """Checks the nesting of a value, and raises `sizes` to what it needs."""
    if level == len(shape):
        if _is_list(value):
            kind = "single values in its lists" if level else "one value in a row"
            raise InvalidArgumentError(
                f"{place}: column {name!r} takes {kind}, not {reprlib.repr(value)}"
            )
        return
    if not _is_list(value):
        raise InvalidArgumentError(
            f"{place}: column {name!r} takes a list, not {reprlib.repr(value)}"
        )
    if shape[level] >= 0 and len(value) != shape[level]:
        raise InvalidArgumentError(
            f"{place}: column {name!r} takes {shape[level]} values, not {len(value)}"
        )
    sizes[level] = max(sizes[level], len(value))
    for item in value:
        _measure(place, name, item, shape, sizes, level + 1)


def _fill(place: str, name: str, value: Any, target: Array, dtype: str) -> None:
    """Writes a value into `target`, (1, ...)."""
    if target.ndim == 1:
        target[0] = _leaf(place, name, value, dtype)
    else:
        for number, item in enumerate(value):
            _fill(place, name, item, target[0, number : number + 1], dtype)


def _nothing(dtype: str) -> Any:
    if dtype == "string":
        return b""
    return math.nan if dtype.startswith("float") else 0


def _leaf(place: str, name: str, value: Any, dtype: str) -> Any:
    """One value as its type wants it; nothing is converted that could be a mistake."""
    if isinstance(value, np.generic):
        value = value.item()
    if dtype == "string":
        if value is None:
            return b""
        if isinstance(value, bytes):
            return value
        if isinstance(value, str) and not _SURROGATE.search(value):
            return value.encode()
    elif dtype == "bool":
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif dtype.startswith("float"):
        if value is None:
            return math.nan
        if isinstance(value, int | float) and _fits(value, dtype):
            return value
    elif isinstance(value, int):
        limits = np.iinfo(numpy_dtype(dtype))
        if limits.min <= value <= limits.max:
            return value
    text = f"{reprlib.repr(value)} ({type(value).__name__})"
    raise InvalidArgumentError(f"{place}: column {name!r} takes values of {dtype}, not {text}")


def _fits(value: float, dtype: str) -> bool:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond float64
        return False
    return dtype != "float32" or not math.isfinite(number) or abs(number) <= _LARGEST


def _scalars(array: Array) -> list[Any]:
    if array.dtype == np.float32:
        # The shortest decimal that is this float32, as REST's JSON has it.
        return [float(str(value)) for value in array]
    return list(array.tolist())


def _decoded(value: Any, name: str) -> Any:
    """Strings as `str`, where they are UTF-8 and are not called bytes."""
    if isinstance(value, list):
        return [_decoded(item, name) for item in value]
    if name.endswith("_bytes"):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
