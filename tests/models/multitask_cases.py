"""Cases of the models of several tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models import reference
from tests.models.case import Case
from tests.models.planted import clicks_and_purchases, conflict, two_interactions
from tests.support import CLICKS, TASKS, Arrays


def _fields(model: Any, inputs: Arrays) -> Any:
    return reference.fields(reference.vectors(model.embeddings, inputs), inputs)


def _towers(model: Any, of_tasks: list[Any]) -> Any:
    names = [label.name for label in model.features.labels]
    towers = [model.towers[name] for name in names]
    scores = [reference.mlp(t, x)[:, 0] for t, x in zip(towers, of_tasks, strict=True)]
    return np.stack(scores, axis=1)


def shared_bottom(model: Any, inputs: Arrays) -> Any:
    return _towers(model, [reference.mlp(model.bottom, _fields(model, inputs))] * 2)


def moe(model: Any, inputs: Arrays) -> Any:
    x = _fields(model, inputs)
    experts = [reference.expert(model.experts, i, x) for i in range(model.experts.dense[0].experts)]
    return _towers(model, [reference.mixture(model.gate, x, experts)] * 2)


def mmoe(model: Any, inputs: Arrays) -> Any:
    x = _fields(model, inputs)
    experts = [reference.expert(model.experts, i, x) for i in range(model.experts.dense[0].experts)]
    gates = [model.task_gates[label.name] for label in model.features.labels]
    return _towers(model, [reference.mixture(gate, x, experts) for gate in gates])


def ple(model: Any, inputs: Arrays) -> Any:
    each, shared = (model.hyperparameters[f"{kind}_experts"] for kind in ("task", "shared"))
    x = _fields(model, inputs)
    of_tasks, of_all = [x, x], x
    for number, level in enumerate(model.levels):
        own = [
            [reference.expert(level.own, task * each + i, of_tasks[task]) for i in range(each)]
            for task in range(2)
        ]
        common = [reference.expert(level.shared, i, of_all) for i in range(shared)]
        mixed = [
            reference.mixture(level.gates[task], of_tasks[task], own[task] + common)
            for task in range(2)
        ]
        if number < len(model.levels) - 1:
            of_all = reference.mixture(level.gates[2], of_all, own[0] + own[1] + common)
        of_tasks = mixed
    return _towers(model, of_tasks)


def esmm(model: Any, inputs: Arrays) -> Any:
    x = _fields(model, inputs)
    scores = (reference.mlp(tower, x)[:, 0] for tower in (model.click, model.conversion))
    click, after = map(reference.sigmoid, scores)
    both = click * after
    return np.stack([np.log(p / (1 - p)) for p in (click, both)], axis=1)


_DEEP: dict[str, Any] = {"dim": 4, "hidden": [8], "tower": [4], "dropout": 0.0}
_OF_MLP: dict[str, Any] = {"batch_norm": True, "activation": "prelu"}
_LAYERS: tuple[dict[str, Any], ...] = ({"hidden": [8, 6], "tower": []}, _OF_MLP)
_LINEAR: dict[str, Any] = {"dim": 4, "hidden": [], "tower": [], "dropout": 0.0}
# All tasks have to do with two numbers of the shared MLP, which has more weights than all experts.
_NARROW: dict[str, Any] = {"dim": 4, "tower": [4], "activation": "tanh", "dropout": 0.0}
_CONFLICT = ("shared_bottom", {**_NARROW, "hidden": [160, 2]})

MULTITASK_CASES: dict[str, Case] = {
    "shared_bottom": Case(
        _DEEP,
        shared_bottom,
        two_interactions,
        ("shared_bottom", _LINEAR),
        variants=_LAYERS,
        features=TASKS,
    ),
    "moe": Case(
        {**_DEEP, "experts": 3},
        moe,
        two_interactions,
        ("shared_bottom", _LINEAR),
        variants=_LAYERS,
        features=TASKS,
    ),
    "mmoe": Case(
        {**_NARROW, "hidden": [16, 2], "experts": 8},
        mmoe,
        conflict,
        _CONFLICT,
        variants=_LAYERS,
        features=TASKS,
    ),
    "ple": Case(
        {**_NARROW, "hidden": [16, 2], "task_experts": 2, "shared_experts": 2},
        ple,
        conflict,
        _CONFLICT,
        variants=({"levels": 1}, {"levels": 3, "shared_experts": 1}, *_LAYERS),
        features=TASKS,
    ),
    "esmm": Case(
        {"dim": 4, "hidden": [8], "dropout": 0.0},
        esmm,
        clicks_and_purchases,
        ("esmm", {"dim": 4, "hidden": [], "dropout": 0.0}),
        variants=({"hidden": [8, 6]}, _OF_MLP),
        features=CLICKS,
    ),
}
