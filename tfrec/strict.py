"""Strict configuration: unknown keys are errors that name the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class UserError(Exception):
    """Something that the user can mend: one line that names the thing and what would be right."""


class NotFiniteError(UserError):
    """A training that diverged."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Ending of a message about an unknown name: the nearest known one, or all of them."""
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known)) or 'none'}"


class Strict(BaseModel):
    """A block of configuration that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Any, where: str) -> Self:
        """Validates plain values, as read from YAML.

        Args:
            values: the mapping.
            where: what is being read (a file, mostly), named in messages.

        Raises:
            UserError: the first thing that is wrong, with its path in `values`.
        """
        if not isinstance(values, dict):
            raise UserError(f"{where}: expected a mapping of keys, not {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_first_problem(cls, error)}") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads and validates a YAML file.

        Raises:
            UserError: no such file, no YAML, or values that do not fit.
        """
        return cls.parse(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> Any:
    """Content of a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: no such file, or no YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text") from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not valid YAML") from None


def _first_problem(model: type[BaseModel], error: ValidationError) -> str:
    """One line for the first problem that pydantic found."""
    problem = error.errors()[0]
    location = problem["loc"]
    path = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {path!r}{nearest(str(location[-1]), _keys(model, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{path!r} is missing"
    if problem["type"] == "value_error":
        return f"{path}: {problem['ctx']['error']}".removeprefix(": ")  # of the whole block
    if problem["type"] == "is_instance_of":
        return f"{path}: input should be a list, not {problem['input']!r}"
    if problem["type"] == "model_type":
        return f"{path}: input should be a mapping of keys, not {problem['input']!r}"
    wrong = f"{path}: {problem['msg'][0].lower()}{problem['msg'][1:]}, not {problem['input']!r}"
    if problem["type"] == "string_type" and not isinstance(problem["input"], (list, dict)):
        return f"{wrong}; put it in quotes, if it is meant as text"  # YAML has true, null and 1
    return wrong


def _keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys that the block at `location` knows."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = (_block(field.annotation) if field else None) or current
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _block(annotation: Any) -> Any:
    """The configuration block inside an annotation such as `dict[str, Block] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _block(argument)
        if found is not None:
            return found
    return None
