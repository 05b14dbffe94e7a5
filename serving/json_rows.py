"""Large bodies of rows, read part by part: a JSON reader lets no other thread work meanwhile."""

from __future__ import annotations

import re
from typing import Any

import orjson

from serving.deadline import Deadline

PART = 2**18  # bytes that are read before other threads have a turn


def _spaced(pattern: bytes) -> re.Pattern[bytes]:
    """Of a pattern with ~ wherever JSON may have white space."""
    return re.compile(pattern.replace(b"~", rb"[ \t\r\n]*"))


_HEAD = _spaced(
    rb'~\{~(?:"signature_name"~:~"[^"\\]*"~,~)?"(instances|examples)"~:~\[~(?P<first>[^\]])'
)
# Between two rows, by what the first one begins with; the group is a row's last character.
_BETWEEN = {b"{": _spaced(rb"(\})~,~(?=\{)"), b"[": _spaced(rb"(\])~,~(?=\[)")}
_VALUES = re.compile(rb"(),")


def by_rows(body: bytes | bytearray, deadline: Deadline) -> dict[str, Any] | None:
    """What `orjson.loads` gives, where this body is mainly a list of rows; None where it may not.

    It is cut where rows seem to end. If every part is a list of values, then all of them are, one
    after the other: what is cut inside of a row or a text cannot be read on its own.

    Args:
        body: as it was sent.
        deadline: at which it ends.

    Raises:
        TimeoutError: the deadline is over.
    """
    head, end = _HEAD.match(body), body.rfind(b"]")
    if head is None or end < head.end():
        return None
    start, rows = head.start("first"), list[Any]()
    between: re.Pattern[bytes] = _BETWEEN.get(head["first"], _VALUES)
    try:
        document = orjson.loads(body[:start] + body[end:])
        while start < end:
            deadline.check()
            cut = between.search(body, start + PART, end)
            part = orjson.loads(b"[" + body[start : cut.end(1) if cut else end] + b"]")
            if not part:
                return None
            rows += part
            start = cut.end() if cut else end + 1
    except orjson.JSONDecodeError:
        return None
    name = head[1].decode()
    if start == end or document[name] != []:  # a comma at the end, or the name once more
        return None
    return {**document, name: rows}
