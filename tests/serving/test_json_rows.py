"""Bodies that are read part by part say what they say as a whole, or are not read so."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import json_rows
from serving.deadline import NEVER, Deadline
from serving.json_document import parse_json
from serving.json_rows import by_rows

FUZZ = settings(max_examples=400, derandomize=True, deadline=None)
TEXTS = st.sampled_from(["a", "},{", "],[", "1,2", '"', "\\", '"},{"', "instances", "é"])
VALUES = st.recursive(
    st.integers(0, 9) | st.floats(0, 9) | st.booleans() | st.none() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
BODIES = st.builds(
    lambda before, name, rows, after, spaced: json.dumps(
        {**before, name: rows, **after}, separators=None if spaced else (",", ":")
    ).encode(),
    st.sampled_from([{}, {"signature_name": "s"}, {"a": [1]}]),
    st.sampled_from(["instances", "examples", "inputs"]),
    st.lists(VALUES, max_size=5),
    st.sampled_from([{}, {"signature_name": "s"}, {"a": [1]}, {"b": 1}]),
    st.booleans(),
)


@pytest.fixture(autouse=True, scope="module")
def _short_parts() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "PART", 1)
        yield


def whole(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


@FUZZ
@given(body=BODIES)
def test_parts_are_the_whole(body: bytes) -> None:
    assert by_rows(body, NEVER) in (None, whole(body))


@FUZZ
@given(data=st.data(), body=BODIES)
def test_broken_parts_are_not_taken(data: st.DataObject, body: bytes) -> None:
    at = data.draw(st.integers(0, len(body)))
    until = data.draw(st.integers(at, min(at + 3, len(body))))
    put = data.draw(st.text(alphabet=' ,[]{}":1n\v', max_size=3)).encode()
    broken = body[:at] + put + body[until:]
    assert by_rows(broken, NEVER) in (None, whole(broken))


@pytest.mark.parametrize(
    "rows",
    [[1, 2, 3], [{"a": 1}, {"a": "x"}], [[1, 2], [3, 4]], ["a", "b"], [{"b64": "AA=="}] * 3],
    ids=["numbers", "objects", "lists", "texts", "bytes"],
)
@pytest.mark.parametrize("separators", [None, (",", ":")])
def test_what_is_read_by_parts(rows: Any, separators: Any) -> None:
    """And ends at the deadline."""
    document = {"signature_name": "s", "instances": rows}
    for turned in (document, dict(reversed(document.items()))):
        body = json.dumps(turned, separators=separators).encode()
        assert by_rows(body, NEVER) == document
        with pytest.raises(TimeoutError):
            by_rows(body, Deadline(-1))


@pytest.mark.parametrize("after", [',"instances":5', ',"instances":[]', ',"a":[1]', ",", "]"])
def test_what_is_not(after: str) -> None:
    body = f'{{"instances":[1,2,3]{after}}}'.encode()
    assert by_rows(body, NEVER) is None
    assert by_rows(b'{"instances":[1,2,]}', NEVER) is None
    assert by_rows(b'{"instances":[1,,2]}', NEVER) is None


def test_a_large_body_ends_at_the_deadline() -> None:
    body = json.dumps({"instances": [0.5] * 100_000}).encode()
    with pytest.raises(TimeoutError):
        parse_json(body, Deadline(-1))
    assert parse_json(body) == json.loads(body)
    with_nan = body.replace(b"0.5]", b"NaN]")
    assert len(parse_json(with_nan)["instances"]) == 100_000
