"""The configuration of a training run. No TensorFlow."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, create_model

from tfrec.strict import Strict, UserError


class OptimizerConfig(Strict):
    """Optimizer of one variable group.

    Attributes:
        name: `row_sparse_adam` and `adagrad` and `ftrl` cost what the batch's rows cost; `adam`
            and `sgd` with momentum touch whole tables.
        learning_rate: its step size.
        l1: of ftrl.
        l2: of ftrl, and of row_sparse_adam (on the batch's rows).
    """

    name: Literal["row_sparse_adam", "adam", "adagrad", "ftrl", "sgd"] = "row_sparse_adam"
    learning_rate: PositiveFloat = 0.001
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0


class OptimizersConfig(Strict):
    """Optimizers by group.

    Attributes:
        linear: first-order weights.
        embedding: tables of vectors.
        dense: everything else.
    """

    # FTRL's accumulator begins at 0.1, far above a batch's mean gradient: its steps are small.
    linear: OptimizerConfig = OptimizerConfig(name="ftrl", learning_rate=1.0, l1=1e-4)
    embedding: OptimizerConfig = OptimizerConfig()
    dense: OptimizerConfig = OptimizerConfig(name="adam")


class ModelConfig(Strict):
    """A model's id, and its hyperparameters beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    id: str

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the user set."""
        return dict(self.model_extra or {})


class TrainConfig(Strict):
    """Everything that a training run depends on.

    Attributes:
        data: data set directory.
        model: which model, and its hyperparameters.
        labels: tasks to learn; a ranking model takes one, the data set's first unless given.
        batch_size: examples per step, over all devices.
        epochs: most passes over the training split.
        validations_per_epoch: how often validation metrics are taken, and patience counted.
        patience: validations without a better one before training stops.
        optimizers: by variable group.
        seed: of initial weights, dropout and the order of examples.
    """

    data: str
    model: ModelConfig
    labels: list[str] | None = None
    batch_size: PositiveInt = 512
    epochs: PositiveInt = 20
    validations_per_epoch: PositiveInt = 2
    patience: PositiveInt = 3
    optimizers: OptimizersConfig = OptimizersConfig()
    seed: Annotated[int, Field(ge=0)] = 0


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in their places, block by block."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def over_defaults(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The user's values over a model's defaults and the general ones.

    A group whose optimizer the user names takes nothing from another optimizer's defaults.
    """
    general = {"optimizers": OptimizersConfig().model_dump()}
    base = merge(general, defaults)
    named = values.get("optimizers")
    for group, block in named.items() if isinstance(named, dict) else ():
        default = base["optimizers"].get(group, {}).get("name")
        if isinstance(block, dict) and block.get("name", default) != default:
            base = merge(base, {"optimizers": {group: None}})
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
    hints = get_type_hints(constructor)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in ("self", "features")
    }
    checked = create_model("model", __base__=Strict, **fields).parse(values, "model")
    return {name: _plain(value) for name, value in checked.model_dump().items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
