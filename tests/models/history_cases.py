"""Cases of the models that read histories."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.history_reference import (
    Array,
    events_and_candidates,
    evolution,
    last,
    placed,
    recurrent_states,
    softmax,
    transformer_block,
)
from tests.models.planted import history_kind, newest_kind, newest_odd
from tests.support import EVENTS, Arrays


def _fields(model: Any, inputs: Arrays) -> Array:
    return reference.fields(reference.vectors(model.embeddings, inputs), inputs)


def history_pooling(model: Any, inputs: Arrays) -> Any:
    events, candidates = events_and_candidates(model.embeddings, inputs)
    pooled = np.array([row.sum(axis=0) for row in events])
    if model.pooling == "mean":
        pooled /= np.array([max(len(row), 1) for row in events])[:, np.newaxis]
    parts = [_fields(model, inputs), pooled, candidates]
    return reference.mlp(model.mlp, np.concatenate(parts, axis=1))[:, 0]


def rnn(model: Any, inputs: Arrays) -> Any:
    events, candidates = events_and_candidates(model.embeddings, inputs)
    layer = model.recurrent["liked"]
    states = [
        recurrent_states(layer, np.vstack([row, candidate]))[-1]
        for row, candidate in zip(events, candidates, strict=True)
    ]
    parts = [_fields(model, inputs), np.array(states)]
    return reference.mlp(model.mlp, np.concatenate(parts, axis=1))[:, 0]


def rnn_als(model: Any, inputs: Arrays) -> Any:
    events, candidates = events_and_candidates(model.embeddings, inputs)
    users = np.array([last(recurrent_states(model.recurrent["liked"], row)) for row in events])
    layer = model.candidates["liked"]
    items = candidates @ layer.kernel.numpy() + layer.bias.numpy()
    first_order = reference.linear(model.linear, inputs)
    return first_order + (users * items).sum(axis=1)


def dien(model: Any, inputs: Arrays) -> Any:
    events, candidates = events_and_candidates(model.embeddings, inputs)
    attention, layer = model.attention["liked"], model.evolution["liked"]
    interests = []
    for row, candidate in zip(events, candidates, strict=True):
        states = recurrent_states(model.interests["liked"], row)
        scores = states @ (candidate @ attention.map.kernel.numpy())
        weights = softmax(scores) if len(scores) else scores
        interests.append(evolution(layer, layer.evolution, states, weights))
    parts = [_fields(model, inputs), np.array(interests), candidates]
    return reference.mlp(model.mlp, np.concatenate(parts, axis=1))[:, 0]


def bst(model: Any, inputs: Arrays) -> Any:
    rows = []
    for row, candidate in zip(*events_and_candidates(model.embeddings, inputs), strict=True):
        ago = np.arange(len(row), -1, -1)  # the candidate last, now
        steps = placed(np.vstack([row, candidate]), model.distances["liked"], ago)
        for block in model.blocks["liked"]:
            steps = transformer_block(block, steps)
        newest_first = np.zeros((1 + EVENTS, steps.shape[1]))
        newest_first[: len(steps)] = steps[::-1]
        rows.append(newest_first.ravel())
    parts = [_fields(model, inputs), np.array(rows)]
    return reference.mlp(model.mlp, np.concatenate(parts, axis=1))[:, 0]


def transformer_joint(model: Any, inputs: Arrays) -> Any:
    events, candidates = events_and_candidates(model.embeddings, inputs)
    means = []
    for row in events:
        steps = placed(row, model.distances["liked"], np.arange(len(row), 0, -1))
        for block in model.encoder["liked"]:
            steps = transformer_block(block, steps)
        means.append(steps.mean(axis=0) if len(steps) else np.zeros(steps.shape[1]))
    parts = [_fields(model, inputs), np.array(means), candidates]
    return reference.mlp(model.mlp, np.concatenate(parts, axis=1))[:, 0]


_DEEP: dict[str, Any] = {"dim": 4, "hidden": [8], "dropout": 0.0}
_POOLING = ("history_pooling", _DEEP)
_CELLS = ({"cell": "rnn"}, {"cell": "lstm"})

HISTORY_CASES: dict[str, Case] = {
    "history_pooling": Case(
        _DEEP,
        history_pooling,
        history_kind,
        ("dnn", _DEEP),
        history=True,
        variants=({"pooling": "sum"}, {"activation": "dice"}),
    ),
    "rnn": Case(
        {**_DEEP, "units": 6},
        rnn,
        newest_kind,
        _POOLING,
        history=True,
        variants=(*_CELLS, {"activation": "dice"}),
    ),
    "rnn_als": Case(
        {"dim": 4, "units": 6}, rnn_als, newest_kind, _POOLING, history=True, variants=_CELLS
    ),
    "rnn_joint": Case(
        {"dim": 4, "units": 6, "negatives": 0},  # all ids: nothing is drawn
        rnn_als,
        newest_kind,
        _POOLING,
        history=True,
        variants=_CELLS,
    ),
    "dien": Case(
        {**_DEEP, "auxiliary_weight": 0.0},  # of what is drawn
        dien,
        newest_kind,
        _POOLING,
        history=True,
        variants=({"evolution": "agru"}, {"evolution": "aigru"}, {"activation": "relu"}),
    ),
    "bst": Case(
        {**_DEEP, "heads": 2, "activation": "prelu"},
        bst,
        newest_odd,
        _POOLING,
        history=True,
        variants=({"blocks": 2}, {"activation": "dice"}),
    ),
    "transformer_joint": Case(
        {**_DEEP, "heads": 2, "negatives": 0, "activation": "prelu"},
        transformer_joint,
        newest_odd,
        _POOLING,
        history=True,
        variants=({"blocks": 2}, {"activation": "dice"}),
    ),
}
