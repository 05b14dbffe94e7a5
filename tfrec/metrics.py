"""Figures of predicted values, from how scores are distributed over the labels.

What is known of a binary task's scores is their distribution: distinct scores in rising order, and
the weights of negatives and positives at each. Every figure but GAUC follows from it, whether the
scores are all that there were or the bins of a histogram, and of many resamplings at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CURVE_BINS = 20
_SMALLEST = np.finfo(np.float64).eps  # that a probability is away from 0 and 1 in a logarithm


def auc(counts: Array) -> Array:
    """Area under the ROC curve; equal scores count by half.

    Args:
        counts: (..., scores, 2) weights of negatives and positives, by rising score.

    Returns:
        (...), NaN where there are no negatives or no positives.
    """
    negatives, positives = counts[..., 0], counts[..., 1]
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    return _ratio((positives * below).sum(-1), negatives.sum(-1) * positives.sum(-1))


def pr_auc(counts: Array) -> Array:
    """Average precision: the mean of the precision over the recall, in steps.

    Args:
        counts: (..., scores, 2) weights of negatives and positives, by rising score.

    Returns:
        (...), NaN where there are no negatives or no positives.
    """
    ahead = np.cumsum(counts[..., ::-1, :], axis=-2)
    precision = _ratio(ahead[..., 1], ahead.sum(-1), 0.0)
    negatives, positives = counts[..., 0].sum(-1), counts[..., 1].sum(-1)
    found = (precision * counts[..., ::-1, 1]).sum(-1)
    return np.where(negatives > 0, _ratio(found, positives), np.nan)


def reliability(scores: Array, counts: Array) -> tuple[Array, Array, Array]:
    """What is predicted and what comes true, from the lowest scores to the highest.

    Args:
        scores: (scores,) rising probabilities.
        counts: (..., scores, 2) weights of negatives and positives.

    Returns:
        Weight, mean prediction and mean label, each (..., 20), of bins of equal weight; equal
        scores are in one bin, so that bins may be empty (their means are NaN).
    """
    total = counts.sum(-1).reshape(math.prod(counts.shape[:-2]), len(scores))
    middle = np.cumsum(total, axis=1) - total / 2
    place = np.nan_to_num(_ratio(CURVE_BINS * middle, total.sum(1, keepdims=True))).astype(int)
    place = np.minimum(place, CURVE_BINS - 1) + CURVE_BINS * np.arange(len(total))[:, np.newaxis]
    shape = (*counts.shape[:-2], CURVE_BINS)

    def by_bin(values: Array) -> Array:
        sums = np.bincount(place.ravel(), values.ravel(), CURVE_BINS * len(total))
        return sums.reshape(shape)

    weight = by_bin(total)
    positives = by_bin(counts[..., 1].reshape(total.shape))
    return weight, _ratio(by_bin(total * scores), weight), _ratio(positives, weight)


def binary_figures(scores: Array, counts: Array) -> dict[str, Array]:
    """All figures of a distribution of scores.

    Args:
        scores: (scores,) rising probabilities.
        counts: (..., scores, 2) weights of negatives and positives.

    Returns:
        By name (...), NaN where a figure does not exist: `auc`, `pr_auc`, `log_loss`,
        `normalised_entropy` (the log loss over that of always saying the mean label: He et al.
        2014, section 3), `calibration` (mean prediction over mean label) and `ece` (mean distance
        between prediction and label in 20 bins of equal weight: Naeini et al. 2015).
    """
    negatives, positives = counts[..., 0].sum(-1), counts[..., 1].sum(-1)
    total = negatives + positives
    clipped = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    surprise = counts[..., 0] @ -np.log1p(-clipped) + counts[..., 1] @ -np.log(clipped)
    log_loss = _ratio(surprise, total)
    rate = np.clip(_ratio(positives, total), _SMALLEST, 1 - _SMALLEST)
    entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    both = (negatives > 0) & (positives > 0)
    weight, predicted, observed = reliability(scores, counts)
    distance = np.nansum(weight * np.abs(predicted - observed), axis=-1)
    return {
        "auc": auc(counts),
        "pr_auc": pr_auc(counts),
        "log_loss": log_loss,
        "normalised_entropy": np.where(both, _ratio(log_loss, entropy), np.nan),
        "calibration": _ratio(counts.sum(-1) @ scores, positives),
        "ece": _ratio(distance, total),
    }


def regression_figures(sums: dict[str, Array]) -> dict[str, Array]:
    """Figures of a regression.

    Args:
        sums: weighted sums, (...) each: `weight`, of the `label` and its `label_square`, of the
            `error` (prediction less label), its `square` and its `absolute`.

    Returns:
        By name (...), NaN where a figure does not exist: `rmse`, `mae`, `bias` (the mean error) and
        `r2` (1 less the squared error over that of always saying the mean label).
    """
    weight = sums["weight"]
    spread = sums["label_square"] - _ratio(sums["label"] ** 2, weight)
    some = spread > 1e-9 * np.abs(sums["label_square"])  # less of it is rounding
    return {
        "rmse": np.sqrt(_ratio(sums["square"], weight)),
        "mae": _ratio(sums["absolute"], weight),
        "bias": _ratio(sums["error"], weight),
        "r2": 1 - np.where(some, _ratio(sums["square"], spread), np.nan),
    }


def auc_by_group(labels: Array, scores: Array, weights: Array, groups: Array) -> Array:
    """AUC of every group; equal scores count by half.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,) in any monotone scale.
        weights: (n,) of the examples; a pair of examples weighs their product.
        groups: (n,) numbers from 0 on of the groups.

    Returns:
        (groups,), NaN where all labels are equal.
    """
    size = int(groups.max(initial=-1)) + 1
    order = np.lexsort((scores, groups))
    groups, scores = groups[order], scores[order]
    positive = weights[order] * (labels[order] > 0.5)
    negative = weights[order] - positive
    # Levels are equal scores of one group. What is below one: all that is sorted before it, less
    # the groups before.
    new = np.r_[True, (np.diff(groups) != 0) | (np.diff(scores) != 0)][: len(order)]
    level, of_level = np.cumsum(new) - 1, groups[new]
    positives, negatives = (np.bincount(level, w, len(of_level)) for w in (positive, negative))
    whole = np.bincount(of_level, negatives, size)
    below = np.cumsum(negatives) - negatives / 2 - (np.cumsum(whole) - whole)[of_level]
    above = np.bincount(of_level, positives * below, size)
    return _ratio(above, np.bincount(of_level, positives, size) * whole)


def _ratio(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    """`above / below`, where `below` is positive."""
    above, below = np.broadcast_arrays(above, below)
    full = np.full(above.shape, otherwise, np.float64)
    return np.divide(above, below, out=full, where=below > 0)
