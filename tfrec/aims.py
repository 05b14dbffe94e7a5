"""What is better of a figure. No NumPy: declarations are checked by it."""

from __future__ import annotations

from math import inf
from typing import Any

# More is better, or less, or being near a number. Of novelty and popularity nobody can say.
_AIMS = {
    **dict.fromkeys(("auc", "pr_auc", "gauc", "r2", "hr", "recall", "ndcg", "map", "mrr"), inf),
    "coverage": inf,
    **dict.fromkeys(("log_loss", "normalised_entropy", "ece", "rmse", "mae"), -inf),
    "calibration": 1.0,
    "bias": 0.0,
}
AIMED = tuple(_AIMS)
METRICS = (*AIMED, "novelty", "popularity_lift")  # all, without their cutoffs


def aim(metric: str) -> float | None:
    """What the best value of a figure is: ±inf or a number; None where there is no such thing.

    Args:
        metric: such as `auc` or `ndcg@10`.
    """
    return _AIMS.get(metric.split("@")[0])


def badness(metric: str, values: Any) -> Any:
    """Values of a figure that has an aim, turned so that less is better.

    Args:
        metric: such as `auc` or `ndcg@10`.
        values: a float, or an array of any shape.
    """
    best = aim(metric)
    if best == inf:
        return -values
    return values if best == -inf else abs(values - best)
