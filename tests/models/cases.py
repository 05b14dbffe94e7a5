"""What the harness needs to know of every model: small settings, its equation, its structure."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.history_cases import HISTORY_CASES
from tests.models.multitask_cases import MULTITASK_CASES
from tests.models.nextitem_cases import NEXT_ITEM_CASES
from tests.models.planted import additive, history_match, interaction
from tests.models.retrieval_cases import RETRIEVAL_CASES
from tests.support import Arrays

PAIRS = list(itertools.combinations(range(5), 2))  # of the fields of tests.support.FEATURES


def flat(fields: Any) -> Any:
    return fields.reshape(len(fields), -1)


def lr(model: Any, inputs: Arrays) -> Any:
    return reference.linear(model.linear, inputs)


def dnn(model: Any, inputs: Arrays) -> Any:
    fields = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    return reference.mlp(model.mlp, fields)[:, 0]


def wide_deep(model: Any, inputs: Arrays) -> Any:
    fields = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    pairs = reference.hashed_pairs(model.pairs, inputs) if model.pairs else 0
    return reference.linear(model.wide, inputs) + pairs + reference.mlp(model.deep, fields)[:, 0]


def deepfm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    pairs = sum((fields[:, i] * fields[:, j]).sum(axis=1) for i, j in PAIRS)
    deep = reference.mlp(model.mlp, flat(fields))[:, 0]
    return reference.linear(model.linear, inputs) + pairs + deep


def poly2(model: Any, inputs: Arrays) -> Any:
    return reference.linear(model.linear, inputs) + reference.hashed_pairs(model.pairs, inputs)


def fm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    pairs = sum((fields[:, i] * fields[:, j]).sum(axis=1) for i, j in PAIRS)
    return reference.linear(model.linear, inputs) + pairs


def ffm(model: Any, inputs: Arrays) -> Any:
    v = reference.field_aware(model.embeddings, inputs)
    pairs = sum((v[:, i, j] * v[:, j, i]).sum(axis=1) for i, j in PAIRS)
    return reference.linear(model.linear, inputs) + pairs


def fnn(model: Any, inputs: Arrays) -> Any:
    fields = flat(reference.field_matrix(model.embeddings, inputs))
    terms = reference.terms(model.first_order, inputs)
    return reference.mlp(model.mlp, np.concatenate([terms, fields], axis=1))[:, 0]


def fnn_plus(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    interaction = fields.sum(axis=1) ** 2 - (fields**2).sum(axis=1)
    return reference.mlp(model.mlp, interaction)[:, 0]


def nfm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    pooled = sum(fields[:, i] * fields[:, j] for i, j in PAIRS)
    if model.norm:
        pooled = reference.batch_norm(model.norm, pooled)
    return reference.linear(model.linear, inputs) + reference.mlp(model.mlp, pooled)[:, 0]


def pnn(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    signals = [flat(fields)]
    if model.product in ("inner", "both"):
        signals += [(fields[:, i] * fields[:, j]).sum(axis=1, keepdims=True) for i, j in PAIRS]
    if model.product in ("outer", "both"):
        places = [(i, j) for i in range(5) for j in range(5)]
        signals.append(flat(sum(fields[:, i, :, None] * fields[:, j, None] for i, j in places)))
    return reference.mlp(model.mlp, np.concatenate(signals, axis=1))[:, 0]


def onn(model: Any, inputs: Arrays) -> Any:
    v = reference.field_aware(model.embeddings, inputs)
    signals = [v[:, i, i] for i in range(5)]
    signals += [(v[:, i, j] * v[:, j, i]).sum(axis=1, keepdims=True) for i, j in PAIRS]
    return reference.mlp(model.mlp, np.concatenate(signals, axis=1))[:, 0]


def deep_crossing(model: Any, inputs: Arrays) -> Any:
    x = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    for unit in model.units:
        inner = np.maximum(reference.dense(unit.inner, x), 0)
        x = np.maximum(x + reference.dense(unit.outer, inner), 0)
    return reference.dense(model.scoring, x)[:, 0]


def embedding_cnn(model: Any, inputs: Arrays) -> Any:
    x = reference.field_matrix(model.embeddings, inputs).transpose(0, 2, 1)
    for layer in model.convolutions:
        x = reference.convolution(layer, x)
    return reference.mlp(model.mlp, flat(x))[:, 0]


def xdeepfm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    explicit = reference.dense(model.cin_output, reference.cin(model.cin, fields))[:, 0]
    implicit = reference.mlp(model.mlp, flat(fields))[:, 0]
    return reference.linear(model.linear, inputs) + explicit + implicit


def afm(model: Any, inputs: Arrays) -> Any:
    fields = reference.field_matrix(model.embeddings, inputs)
    result = reference.linear(model.linear, inputs)
    for row, v in enumerate(fields):
        pairs = np.stack([v[i] * v[j] for i, j in PAIRS])
        hidden = np.maximum(reference.dense(model.attention.inner, pairs), 0)
        attention = reference.softmax(reference.dense(model.attention.score, hidden)[:, 0])
        pooled = sum(a * pair for a, pair in zip(attention, pairs, strict=True))
        result[row] += (pooled @ model.projection.kernel.numpy())[0]
    return result


def dcn(model: Any, inputs: Arrays) -> Any:
    x0 = x = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    for layer in model.crosses:
        w, b = layer.kernel.numpy()[:, 0], layer.bias.numpy()
        x = np.stack([a * (c @ w) + b + c for a, c in zip(x0, x, strict=True)])
    joined = np.concatenate([x, reference.mlp(model.mlp, x0)], axis=1)
    return reference.dense(model.joined, joined)[:, 0]


def dcn_v2(model: Any, inputs: Arrays) -> Any:
    x0 = x = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    for layer in model.crosses:
        x = reference.matrix_cross(layer, x0, x)
    if model.structure == "stacked":
        return reference.dense(model.joined, reference.mlp(model.mlp, x))[:, 0]
    joined = np.concatenate([x, reference.mlp(model.mlp, x0)], axis=1)
    return reference.dense(model.joined, joined)[:, 0]


def dlrm(model: Any, inputs: Arrays) -> Any:
    embedded = reference.vectors(model.embeddings, inputs)
    numbers = reference.mlp(model.bottom, np.stack([inputs["age"], inputs["price"]], axis=1))
    e = [numbers, embedded["user"], embedded["item"], embedded["tags"]]
    products = [
        (e[i] * e[j]).sum(axis=1, keepdims=True) for i, j in itertools.combinations(range(4), 2)
    ]
    return reference.mlp(model.top, np.concatenate([numbers, *products], axis=1))[:, 0]


def graph_fm(model: Any, inputs: Arrays) -> Any:
    nodes = reference.field_matrix(model.embeddings, inputs)
    result = reference.linear(model.linear, inputs)
    result += reference.dense(model.scores[0], nodes.mean(axis=1))[:, 0]
    for layer, score in zip(model.graph, model.scores[1:], strict=True):
        nodes = reference.graph_interaction(layer, nodes)
        result += reference.dense(score, nodes.mean(axis=1))[:, 0]
    return result


def youtube_ranking(model: Any, inputs: Arrays) -> Any:
    fields = reference.fields(reference.vectors(model.embeddings, inputs), inputs)
    numbers = np.stack([inputs["age"], inputs["price"]], axis=1)
    roots = np.where(numbers < 0, -1, 1) * np.sqrt(np.abs(numbers))
    wide = reference.linear(model.wide, inputs) if model.wide else 0
    return (
        wide + reference.mlp(model.mlp, np.concatenate([fields, numbers**2, roots], axis=1))[:, 0]
    )


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

_NO_PAIRS = ("lr", {"crosses": False})
_OF_MLP: dict[str, Any] = {"batch_norm": True, "activation": "prelu"}

CASES: dict[str, Case] = {
    "lr": Case({}, lr, additive, None, variants=({"crosses": False},)),
    "poly2": Case({"buckets": 5_000}, poly2, interaction, _NO_PAIRS),
    "fm": Case({"dim": 4}, fm, interaction, _NO_PAIRS, variants=({"crosses": False},)),
    "ffm": Case({"dim": 3}, ffm, interaction, _NO_PAIRS),
    "fnn": Case(
        _DEEP, fnn, interaction, _NO_PAIRS, variants=(_OF_MLP, {"frozen": True}, {"crosses": False})
    ),
    "fnn_plus": Case(_DEEP, fnn_plus, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "nfm": Case(_DEEP, nfm, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "pnn": Case(
        _DEEP,
        pnn,
        interaction,
        _NO_PAIRS,
        variants=({"product": "outer"}, {"product": "both"}, _OF_MLP),
    ),
    "onn": Case({**_DEEP, "dim": 3}, onn, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "dnn": Case(_DEEP, dnn, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "deep_crossing": Case(
        {"dim": 4, "hidden": [8, 6], "dropout": 0.0}, deep_crossing, interaction, _NO_PAIRS
    ),
    "embedding_cnn": Case(
        {**_DEEP, "filters": [6]},
        embedding_cnn,
        interaction,
        _NO_PAIRS,
        variants=({"filters": [6, 5], "kernel": 2}, _OF_MLP),
    ),
    "wide_deep": Case(
        {**_DEEP, "buckets": 5_000},
        wide_deep,
        interaction,
        _NO_PAIRS,
        variants=({"wide": "poly2"}, {"wide": "both"}, _OF_MLP),
    ),
    "deepfm": Case(_DEEP, deepfm, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "xdeepfm": Case(
        {**_DEEP, "maps": [5, 4]},
        xdeepfm,
        interaction,
        _NO_PAIRS,
        variants=({"split_half": True, "cin_activation": "relu"}, _OF_MLP),
    ),
    "afm": Case({"dim": 4, "attention": 3, "dropout": 0.0}, afm, interaction, _NO_PAIRS),
    "dcn": Case({**_DEEP, "layers": 2}, dcn, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    "dcn_v2": Case(
        {**_DEEP, "layers": 2},
        dcn_v2,
        interaction,
        _NO_PAIRS,
        variants=(
            {"rank": 3},
            {"rank": 3, "experts": 2},
            {"structure": "stacked"},
            _OF_MLP,
        ),
    ),
    "dlrm": Case({**_DEEP, "bottom": [6]}, dlrm, interaction, _NO_PAIRS, variants=(_OF_MLP,)),
    # All edges, as the choice of some jumps with the last digit of a weight.
    "graph_fm": Case(
        {"dim": 4, "neighbours": [20, 10], "heads": 2, "dropout": 0.0},
        graph_fm,
        interaction,
        _NO_PAIRS,
        variants=({"neighbours": [3, 2]}, {"neighbours": [2], "heads": 1}),
    ),
    "youtube_ranking": Case(
        _DEEP, youtube_ranking, interaction, _NO_PAIRS, variants=({"wide": True}, _OF_MLP)
    ),
    "din": Case(
        {**_DEEP, "attention_hidden": [6]},
        din,
        history_match,
        ("dnn", _DEEP),
        history=True,
        variants=({"softmax": True}, {"activation": "relu"}),
    ),
    **HISTORY_CASES,
    **MULTITASK_CASES,
    **RETRIEVAL_CASES,
    **NEXT_ITEM_CASES,
}
