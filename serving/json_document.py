"""JSON as TF Serving reads it: documents, strings and bytes, and what errors show of them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import itertools
import json
import re
from typing import Any

import orjson

from serving.deadline import NEVER, TOGETHER, Deadline
from serving.errors import invalid
from serving.json_rows import PART, by_rows

_MAX_SHOWN = 300
_OTHER_NAMES = re.compile(r'"(?:[^"\\]++|\\.)*+"?|-NaN|Inf(?!inity)', re.DOTALL)


def parse_json(body: bytes | bytearray, deadline: Deadline = NEVER) -> dict[str, Any]:
    """A JSON object; NaN and Infinity are accepted, and what else RapidJSON calls them.

    Args:
        body: as it was sent.
        deadline: at which it ends, though not while plain JSON that is no list of rows is read.

    Raises:
        ServingError: INVALID_ARGUMENT.
        TimeoutError: the deadline is over.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    # The collector would look through all lists again and again, and nothing is garbage yet.
    collecting = gc.isenabled()
    gc.disable()
    try:
        document: Any = by_rows(body, deadline) if len(body) > PART else None
        if document is None:
            document = _loads(body, deadline)
    except (ValueError, RecursionError) as error:
        offset = getattr(error, "pos", 0)
        raise invalid(f"JSON Parse error: Invalid value. at offset: {offset}") from None
    finally:
        if collecting:
            gc.enable()
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _loads(body: bytes | bytearray, deadline: Deadline) -> Any:
    """What orjson refuses, in Python's reader; its numbers stay those of orjson."""
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(body)
    text = body.decode("utf-8-sig")
    if "-NaN" in text or text.count("Inf") > text.count("Infinity"):
        text = _OTHER_NAMES.sub(_renamed, text)
    count = itertools.count()

    def number(digits: str) -> Any:  # in Python, so that other threads have a turn
        if next(count) % TOGETHER == 0:
            deadline.check()
        return orjson.loads(digits)

    return json.loads(text, parse_int=number, parse_float=number)


def _renamed(match: re.Match[str]) -> str:
    """NaN and Infinity by the names that Python reads; strings as they are."""
    return {"-NaN": "NaN", "Inf": "Infinity"}.get(match[0], match[0])


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


def is_base64(value: Any) -> bool:
    """Whether a value is one of bytes."""
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


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
