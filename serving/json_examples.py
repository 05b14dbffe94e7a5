"""The JSON form of Classify and Regress: features by name, made into tf.Examples."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.example.feature_pb2 import Feature

from serving.errors import invalid
from serving.inference import with_context
from serving.json_tensor import (
    decoded,
    encoded,
    is_base64,
    json_type,
    parse_json,
    shown,
    signature_of,
)

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def parse_examples(body: bytes) -> tuple[str, list[bytes]]:
    """Signature and serialized examples of a request, each with the context that they share.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    document = parse_json(body)
    signature = signature_of(document)
    context = b""
    if "context" in document:
        context = _example(document["context"])
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
    return signature, with_context(context, [_example(value) for value in examples])


def classify_response(results: list[list[tuple[bytes, float]]]) -> bytes:
    """Body of the reply to Classify.

    Raises:
        ServingError: INVALID_ARGUMENT, a label is not UTF-8.
    """
    try:
        rows = [[[label.decode(), _decimal(score)] for label, score in row] for row in results]
    except UnicodeDecodeError:
        raise invalid("a label of the classes is not UTF-8") from None
    return _dumped({"results": rows})


def regress_response(results: list[float]) -> bytes:
    """Body of the reply to Regress."""
    return _dumped({"results": [_decimal(value) for value in results]})


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, content in value.items():
        feature = example.features.feature[encoded(name).decode()]
        for item in content if isinstance(content, list) else [content]:
            _add(feature, name, item)
    return example.SerializeToString()


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


def _decimal(value: float) -> float:
    """The shortest decimal that is this float32."""
    return float(str(np.float32(value)))


def _dumped(body: dict[str, Any]) -> bytes:
    text = orjson.dumps(body)
    # orjson writes NaN as null; TF Serving, and json, as what it is.
    return json.dumps(body).encode() if b"null" in text else text
