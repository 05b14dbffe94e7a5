"""Cases of the models of retrieval."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.planted import history_kind, interaction
from tests.support import FEATURES, Arrays

ITEMS = FEATURES.table("item").vocabulary


def items_of(model: Any, inputs: Arrays) -> Arrays:
    """What the model's catalogue holds of the examples' items; nothing of unknown ones."""
    ids = np.where(inputs["item"] <= ITEMS, inputs["item"], 0)
    kept = {name: variable.numpy()[ids] for name, variable in model.catalogue.kept.items()}
    return {"item": ids, **kept}


def product(model: Any, u: Any, v: Any) -> Any:
    """Row by row; 0 where there is no vector."""
    lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return (u * v).sum(axis=1) / (np.where(lengths > 0, lengths, 1) if model.normalise else 1)


def mf(model: Any, inputs: Arrays) -> Any:
    ids = {"user": inputs["user"], "item": items_of(model, inputs)["item"]}
    p, q = (reference.looked_up(model.vectors[s].table.numpy(), ids[s]) for s in ids)
    scores = product(model, p, q)
    for side, table in model.biases.items():
        scores += reference.looked_up(table.table.numpy(), ids[side])[:, 0]
    return scores


def ncf(model: Any, inputs: Arrays) -> Any:
    ids = {"user": inputs["user"], "item": items_of(model, inputs)["item"]}
    vectors = {
        (side, part): reference.looked_up(table.table.numpy(), ids[side])
        for side, tables in model.vectors.items()
        for part, table in tables.items()
    }
    both = np.concatenate([vectors["user", "mlp"], vectors["item", "mlp"]], axis=1)
    kernel = np.concatenate([model.first[side].kernel.numpy() for side in ids])
    hidden = np.maximum(both @ kernel + model.first["user"].bias.numpy(), 0)
    hidden = reference.mlp(model.mlp, hidden)
    if ("user", "gmf") in vectors:
        product = vectors["user", "gmf"] * vectors["item", "gmf"]
        hidden = np.concatenate([hidden, product], axis=1)
    return reference.dense(model.scoring, hidden)[:, 0]


def tower(layer: Any, inputs: Arrays) -> Any:
    """Fields, and means over the real events, value by value."""
    tables = {name: table.table.numpy() for name, table in layer.tables.items()}
    parts = []
    for feature in layer.fields:
        values = inputs[feature.name]
        if feature.kind == "number":
            parts.append(values[:, np.newaxis])
        else:
            rows = reference.looked_up(tables[feature.table], values)
            parts.append(reference.mean_of_real(rows, values) if feature.length else rows)
    for history in layer.histories:
        real = inputs[history.mask_feature.name] != 0
        for feature in history.features:
            means = []
            for row, kept in zip(inputs[feature.name], real, strict=True):
                if feature.kind == "number":
                    means.append([row[kept].mean() if kept.any() else 0.0])
                else:
                    ids = row[kept].ravel()
                    rows = reference.looked_up(tables[feature.table], ids)
                    means.append(reference.mean_of_real(rows[np.newaxis], ids[np.newaxis])[0])
            parts.append(np.array(means))
    return reference.mlp(layer.mlp, np.concatenate(parts, axis=1))


def als_mlp(model: Any, inputs: Arrays) -> Any:
    f, g = tower(model.user, inputs), tower(model.item, items_of(model, inputs))
    return product(model, f, g)


def two_tower(model: Any, inputs: Arrays) -> Any:
    u, v = tower(model.user, inputs), tower(model.item, items_of(model, inputs))
    return product(model, u, v)


def youtube_dnn(model: Any, inputs: Arrays) -> Any:
    if model.example_age:
        inputs = {**inputs, model.example_age: np.zeros_like(inputs[model.example_age])}
    ids = items_of(model, inputs)["item"]
    v = reference.looked_up(model.vectors.table.numpy(), ids)
    scores = product(model, tower(model.user, inputs), v)
    if model.bias is None:
        return scores
    return scores + reference.looked_up(model.bias.table.numpy(), ids)[:, 0]


_TOWERS: dict[str, Any] = {"dim": 4, "hidden": [16], "output": 8, "dropout": 0.0}
_OF_TOWERS: tuple[dict[str, Any], ...] = (
    {"hidden": []},
    {"hidden": [8, 6], "activation": "prelu"},
    {"normalise": False},
)
_NO_HISTORY = ("mf", {"dim": 4})

RETRIEVAL_CASES: dict[str, Case] = {
    "mf": Case(
        {"dim": 4}, mf, interaction, None, variants=({"normalise": False}, {"biases": False})
    ),
    "als_mlp": Case(_TOWERS, als_mlp, interaction, None, variants=_OF_TOWERS),
    "ncf": Case(
        {"dim": 4, "hidden": [16, 8]},
        ncf,
        interaction,
        None,
        variants=({"gmf": False}, {"hidden": [8]}, {"hidden": [8, 6, 4], "gmf": False}),
    ),
    "two_tower": Case(
        _TOWERS,
        two_tower,
        history_kind,
        _NO_HISTORY,
        history=True,
        variants=_OF_TOWERS,
    ),
    "youtube_dnn": Case(
        {**_TOWERS, "event_dropout": 0.0},
        youtube_dnn,
        history_kind,
        _NO_HISTORY,
        history=True,
        variants=({"example_age": "age"}, {"user_id": True}, {"bias": False}, *_OF_TOWERS),
    ),
}
