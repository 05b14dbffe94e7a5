"""What the harness needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.models.planted import Planted
from tests.support import Arrays


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        hyperparameters: small, and without randomness in training.
        equation: NumPy logits of (model, inputs).
        planted: structure that the model must find.
        beats: (id, hyperparameters) of a model without the mechanism, which must not find it.
        history: whether it reads histories.
    """

    hyperparameters: dict[str, Any]
    equation: Callable[[Any, Arrays], Any]
    planted: Callable[[int], Planted]
    beats: tuple[str, dict[str, Any]] | None
    history: bool = False
    variants: tuple[dict[str, Any], ...] = field(default=())
