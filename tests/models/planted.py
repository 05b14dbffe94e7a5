"""Data with a structure that only some models can find."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support import FEATURES, Arrays, batch
from tfrec.features import Features, Label, Table


@dataclass(frozen=True)
class Planted:
    """Inputs, labels (rows,) or (rows, tasks), and the features they fit."""

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


def _balanced_kinds(rows: int) -> tuple[Arrays, Any, Any]:
    """Histories of two odd and two even items in any order, and one of padding; their kinds."""
    inputs, rng = _random(rows)
    kinds = rng.permuted(np.tile([0, 0, 1, 1], (rows, 1)), axis=1)
    items = 2 * rng.integers(1, 7, kinds.shape) + kinds
    inputs["liked_item"] = np.pad(items, [(0, 0), (0, 1)])
    inputs["liked_tags"] = np.pad(rng.integers(1, 8, (rows, 4, 3)), [(0, 0), (0, 1), (0, 0)])
    prices = rng.normal(size=(rows, 4)).astype(np.float32)
    inputs["liked_price"] = np.pad(prices, [(0, 0), (0, 1)])
    inputs["item"] = rng.integers(1, 15, rows)
    return inputs, rng, kinds


def newest_kind(rows: int) -> Planted:
    """A candidate is liked where it is odd or even as the newest event: only the order tells."""
    inputs, _, kinds = _balanced_kinds(rows)
    labels = (inputs["item"] % 2 == kinds[:, -1]).astype(np.float32)
    return Planted(FEATURES, inputs, labels)


def newest_odd(rows: int) -> Planted:
    """All candidates are liked while the newest event is odd: only the order tells."""
    inputs, _, kinds = _balanced_kinds(rows)
    return Planted(FEATURES, inputs, kinds[:, -1].astype(np.float32))


def history_kind(rows: int) -> Planted:
    """A candidate is liked where it is odd or even as all events are: no field says anything."""
    inputs, rng, _ = _balanced_kinds(rows)
    kind = rng.integers(0, 2, rows)
    real = inputs["liked_item"] != 0
    changed = inputs["liked_item"] // 2 * 2 + kind[:, np.newaxis]
    inputs["liked_item"] = np.where(real, changed, 0)
    return Planted(FEATURES, inputs, (inputs["item"] % 2 == kind).astype(np.float32))


def _with_tasks(names: str) -> Features:
    return dataclasses.replace(FEATURES, labels=tuple(Label(name) for name in names.split()))


def two_interactions(rows: int) -> Planted:
    """The same users like and finish an item: those that are odd as it is, or even as it is."""
    planted = interaction(rows)
    labels = np.stack([planted.labels] * 2, axis=1)
    return Planted(_with_tasks("like finish"), planted.inputs, labels)


def conflict(rows: int) -> Planted:
    """Three tasks, each with an interaction of other kinds of users and items."""
    inputs, rng = _random(rows)
    inputs["user"], inputs["item"] = rng.integers(1, 9, rows), rng.integers(1, 9, rows)
    bits = [(inputs["user"] - 1 >> bit) + (inputs["item"] - 1 >> bit) for bit in range(3)]
    labels = np.stack([(bit % 2).astype(np.float32) for bit in bits], axis=1)
    return Planted(_with_tasks("like finish share"), inputs, labels)


def clicks_and_purchases(rows: int) -> Planted:
    """Odd users click odd items, even ones even ones; and buy where both ids are low, or high."""
    planted = interaction(rows)
    users, items = planted.inputs["user"], planted.inputs["item"]
    purchases = planted.labels * ((users > 6) == (items > 7))
    labels = np.stack([planted.labels, purchases], axis=1)
    return Planted(_with_tasks("click buy"), planted.inputs, labels)


def clickbait(rows: int) -> Planted:
    """Items of low ids are clicked by most and bought after few clicks, the others the reverse."""
    inputs, rng = _random(rows)
    low = inputs["item"] < 8
    clicks = rng.random(rows) < np.where(low, 0.9, 0.3)
    purchases = clicks & (rng.random(rows) < np.where(low, 0.2, 0.3))
    labels = np.stack([clicks, purchases], axis=1).astype(np.float32)
    return Planted(_with_tasks("click buy"), inputs, labels)
