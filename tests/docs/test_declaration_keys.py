"""The whole declaration is shown: every key is in some block of YAML, and every choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from pipeline.declaration import Declaration
from tests.docs.blocks import ROOT, blocks
from tests.docs.yaml_blocks import variants

PAGES = ("docs/data.md", "docs/pipeline.md")


def scalars(value: Any) -> Iterator[Any]:
    """Keys and values of all that is inside a block."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


def declared(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """(block, key or value of a choice) of a block of the declaration, and of those inside it."""
    for name, field in model.model_fields.items():
        yield model.__name__, name
        for choice in choices(field.annotation):
            if choice != field.default:
                yield model.__name__, choice
        for inner in parts(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from declared(inner)


def choices(annotation: Any) -> Iterator[Any]:
    for part in parts(annotation):
        if get_origin(part) is Literal:
            yield from get_args(part)


def parts(annotation: Any) -> Iterator[Any]:
    """An annotation such as `dict[str, Block] | None`, and all that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            yield from parts(inner)


@pytest.fixture(scope="module")
def shown() -> set[Any]:
    texts = [
        b.text for p in PAGES for b in blocks(p, (ROOT / p).read_text()) if b.language == "yaml"
    ]
    return {scalar for text in texts for values in variants(text) for scalar in scalars(values)}


def test_every_key_has_an_example(shown: set[Any]) -> None:
    missing = {key for key in declared(Declaration) if key[1] not in shown}
    assert missing == set()
