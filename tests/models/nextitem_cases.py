"""Cases of the models of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.history_reference import Array, gelu, gru, last, layer_norm, transformer_block
from tests.models.planted import newest_kind
from tests.models.retrieval_cases import items_of
from tests.support import Arrays


def sequences(inputs: Arrays) -> list[Array]:
    """The ids of every history, without padding."""
    return [row[row != 0] for row in inputs["liked_item"]]


def product(model: Any, inputs: Arrays, users: Array) -> Array:
    ids = items_of(model, inputs)["item"]
    return (users * reference.looked_up(model.embedding.table.numpy(), ids)).sum(axis=1)


def gru4rec(model: Any, inputs: Arrays) -> Array:
    users = []
    for ids in sequences(inputs):
        states = model.embedding.table.numpy()[ids]
        for layer in model.recurrent:
            states = gru(layer.cell, states)
        users.append(last(states))
    users = np.array(users)
    return product(model, inputs, users @ model.map.kernel.numpy() if model.map else users)


def sasrec(model: Any, inputs: Arrays) -> Array:
    users = []
    for ids in sequences(inputs):
        vectors = model.embedding.table.numpy()[ids]
        states = vectors * np.sqrt(vectors.shape[1]) + model.positions.vectors.numpy()[: len(ids)]
        for block in model.blocks:
            states = transformer_block(block, states, causal=True, activation=reference.relu)
        users.append(last(layer_norm(model.norm, states) if model.norm else states))
    return product(model, inputs, np.array(users))


def bert4rec(model: Any, inputs: Arrays) -> Array:
    table, users = model.embedding.table.numpy(), []
    for ids in sequences(inputs):
        states = table[[*ids, len(table) - 1]] + model.positions.vectors.numpy()[: len(ids) + 1]
        states = layer_norm(model.norm, states)
        for block in model.blocks:
            states = transformer_block(block, states, activation=gelu)
        projected = gelu(reference.dense(model.projection, states[-1]))
        users.append(layer_norm(model.projection_norm, projected))
    biases = reference.looked_up(model.biases.table.numpy(), items_of(model, inputs)["item"])
    return product(model, inputs, np.array(users)) + biases[:, 0]


_SMALL: dict[str, Any] = {"dim": 8, "dropout": 0.0}
_BLOCKS: dict[str, Any] = {**_SMALL, "blocks": 1, "heads": 2}
_NO_ORDER = ("youtube_dnn", {"dim": 8, "hidden": [16], "output": 8, "dropout": 0.0})

NEXT_ITEM_CASES: dict[str, Case] = {
    "gru4rec": Case(
        {**_SMALL, "units": [8]},
        gru4rec,
        newest_kind,
        _NO_ORDER,
        history=True,
        variants=({"units": [6]}, {"units": [6, 8]}, {"session_parallel": True}),
    ),
    "sasrec": Case(
        _BLOCKS,
        sasrec,
        newest_kind,
        _NO_ORDER,
        history=True,
        variants=({"blocks": 2}, {"heads": 1}, {"pre_norm": False}),
    ),
    "bert4rec": Case(
        {**_BLOCKS, "attention_dropout": 0.0},
        bert4rec,
        newest_kind,
        _NO_ORDER,
        history=True,
        variants=({"blocks": 2}, {"heads": 1}, {"masked": 0.9, "last_only": 0.0}),
        optimizers={"dense": {"name": "adam", "learning_rate": 0.005}},
    ),
}
