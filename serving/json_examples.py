"""The JSON form of Classify and Regress: features by name, made into tf.Examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature

from serving.deadline import NEVER, TOGETHER, Deadline
from serving.errors import invalid
from serving.inference import with_context
from serving.json_answer import decimals
from serving.json_document import (
    decoded,
    encoded,
    is_base64,
    json_type,
    parse_json,
    shown,
    signature_of,
)

_FEW = 16  # for which NumPy takes longer than it saves
_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def parse_examples(body: bytes | bytearray, deadline: Deadline = NEVER) -> tuple[str, list[bytes]]:
    """Signature and serialized examples of a request, each with the context that they share.

    Args:
        body: as it was sent.
        deadline: at which it ends.

    Raises:
        ServingError: INVALID_ARGUMENT.
        TimeoutError: the deadline is over.
    """
    document = parse_json(body, deadline)
    signature = signature_of(document)
    context = b""
    if "context" in document:
        context = _example(document["context"], deadline)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    return signature, with_context(context, [_example(value, deadline) for value in examples])


def classify_response(
    results: list[list[tuple[bytes, float]]], deadline: Deadline = NEVER
) -> bytes:
    """Body of the reply to Classify, by a deadline.

    Raises:
        ServingError: INVALID_ARGUMENT, a label is not UTF-8.
        TimeoutError: the deadline is over.
    """
    scores = iter(_decimals([score for row in results for _, score in row], deadline))
    try:
        rows = [
            ",".join(
                f"[{orjson.dumps(label.decode()).decode()},{next(scores)}]" for label, _ in row
            )
            for row in results
        ]
    except UnicodeDecodeError:
        raise invalid("a label of the classes is not UTF-8") from None
    return f'{{"results":[{",".join(f"[{row}]" for row in rows)}]}}'.encode()


def regress_response(results: list[float], deadline: Deadline = NEVER) -> bytes:
    """Body of the reply to Regress, by a deadline.

    Raises:
        TimeoutError: the deadline is over.
    """
    return f'{{"results":[{",".join(_decimals(results, deadline))}]}}'.encode()


def _decimals(values: list[float], deadline: Deadline) -> list[str]:
    texts: list[str] = []
    for start in range(0, len(values), TOGETHER):
        deadline.check()
        texts += decimals(np.array(values[start : start + TOGETHER], np.float32))
    return texts


def _example(value: Any, deadline: Deadline) -> bytes:
    deadline.check()
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[encoded(name).decode()]
        items = content if isinstance(content, list) else [content]
        for start in range(0, len(items), TOGETHER):
            deadline.check()
            _extend(feature, name, items[start : start + TOGETHER])
    return example.SerializeToString()


def _extend(feature: Feature, name: str, values: list[Any]) -> None:
    """Adds values as `_add` adds each, at once where they are many and plain."""
    kinds = set(map(type, values)) if len(values) > _FEW else set()
    kind = ""
    if kinds == {float}:
        numbers = np.array(values)
        with np.errstate(over="ignore"):
            kept = np.isfinite(numbers.astype(np.float32)) | ~np.isfinite(numbers)
        kind = "float_list" if kept.all() else ""
    elif kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        kind = "int64_list"
    if kind and feature.WhichOneof("kind") in (None, kind):
        getattr(feature, kind).value.extend(values)
        return
    for value in values:
        _add(feature, name, value)


def _add(feature: Feature, name: str, value: Any) -> None:
    converted: Any
    if isinstance(value, str):
        kind, converted = "bytes_list", encoded(value)
    elif is_base64(value):
        kind, converted = "bytes_list", decoded(value)
    elif isinstance(value, int):  # truth values, too
        if not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        kind, converted = "int64_list", int(value)
    elif isinstance(value, float):
        if math.isfinite(value) and math.isinf(np.float32(value)):
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        kind, converted = "float_list", value
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}"
        )
    getattr(feature, kind).value.append(converted)
