"""Data with a structure that only some models can find."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support import FEATURES, Arrays, batch
from tfrec.features import Features, Table


@dataclass(frozen=True)
class Planted:
    """Inputs, labels, and the features they fit."""

    features: Features
    inputs: Arrays
    labels: np.ndarray[Any, Any]


def _random(rows: int, features: Features = FEATURES) -> tuple[Arrays, Any]:
    return batch(rows, seed=rows, features=features), np.random.default_rng(rows)


def additive(rows: int) -> Planted:
    """Every user and every item has a taste of its own; no interaction."""
    inputs, rng = _random(rows)
    user, item = np.linspace(-3, 3, 13), np.linspace(3, -3, 15)
    chance = 1 / (1 + np.exp(-(user[inputs["user"]] + item[inputs["item"]])))
    return Planted(FEATURES, inputs, (rng.random(rows) < chance).astype(np.float32))


def interaction(rows: int) -> Planted:
    """Odd users like odd items, even users even ones: no main effect at all."""
    inputs, rng = _random(rows)
    inputs["user"] = rng.integers(1, 13, rows)
    inputs["item"] = rng.integers(1, 15, rows)
    # as many odd ids as even ones, so that neither field alone says anything
    return Planted(
        FEATURES, inputs, ((inputs["user"] + inputs["item"]) % 2 == 0).astype(np.float32)
    )


def history_match(rows: int) -> Planted:
    """A candidate is liked where the history holds it; half of the candidates are from there."""
    tables = tuple(Table("item", 40, 2) if t.name == "item" else t for t in FEATURES.tables)
    features = dataclasses.replace(FEATURES, tables=tables)
    inputs, rng = _random(rows, features)
    size, events = features.table("item").size, inputs["liked_item"].shape[1]
    inputs["liked_item"] = rng.integers(1, size, (rows, events))
    inputs["liked_tags"] = rng.integers(1, 8, (rows, events, 3))
    labels = (rng.random(rows) < 0.5).astype(np.float32)
    picked = inputs["liked_item"][np.arange(rows), rng.integers(0, events, rows)]
    inputs["item"] = np.where(labels == 1, picked, rng.integers(1, size, rows))
    held = (inputs["liked_item"] == inputs["item"][:, np.newaxis]).any(axis=1)
    return Planted(features, inputs, held.astype(np.float32))
