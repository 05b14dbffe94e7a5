"""Metrics of predicted probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score

Array = np.ndarray[Any, Any]


def gauc(labels: Array, scores: Array, groups: Array, weights: Array | None = None) -> float | None:
    """AUC of every group, averaged by its impressions.

    Groups whose labels are all equal have no AUC and are left out.

    Source: Zhu et al. 2017, Optimized Cost per Click in Taobao Display Advertising, section 5.1.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,) in any monotone scale.
        groups: (n,) whom each belongs to; users, mostly.
        weights: (n,) what an impression counts; 1 each unless given.

    Returns:
        The average, or None where no group has both labels.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]])
    total = impressions = 0.0
    for members in np.split(order, starts[1:]):
        positive = labels[members] > 0.5
        n_positive, n_negative = positive.sum(), (~positive).sum()
        if n_positive and n_negative:
            ranks = rankdata(scores[members])
            above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
            weight = weights[members].sum()
            total += weight * above / (n_positive * n_negative)
            impressions += weight
    return float(total / impressions) if impressions else None


def binary_metrics(
    labels: Array, probabilities: Array, users: Array | None, weights: Array
) -> dict[str, float | None]:
    """Metrics of a binary task. Missing labels (NaN) are left out.

    Args:
        labels: (n,) 0, 1 or NaN.
        probabilities: (n,) predicted.
        users: (n,) for GAUC; None where the data have no users.
        weights: (n,) of the examples.

    Returns:
        `auc`, `log_loss`, `gauc`, `calibration` (mean prediction over mean label); None where a
        metric does not exist, as AUC where all labels are equal.
    """
    known = np.isfinite(labels)
    labels, probabilities, weights = labels[known], probabilities[known], weights[known]
    both = len(np.unique(labels)) == 2
    positives = float(np.average(labels, weights=weights)) if weights.sum() else 0.0
    return {
        "auc": float(roc_auc_score(labels, probabilities, sample_weight=weights)) if both else None,
        "log_loss": float(
            log_loss(labels, probabilities.astype(np.float64), sample_weight=weights, labels=[0, 1])
        )
        if len(labels)
        else None,
        "gauc": None if users is None else gauc(labels, probabilities, users[known], weights),
        "calibration": float(np.average(probabilities, weights=weights) / positives)
        if positives
        else None,
    }


def regression_metrics(labels: Array, values: Array, weights: Array) -> dict[str, float | None]:
    """`rmse` and `mae` of a regression task. Missing labels (NaN) are left out."""
    known = np.isfinite(labels)
    errors, weights = values[known] - labels[known], weights[known]
    if not weights.sum():
        return {"rmse": None, "mae": None}
    return {
        "rmse": float(np.sqrt(np.average(np.square(errors), weights=weights))),
        "mae": float(np.average(np.abs(errors), weights=weights)),
    }
