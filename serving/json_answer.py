"""TF Serving's JSON form of a reply to Predict, and of numbers in any reply."""

from __future__ import annotations

import base64
from collections.abc import Callable
from math import isfinite, prod
from typing import Any

import numpy as np
import orjson

from serving.deadline import NEVER, TOGETHER, Deadline
from serving.errors import invalid
from serving.json_tensor import Array, Format

_ALL_DIGITS = {np.dtype(np.float32): "%.9g", np.dtype(np.float64): "%.17g"}
_FEW = 16  # for which NumPy takes longer than it saves
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def response(outputs: dict[str, Array], form: Format, deadline: Deadline = NEVER) -> bytes:
    """Body of the reply: `predictions` for rows, `outputs` for columns.

    Args:
        outputs: by name.
        form: of the request.
        deadline: at which it ends.

    Raises:
        ServingError: INVALID_ARGUMENT, where outputs cannot be told apart by rows.
        TimeoutError: the deadline is over.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if form == "columnar":
        values = [_nested(name, array, 0, deadline) for name, array in outputs.items()]
        return f'{{"outputs":{_objects(list(outputs), values)[0]}}}'.encode()
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
    values = [_nested(name, array, 1, deadline) for name, array in outputs.items()]
    return f'{{"predictions":[{",".join(_objects(list(outputs), values))}]}}'.encode()


def decimals(numbers: Array) -> list[str]:
    """Floats as TF Serving writes them: with six digits, or with all where these are not enough.

    Args:
        numbers: of float16, float32 or float64, (n,).
    """
    if numbers.dtype != np.float64:
        numbers = numbers.astype(np.float32)
    if len(numbers) <= _FEW:
        return [_decimal(value, numbers.dtype) for value in numbers.tolist()]
    return _many_decimals(numbers)


@np.errstate(all="ignore")  # of NaN and infinities
def _many_decimals(numbers: Array) -> list[str]:
    wide = numbers.astype(np.float64)
    texts = np.empty(len(wide), object)
    few = _may_be_few(wide, numbers.dtype)
    short = [*map("%.6g".__mod__, wide[few].tolist())]
    texts[few] = short
    few[few] = np.array([*map(float, short)]).astype(numbers.dtype) == numbers[few]
    texts[~few] = [*map(_ALL_DIGITS[numbers.dtype].__mod__, wide[~few].tolist())]
    rest = wide == np.rint(wide)
    texts[rest] = [*map(_with_point, texts[rest])]
    rest = ~np.isfinite(wide)
    texts[rest] = [_NOT_FINITE[text] for text in texts[rest]]
    return texts.tolist()


def _decimal(value: float, dtype: np.dtype[Any]) -> str:
    if not isfinite(value):
        return _NOT_FINITE[str(value)]
    text = f"{value:.6g}"
    return _with_point(text if dtype.type(text) == value else _ALL_DIGITS[dtype] % value)


def _with_point(text: str) -> str:
    """So that all of a list are read as floats."""
    return text if "." in text or "e" in text or "n" in text else text + ".0"


def _may_be_few(wide: Array, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Where six digits may read back as the same number; quick, and sure where they do not."""
    size = np.abs(wide)
    whole = size * 10.0 ** (5 - np.floor(np.log10(size) - 1e-9))  # six digits, or seven
    # Numbers are closer together than this, but for the smallest; of 0 it is not true either.
    apart = np.abs(whole - np.rint(whole)) > whole * np.finfo(dtype).eps * 64
    return ~apart | (size < np.finfo(dtype).tiny * 16)


def _objects(names: list[str], values: list[list[str]]) -> list[str]:
    """Values one after the other, as objects where they are of several names."""
    if len(names) == 1:
        return values[0]
    keys = [orjson.dumps(name).decode() + ":" for name in names]
    return ["{" + ",".join(map(str.__add__, keys, row)) + "}" for row in zip(*values, strict=True)]


def _nested(name: str, array: Array, level: int, deadline: Deadline) -> list[str]:
    """What an array has at a level: itself at 0, its rows at 1."""
    write, flat, texts = _writer(name, array), array.ravel(), []
    for start in range(0, flat.size, TOGETHER):
        deadline.check()
        texts += write(flat[start : start + TOGETHER])
    for axis in reversed(range(level, array.ndim)):
        deadline.check()
        size = array.shape[axis]
        lists = (texts[i * size : (i + 1) * size] for i in range(prod(array.shape[:axis])))
        texts = ["[" + ",".join(items) + "]" for items in lists]
    return texts


def _writer(name: str, array: Array) -> Callable[[Array], list[str]]:
    if array.dtype.kind in "OS":
        return _bytes if name.endswith("_bytes") else lambda values: _strings(name, values)
    if array.dtype.kind not in "biuf":
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")
    return decimals if array.dtype.kind == "f" else _integers


def _integers(values: Array) -> list[str]:
    return orjson.dumps(values.tolist())[1:-1].decode().split(",")


def _bytes(values: Array) -> list[str]:
    return [f'{{"b64":"{base64.b64encode(value).decode()}"}}' for value in values.tolist()]


def _strings(name: str, values: Array) -> list[str]:
    try:
        return [orjson.dumps(value.decode()).decode() for value in values.tolist()]
    except UnicodeDecodeError:
        raise invalid(
            f"Tensor name: {name} is not UTF-8; bytes need a name that ends in _bytes"
        ) from None
