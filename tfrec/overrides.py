"""Where the values of a configuration come from, and which stand over which. No TensorFlow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import yaml
from pydantic import create_model

from tfrec.config import OF_ITEM_LOSSES, OptimizersConfig
from tfrec.strict import Strict, UserError


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, block by block."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def known_to(
    kind: Any, values: dict[str, Any], belongs: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """The values of a block that a kind looks at.

    Args:
        kind: of the block.
        values: by key.
        belongs: kinds by the key that only they look at.
    """
    return {key: value for key, value in values.items() if kind in belongs.get(key, (kind,))}


def over_defaults(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The user's values over a model's defaults and the general ones.

    A group whose optimizer the user names takes nothing from another optimizer's defaults, and an
    item loss of which the user names the kind nothing that this kind would not look at.
    """
    general = {"optimizers": OptimizersConfig().model_dump()}
    base = merge(general, defaults)
    named = values.get("optimizers")
    for group, block in named.items() if isinstance(named, dict) else ():
        default = base["optimizers"].get(group, {}).get("name")
        if isinstance(block, dict) and block.get("name", default) != default:
            base = merge(base, {"optimizers": {group: None}})
    loss, default_loss = values.get("item_loss"), base.get("item_loss")
    if isinstance(loss, dict) and "kind" in loss and default_loss:
        base = {**base, "item_loss": known_to(loss["kind"], default_loss, OF_ITEM_LOSSES)}
    return merge(base, values)


def from_assignments(assignments: list[str]) -> dict[str, Any]:
    """Nested values of `a.b=value` strings; a value is read as YAML.

    Raises:
        UserError: not of that form.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise UserError(
                f"--set {assignment}: expected key=value, such as model.hidden=[256,128]"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {assignment}: {text!r} is not a YAML value") from None
        for key in reversed(path.split(".")):
            value = {key: value}
        values = merge(values, value)
    return values


def check_hyperparameters(
    constructor: Callable[..., Any], values: dict[str, Any]
) -> dict[str, Any]:
    """Hyperparameters checked against a model's constructor, defaults filled in.

    Raises:
        UserError: one that the model does not have, or a value of another type.
    """
    hints = get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in ("self", "features")
    }
    checked = create_model("model", __base__=Strict, **fields).parse(values, "model")
    return {name: _plain(value) for name, value in checked.model_dump().items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
