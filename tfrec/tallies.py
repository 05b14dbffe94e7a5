"""What figures are made of, added up part by part in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from tfrec.bootstrap import interval
from tfrec.features import Label
from tfrec.metrics import (
    CURVE_BINS,
    Array,
    auc_by_group,
    binary_figures,
    regression_figures,
    reliability,
)

# So many distinct scores are kept as they are; of more, the log-odds are rounded to 1/2^14.
DISTINCT = 2**20
_ROUNDED = 2.0**14
# Resamplings have a histogram of the log-odds from -16 to 16.
BINS = 4096
_RANGE = 16.0

Figures = dict[str, float | None]


class Tally:
    """Sums for the figures of one task, of the whole and of every resampling.

    Args:
        replicates: number of resamplings.
        users: whether examples belong to users.
    """

    def __init__(self, replicates: int, users: bool) -> None:
        self.replicates, self.of_users = replicates, users
        self.examples = self.users = 0

    def add(self, labels: Array, scores: Array, weights: Array, users: Array, drawn: Array) -> None:
        """Adds examples; those of a user come all at once. Missing labels (NaN) are left out.

        Args:
            labels, scores, weights: (n,).
            users: (n,) int64.
            drawn: (n, replicates) how often they count.
        """
        known = np.isfinite(labels)
        if not known.all():
            labels, scores, weights = labels[known], scores[known], weights[known]
            users, drawn = users[known], drawn[known]
        if not len(labels):
            return
        _, first, group = np.unique(users, return_index=True, return_inverse=True)
        self.examples += len(labels)
        self.users += len(first)
        self._add(labels.astype(np.float64), scores.astype(np.float64), weights, group, drawn)
        if self.of_users:
            self._add_users(labels, scores, weights, group, drawn[first])

    def _add(
        self, labels: Array, scores: Array, weights: Array, group: Array, drawn: Array
    ) -> None:
        raise NotImplementedError

    def _add_users(
        self, labels: Array, scores: Array, weights: Array, group: Array, drawn: Array
    ) -> None:
        """Adds what is known of a user only when all of their examples are."""

    def figures(self) -> Figures:
        """By name; None where a figure does not exist, as AUC where all labels are equal."""
        return {name: or_none(value) for name, value in self._whole().items()}

    def _whole(self) -> dict[str, Any]:
        raise NotImplementedError

    def resampled(self) -> dict[str, Array]:
        """By name, (replicates,); NaN where a figure does not exist."""
        raise NotImplementedError

    def curve(self) -> list[dict[str, float]]:
        """Reliability curve; empty where there is none."""
        return []

    def record(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {
            "examples": self.examples,
            "users": self.users if self.of_users else None,
            **with_intervals(self.figures(), self.resampled(), self.users),
            "curve": self.curve(),
        }


class BinaryTally(Tally):
    """Of a task with labels 0 and 1, and probabilities.

    The figures are exact up to 2^20 distinct scores. Beyond these, log-odds are rounded to 1/2^14,
    so that AUC is off by no more than half of the pairs whose scores became equal, the sums of
    other figures by 1/2^15 of log-odds per example. Resamplings know scores to 1/128 of log-odds.
    """

    def __init__(self, replicates: int, users: bool) -> None:
        super().__init__(replicates, users)
        self._pending: list[tuple[Array, Array]] = [(np.zeros(0), np.zeros((0, 2)))]
        self._rows = 0  # pending
        self._rounding = False
        size = BINS if replicates else 0
        self._bins = np.zeros((2 * size, replicates), np.float32)
        self._in_bins = np.zeros((2, size))  # weights, and weighted scores
        self._by_user = np.zeros((2, 1 + replicates))  # impressions, times AUC and alone

    def _add(
        self, labels: Array, scores: Array, weights: Array, group: Array, drawn: Array
    ) -> None:
        counts = np.stack([weights * (1 - labels), weights * labels], axis=1)
        self._keep(scores, counts)
        if not self.replicates:
            return
        place = np.clip((_log_odds(scores) + _RANGE) * (BINS / _RANGE / 2), 0, BINS - 1).astype(int)
        self._in_bins[0] += np.bincount(place, weights, BINS)
        self._in_bins[1] += np.bincount(place, weights * scores, BINS)
        cells = 2 * place + (labels > 0.5)
        rows = (weights.astype(np.float32), (cells, np.arange(len(cells))))
        self._bins += csr_matrix(rows, (2 * BINS, len(cells))) @ drawn.astype(np.float32)

    def _keep(self, scores: Array, counts: Array) -> None:
        self._pending.append((scores, counts))
        self._rows += len(scores)
        if self._rows > DISTINCT:
            self._merge()

    def _merge(self) -> tuple[Array, Array]:
        """All distinct scores so far, and their counts (scores, 2)."""
        scores, counts = (np.concatenate(parts) for parts in zip(*self._pending, strict=True))
        for _ in range(2):
            if self._rounding:
                odds = np.round(np.clip(_log_odds(scores), -36, 36) * _ROUNDED) / _ROUNDED
                scores = 1 / (1 + np.exp(-odds))
            scores, index = np.unique(scores, return_inverse=True)
            counts = np.stack(
                [np.bincount(index, counts[:, k], len(scores)) for k in (0, 1)], axis=1
            )
            if self._rounding or len(scores) <= DISTINCT:
                break
            self._rounding = True
        self._pending, self._rows = [(scores, counts)], 0
        return scores, counts

    def _add_users(
        self, labels: Array, scores: Array, weights: Array, group: Array, drawn: Array
    ) -> None:
        areas = auc_by_group(labels, scores, weights, group)
        known = np.isfinite(areas)
        impressions = np.bincount(group, weights)[known]
        terms = np.stack([impressions * areas[known], impressions])
        self._by_user[:, 0] += terms.sum(axis=1)
        self._by_user[:, 1:] += terms @ drawn[known]

    def _whole(self) -> dict[str, Any]:
        return self._with_gauc(binary_figures(*self._merge()), self._by_user[:, 0])

    def resampled(self) -> dict[str, Array]:
        weights, weighted = self._in_bins
        used = weights > 0
        scores = weighted[used] / weights[used]
        counts = self._bins.reshape(len(used), 2, self.replicates)[used].astype(np.float64)
        figures = binary_figures(scores, np.moveaxis(counts, 2, 0))
        return self._with_gauc(figures, self._by_user[:, 1:])

    def _with_gauc(self, figures: dict[str, Array], sums: Array) -> dict[str, Array]:
        """AUC of every user, averaged by impressions; users whose labels are all equal have none.

        Source: Zhu et al. 2017, Optimized Cost per Click in Taobao Display Advertising, section
        5.1.
        """
        if not self.of_users:
            return figures
        with np.errstate(invalid="ignore", divide="ignore"):
            gauc = sums[0] / sums[1]
        first = {name: figures[name] for name in ("auc", "pr_auc", "log_loss")}
        return {**first, "gauc": gauc, **figures}

    def curve(self) -> list[dict[str, float]]:
        weight, predicted, observed = reliability(*self._merge())
        return [
            {"weight": weight[i], "predicted": predicted[i], "observed": observed[i]}
            for i in range(CURVE_BINS)
            if weight[i] > 0
        ]


class RegressionTally(Tally):
    """Of a task whose labels are numbers."""

    names = ("weight", "label", "label_square", "error", "square", "absolute")

    def __init__(self, replicates: int, users: bool) -> None:
        super().__init__(replicates, users)
        self._sums = np.zeros((len(self.names), 1 + replicates))

    def _add(
        self, labels: Array, scores: Array, weights: Array, group: Array, drawn: Array
    ) -> None:
        errors = scores - labels
        ones = np.ones(len(labels))
        terms = weights * np.stack([ones, labels, labels**2, errors, errors**2, np.abs(errors)])
        self._sums[:, 0] += terms.sum(axis=1)
        self._sums[:, 1:] += terms @ drawn

    def _whole(self) -> dict[str, Any]:
        return regression_figures(dict(zip(self.names, self._sums[:, 0], strict=True)))

    def resampled(self) -> dict[str, Array]:
        return regression_figures(dict(zip(self.names, self._sums[:, 1:], strict=True)))


def tally(label: Label, replicates: int, users: bool) -> Tally:
    """The one for a task."""
    return (BinaryTally if label.task == "binary" else RegressionTally)(replicates, users)


def with_intervals(figures: Figures, resampled: dict[str, Array], users: int) -> dict[str, Any]:
    """Figures, their intervals and what these come from, JSON-ready.

    Args:
        figures: by name.
        resampled: by name, (replicates,), of those that have intervals.
        users: in the sample; examples, where each stands for itself.
    """
    return {
        "metrics": figures,
        "intervals": {
            name: interval(figures[name], found, users) for name, found in resampled.items()
        },
        "replicates": {
            name: [or_none(round(value, 7)) for value in found.tolist()]
            for name, found in resampled.items()
        },
    }


def _log_odds(probabilities: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(probabilities) - np.log1p(-probabilities)


def or_none(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
