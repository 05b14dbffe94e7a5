"""What the harness needs to know of every model: small settings, its equation, its structure."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.history_cases import HISTORY_CASES
from tests.models.planted import additive, history_match, interaction
from tests.support import Arrays


def lr(model: Any, inputs: Arrays) -> Any:
    return reference.linear(model.linear, inputs)


def dnn(model: Any, inputs: Arrays) -> Any:
    fields = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    return reference.mlp(model.mlp, fields)[:, 0]


def wide_deep(model: Any, inputs: Arrays) -> Any:
    fields = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    return reference.linear(model.wide, inputs) + reference.mlp(model.deep, fields)[:, 0]


def deepfm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    pairs = sum(
        (fields[:, i] * fields[:, j]).sum(axis=1) for i in range(5) for j in range(i + 1, 5)
    )
    deep = reference.mlp(model.mlp, fields.reshape(len(fields), -1))[:, 0]
    return reference.linear(model.linear, {**inputs, "user_x_tags": None}) + pairs + deep


def din(model: Any, inputs: Arrays) -> Any:
    vectors = reference.vectors(model.embeddings, inputs)
    price = inputs["price"][:, np.newaxis]
    candidate = np.concatenate([vectors["item"], vectors["tags"], price], axis=1)
    prices = inputs["liked_price"][..., np.newaxis]
    events = np.concatenate([vectors["liked_item"], vectors["liked_tags"], prices], axis=2)
    mask = inputs["liked_item"] != 0
    weights = reference.attention(model.units["liked"], events, candidate, mask)
    pooled = (weights[..., np.newaxis] * events).sum(axis=1)
    fields = reference.fields(vectors, inputs)
    return reference.mlp(model.mlp, np.concatenate([fields, pooled], axis=1))[:, 0]


_DEEP: dict[str, Any] = {"dim": 4, "hidden": [8], "dropout": 0.0}

CASES: dict[str, Case] = {
    "lr": Case({}, lr, additive, None, variants=({"crosses": False},)),
    "dnn": Case(_DEEP, dnn, interaction, ("lr", {"crosses": False})),
    "wide_deep": Case(_DEEP, wide_deep, interaction, ("lr", {"crosses": False})),
    "deepfm": Case(_DEEP, deepfm, interaction, ("lr", {"crosses": False})),
    "din": Case(
        {**_DEEP, "attention_hidden": [6]},
        din,
        history_match,
        ("dnn", _DEEP),
        history=True,
        variants=({"softmax": True}, {"activation": "relu"}),
    ),
    **HISTORY_CASES,
}
