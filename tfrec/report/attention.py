"""What a model with attention looks at, by examples."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tfrec.features import Features, History
from tfrec.metrics import Array
from tfrec.models.base import Inputs, Model
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.report.names import Names

EXAMPLES = 4
_EVENTS = 5  # of a history that is worth to be shown
_ROWS = 512  # among which examples are looked for


@dataclass(frozen=True)
class Attended:
    """Weights of one example, the greatest first.

    Attributes:
        title: the candidate; models of all items have none.
        weights: event of the history, and its weight.
    """

    title: str
    weights: list[tuple[str, float]]


@dataclass(frozen=True)
class Attention:
    """What a model attends to.

    Attributes:
        examples: by history.
        pairs: mean weights of pairs of fields, the greatest first, where these are attended to.
    """

    examples: dict[str, list[Attended]]
    pairs: list[tuple[str, float]]


def attention(model: Model, features: Features, inputs: Inputs, names: Names) -> Attention | None:
    """What the model attends to in some examples; None where it has no attention.

    Args:
        model: with its weights.
        features: of the data set.
        inputs: of examples in random order.
        names: of ids.
    """
    if type(model).explain is Model.explain:
        return None
    few = {name: value[:_ROWS] for name, value in inputs.items()}
    found = {name: weights.numpy() for name, weights in model.explain(few).items()}
    histories = {f"attention_{history.name}": history for history in features.histories}
    examples = {
        histories[name].name: _examples(
            features, histories[name], weights, few, names, isinstance(model, RetrievalModel)
        )
        for name, weights in found.items()
        if name in histories
    }
    fields = [*(f.name for f in features.categories), *(f.name for f in features.numbers)]
    pairs = [f"{a} × {b}" for a, b in itertools.combinations(fields, 2)]
    of_pairs = found.get("attention", np.zeros((1, 0)))
    means = of_pairs.mean(axis=0).tolist() if of_pairs.shape[1] == len(pairs) else []
    return Attention(
        {name: some for name, some in examples.items() if some},
        sorted(zip(pairs, means, strict=False), key=lambda pair: -pair[1]),
    )


def _examples(
    features: Features,
    history: History,
    weights: Array,
    inputs: Inputs,
    names: Names,
    of_items: bool,
) -> list[Attended]:
    """The first ones that have some events."""
    event = history.mask_feature
    ids, called = inputs[event.name].numpy(), names.of(event.table)
    candidate = features.feature(str(event.mirrors))
    candidates = names.of(candidate.table)[inputs[candidate.name].numpy()]
    if of_items:  # what comes next is what they look for
        candidates = np.full(len(ids), "the next item", object)
    found = []
    for row in np.flatnonzero((ids != 0).sum(axis=1) >= _EVENTS)[:EXAMPLES]:
        real = np.flatnonzero(ids[row])
        order = real[np.argsort(-weights[row, real], kind="stable")]
        pairs = [(str(called[ids[row, e]]), float(weights[row, e])) for e in order]
        found.append(Attended(str(candidates[row]), pairs))
    return found
