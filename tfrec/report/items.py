"""A model's vectors of items, in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrec.catalogue import load
from tfrec.data import load_transform
from tfrec.features import Features
from tfrec.layers.embedding import Embeddings
from tfrec.metrics import Array
from tfrec.models.base import Model
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.report.names import Names

MOST = 500  # items that are shown, those with most training events
_LEAST = 10
GROUPS = 6
_NEAR, _OF = 3, 10  # neighbours, of so many items


@dataclass(frozen=True)
class ItemMap:
    """Items by their vectors.

    Attributes:
        points: (n, 2) of the items with most training events, the most frequent first.
        titles: of the items.
        feature: that tells their groups; "" where there is none.
        groups: names of them.
        group: of every item; `len(groups)` for others.
        near: nearest items by the cosine of the vectors, of the first ones.
    """

    points: Array
    titles: list[str]
    feature: str
    groups: list[str]
    group: list[int]
    near: list[list[str]]


def item_map(
    model: Model, directory: str | Path, features: Features, names: Names
) -> ItemMap | None:
    """The model's items; None where it has no vector for each of them.

    Args:
        model: with its weights.
        directory: of the data set.
        features: of it.
        names: of ids.
    """
    vectors = _vectors(model, features)
    if vectors is None or len(vectors) < _LEAST:
        return None
    from sklearn.manifold import TSNE

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (len(unit) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(unit)
    table = features.feature(str(features.item_id)).table
    titles = [str(title) for title in names.of(table)[1 : 1 + len(unit)]]
    similar = unit[:_OF] @ unit.T
    np.fill_diagonal(similar, -np.inf)
    near = [[titles[i] for i in order] for order in np.argsort(-similar, axis=1)[:, :_NEAR]]
    return ItemMap(points, titles, *_groups(directory, features, names, len(unit)), near)


def _vectors(model: Model, features: Features) -> Array | None:
    """(n, width) float32 of the most frequent items, whose ids are 1 … n."""
    if isinstance(model, RetrievalModel):
        return model.index()[:MOST].numpy()
    if not features.item_id:
        return None
    table = features.table(features.feature(features.item_id).table)
    for layer in model.submodules if table.learned else ():
        if isinstance(layer, Embeddings) and table.name in layer.tables:
            rows = layer.tables[table.name].table.numpy()
            return rows[1 : 1 + min(MOST, table.vocabulary)]
    return None


def _groups(
    directory: str | Path, features: Features, names: Names, count: int
) -> tuple[str, list[str], list[int]]:
    """Feature, names and numbers of groups: by the first value of the first other category."""
    others = [
        feature
        for feature in features.of_role("item")
        if feature.kind == "category" and feature.name != features.item_id
    ]
    if not others:
        return "", [], [0] * count
    feature = others[0]
    inputs = load(directory, features).inputs(load_transform(directory))
    ids = inputs[feature.name].numpy().reshape(-1, feature.length or 1)[:count, 0]
    values, counts = np.unique(ids[ids != 0], return_counts=True)
    chosen = values[np.argsort(-counts, kind="stable")[:GROUPS]].tolist()
    called = names.of(feature.table)
    group = [chosen.index(i) if i in chosen else len(chosen) for i in ids.tolist()]
    return feature.name, [str(called[i]) for i in chosen], group
