"""How far two columns' distributions are from one another, by their statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.stats import chi2
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.statistics import Proto, common

Histogram: TypeAlias = statistics_pb2.Histogram

BINS = 20  # that numbers are compared in

_DEVIATIONS = 4  # standard ones of a share that chance explains
_RARE = 0.001  # probability of what chance does not explain


@dataclass(frozen=True)
class Distance:
    """Of two distributions.

    Attributes:
        value: between 0 and 1.
        chance: what two samples of one distribution, of the same sizes, hardly reach.
        at: the value that differs most, of categories.
    """

    value: float
    chance: float
    at: str = ""


def l_infinity(one: Proto, other: Proto) -> Distance:
    """Largest difference of a value's share in two columns of texts.

    Statistics list the most frequent values. One that is listed in one column only has, in the
    other one, at most the share of its last listed value, if there are more than are listed.
    Chance: four standard deviations of the difference of two shares.
    """
    shares, unlisted = [], []
    for column in (one, other):
        stats, total = column.string_stats, common(column).tot_num_values
        listed = {entry.value: entry.frequency / total for entry in stats.top_values}
        shares.append(listed)
        unlisted.append(min(listed.values()) if stats.unique > len(listed) else 0.0)
    values = sorted(shares[0].keys() | shares[1].keys())
    p, q = (np.array([listed.get(value, np.nan) for value in values]) for listed in shares)
    p = np.where(np.isnan(p), np.minimum(q, unlisted[0]), p)
    q = np.where(np.isnan(q), np.minimum(p, unlisted[1]), q)
    worst = int(np.argmax(np.abs(p - q)))
    mean = (p[worst] + q[worst]) / 2
    chance = _DEVIATIONS * np.sqrt(mean * (1 - mean) * _per_row(one, other))
    return Distance(float(abs(p[worst] - q[worst])), float(chance), values[worst])


def jensen_shannon(one: Proto, other: Proto) -> Distance:
    """Jensen-Shannon divergence of two columns of numbers, in bits (Lin 1991, equation 4.1).

    In `BINS` bins of about equal shares of both columns together, so that a few extreme values
    change little. Chance: of one distribution, the divergence is distributed as chi-squared, with a
    degree of freedom for each bin but one, times (1/n + 1/m) / (8 ln 2).
    """
    histograms = [by_quantile(column) for column in (one, other)]
    ends = np.unique([bucket.high_value for h in histograms for bucket in h.buckets])
    both = np.mean([share_below(histogram, ends) for histogram in histograms], axis=0)
    levels = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(ends[np.searchsorted(both, levels)])
    p, q = (np.diff(share_below(histogram, edges), prepend=0, append=1) for histogram in histograms)
    mean = (p + q) / 2
    value = (_relative_entropy(p, mean) + _relative_entropy(q, mean)) / 2
    chance = chi2.isf(_RARE, len(edges)) * _per_row(one, other) / (8 * np.log(2))
    return Distance(min(max(value, 0.0), 1.0), float(chance))


def by_quantile(column: Proto) -> Histogram:
    """The histogram of a column of numbers whose buckets have about equal counts."""
    return next(h for h in column.num_stats.histograms if h.type == Histogram.QUANTILES)


def share_below(histogram: Histogram, points: np.ndarray) -> np.ndarray:
    """Share of the values that are not above each of some points.

    Within a bucket, values are taken as spread evenly above its low end.
    """
    low, high, count = np.array(
        [(b.low_value, b.high_value, b.sample_count) for b in histogram.buckets]
    ).T
    wide = high > low
    inside = (points[:, np.newaxis] - low) / np.where(wide, high - low, 1.0)
    inside = np.where(wide, np.clip(inside, 0, 1), points[:, np.newaxis] >= low)
    return inside @ count / count.sum()


def quantile(histogram: Histogram, share: float) -> float:
    """The value that a share of the values is not above."""
    counts = np.cumsum([bucket.sample_count for bucket in histogram.buckets])
    place = int(np.searchsorted(counts, share * counts[-1]))
    return histogram.buckets[place].high_value


def _per_row(one: Proto, other: Proto) -> float:
    """1/n + 1/m of rows with a value: the values of one list are not independent."""
    return sum(1 / common(column).num_non_missing for column in (one, other))


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())
