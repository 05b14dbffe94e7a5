"""What the harness needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.models.planted import Planted
from tests.support import FEATURES, Arrays
from tfrec.features import Features


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        hyperparameters: small, and without randomness in training.
        equation: NumPy logits of (model, inputs): (batch,), or (batch, tasks) of several.
        planted: structure that the model must find.
        beats: (id, hyperparameters) of a model without the mechanism, which must not find it.
        history: whether it reads histories.
        variants: other settings that the equation holds for.
        features: with the tasks that the model needs.
        optimizers: in place of the harness's, which are too fast for some.
    """

    hyperparameters: dict[str, Any]
    equation: Callable[[Any, Arrays], Any]
    planted: Callable[[int], Planted]
    beats: tuple[str, dict[str, Any]] | None
    history: bool = False
    variants: tuple[dict[str, Any], ...] = field(default=())
    features: Features = FEATURES
    optimizers: dict[str, Any] = field(default_factory=dict)
