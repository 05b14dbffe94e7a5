"""What a model loses when it is told the values of another example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy.stats import t

from tfrec.features import Features
from tfrec.models.base import Inputs
from tfrec.validation import Metrics, Monitored

REPEATS = 5
_QUANTILE = float(t.ppf(0.975, REPEATS - 1))

# Changes the inputs of a batch.
Change = Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class Importance:
    """What a part of the inputs is to a task.

    Attributes:
        name: of the feature, the history or the cross.
        loss: how much worse the metric gets, a mean over the shuffles.
        interval: 95% of that mean.
    """

    name: str
    loss: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Importances:
    """What all parts of the inputs are to a task, the greatest first.

    Attributes:
        metric: that gets worse.
        whole: its value with nothing shuffled.
        parts: of the inputs.
    """

    metric: str
    whole: float
    parts: list[Importance]


def importances(
    features: Features,
    measure: Callable[[Change | None], Metrics],
    monitored: Monitored,
    of_items: bool = False,
) -> dict[str, Importances]:
    """Shuffles every part of the inputs over the examples, by task.

    Args:
        features: of the data set.
        measure: metrics by task after a change of the inputs; None for none.
        monitored: what models are judged by.
        of_items: whether the model scores all items, whose features are no inputs then.
    """
    before = measure(None)
    metrics = {
        task: next(((m, sign) for m, sign in signed if before[task].get(m) is not None), None)
        for task, signed in monitored.items()
    }
    chosen = {task: found for task, found in metrics.items() if found}
    parts: dict[str, list[Importance]] = {task: [] for task in chosen}
    for name, inputs in together(features, of_items).items():
        after = [measure(shuffling(inputs, seed)) for seed in range(REPEATS)]
        for task, (metric, sign) in chosen.items():
            losses = [
                sign * (_value(before, task, metric) - _value(m, task, metric)) for m in after
            ]
            mean = float(np.mean(losses))
            half = _QUANTILE * float(np.std(losses, ddof=1)) / REPEATS**0.5
            parts[task].append(Importance(name, mean, (mean - half, mean + half)))
    return {
        task: Importances(
            metric, _value(before, task, metric), sorted(parts[task], key=lambda p: -p.loss)
        )
        for task, (metric, _) in chosen.items()
    }


def together(features: Features, of_items: bool = False) -> dict[str, list[str]]:
    """Inputs that are shuffled together, by name.

    A feature goes with the crosses that it is in, which would tell it otherwise; a history goes as
    a whole. Every cross goes alone, too.

    Args:
        features: of the data set.
        of_items: leaves out what describes the example's item.
    """

    def with_crosses(names: list[str]) -> list[str]:
        return [*names, *(c.name for c in features.crosses if set(names) & set(c.parts))]

    fields = [f for f in features.features if not (of_items and f.role == "item")]
    found = {field.name: with_crosses([field.name]) for field in fields}
    for history in features.histories:
        names = [feature.name for feature in history.features]
        found[f"{history.name} (history)"] = with_crosses(names)
    if not of_items:
        found |= {" × ".join(cross.parts): [cross.name] for cross in features.crosses}
    return found


def shuffling(names: list[str], seed: int) -> Change:
    """What gives the inputs of these names the values of other rows, one row's all together."""

    def change(inputs: Inputs) -> Inputs:
        rows = len(next(iter(inputs.values())))
        order = np.random.default_rng(seed).permutation(rows)
        return {**inputs, **{name: tf.gather(inputs[name], order) for name in names}}

    return change


def _value(metrics: Mapping[str, Mapping[str, float | None]], task: str, name: str) -> float:
    value = metrics[task].get(name)
    assert value is not None  # labels are never shuffled
    return value
