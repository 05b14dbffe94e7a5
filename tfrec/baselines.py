"""What needs no model, to be measured beside one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data import evaluation_batches, readable
from tfrec.features import Features
from tfrec.metrics import Array

BATCH_SIZE = 4096
SMOOTHING = 10.0  # ratings of the global mean that the item mean begins with

# Gives served values by task, (n,) each, from the inputs and the keys of a batch.
Scorer = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Array]]


def baselines(directory: str | Path, features: Features) -> dict[str, Scorer]:
    """Baselines by name.

    `global mean`: the training split's mean label. `item mean`: the item's mean label there,
    smoothed by 10 labels of the global mean.

    Args:
        directory: of the data set.
        features: with the tasks to measure.
    """
    tasks = [label.name for label in features.labels]
    # Of every task, the sums of the weighted labels and of the weights.
    sums: dict[bytes, Array] = defaultdict(lambda: np.zeros((len(tasks), 2)))
    batches = evaluation_batches(directory, features, "train", BATCH_SIZE)
    for _, labels, weights, keys in readable(batches, directory):
        items, index = np.unique(keys["item"].numpy(), return_inverse=True)
        for number, task in enumerate(tasks):
            values, weight = labels[task].numpy(), weights.numpy()
            weight = np.where(np.isfinite(values), weight, 0)
            terms = np.where(weight, values * weight, 0)
            of_items = zip(
                np.bincount(index, terms, len(items)),
                np.bincount(index, weight, len(items)),
                strict=True,
            )
            for item, pair in zip(items, of_items, strict=True):
                sums[item][number] += pair
    label, weight = np.sum(list(sums.values()), axis=0).T
    means = np.divide(label, weight, out=np.zeros(len(tasks)), where=weight > 0)
    of_item = {
        item: (pairs[:, 0] + SMOOTHING * means) / (pairs[:, 1] + SMOOTHING)
        for item, pairs in sums.items()
    }

    def global_mean(inputs: dict[str, Any], keys: dict[str, Any]) -> dict[str, Array]:
        count = len(keys["item"])
        return {task: np.full(count, mean) for task, mean in zip(tasks, means, strict=True)}

    def item_mean(inputs: dict[str, Any], keys: dict[str, Any]) -> dict[str, Array]:
        values = np.array([of_item.get(item, means) for item in keys["item"].numpy()])
        return dict(zip(tasks, values.T, strict=True))

    found: dict[str, Scorer] = {"global mean": global_mean}
    return found | ({"item mean": item_mean} if features.item_key else {})
