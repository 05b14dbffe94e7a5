"""Confidence intervals by resampling users.

A user's examples are no independent draws, so that whole users are drawn: in every resampling a
user counts Poisson(1) times, which is what drawing with replacement comes to for many users. The
number follows from the user's key and the number of the resampling alone. So nothing has to be
kept, the order of the examples does not matter, and two models measured on the same users are
resampled alike, which makes their differences paired ones.

Source: Chamandy et al. 2012, Estimating Uncertainty for Massive Data Streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfrec.metrics import Array

Z = 1.959964  # standard deviations on each side of 95% of a normal distribution
FEWEST = 10  # users that say how users differ

_DRAWS_OF_HASH = 4  # of 16 bits each


def mixed(numbers: Array) -> Array:
    """Hashes (uint64) of numbers: the finaliser of SplitMix64, Steele et al. 2014."""
    numbers = numbers.astype(np.uint64)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def draws(users: Array, replicates: int) -> Array:
    """How often users count in every resampling.

    Args:
        users: (n,) int64 hashes of keys.
        replicates: number of resamplings.

    Returns:
        (n, replicates) uint8.
    """
    steps = np.arange(1, 1 + math.ceil(replicates / _DRAWS_OF_HASH), dtype=np.uint64)
    hashes = mixed(mixed(users)[:, np.newaxis] + steps * np.uint64(0x9E3779B97F4A7C15))
    return _POISSON[hashes.view(np.uint16)][:, :replicates]


def apart(examples: Array) -> Array:
    """Hashes (n,) int64 of which no two are equal, whatever the order of the examples.

    Args:
        examples: (n,) int64 hashes of their contents, which several may share.
    """
    order = np.argsort(examples, kind="stable")
    first = np.searchsorted(examples, examples[order], sorter=order)
    found = np.empty_like(examples)
    found[order] = mixed(examples[order] + np.arange(len(order)) - first).astype(np.int64)
    return found


def _poisson() -> Array:
    """Values of a Poisson(1) variable at 2^16 equally likely places."""
    chances = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(12)])
    return np.searchsorted(chances, (np.arange(2**16) + 0.5) / 2**16).astype(np.uint8)


_POISSON = _poisson()


def interval(value: float | None, replicates: Array, users: int) -> list[float] | None:
    """95% interval: the value ± 1.96 standard deviations of the resampled ones.

    It is no interval of percentiles, since figures that cannot be negative, such as ECE, are
    higher in resamplings than in the sample itself.

    Args:
        value: of the whole sample.
        replicates: of the resamplings, NaN where the figure does not exist.
        users: in the sample.

    Returns:
        Its ends; None where the figure does not exist in the sample or in most of the resamplings,
        or where fewer than 10 users, or none that differ, tell nothing of others.
    """
    known = replicates[np.isfinite(replicates)]
    if value is None or users < FEWEST or len(known) <= len(replicates) / 2:
        return None
    half = Z * float(np.std(known, ddof=1))
    return [value - half, value + half] if half > 1e-9 * abs(value) else None


def difference(
    metric: str,
    first: dict[str, Any],
    second: dict[str, Any],
    of: Callable[[Any], Any] = lambda values: values,
) -> tuple[float, list[float] | None] | None:
    """How much higher a figure is in a second record; the same users are in both resamplings.

    Args:
        metric: name of the figure.
        first: record of a report, see `tfrec.figures`.
        second: that of another one on the same examples.
        of: what to take the difference of, from values of the figure.

    Returns:
        The difference and its 95% interval, if there is one; None where a record lacks the figure.
    """
    values = [record["metrics"].get(metric) for record in (first, second)]
    if None in values:
        return None
    before, after = (
        of(np.array(record["replicates"].get(metric, []), np.float64)) for record in (first, second)
    )
    common = min(len(before), len(after))
    users = first["examples"] if first["users"] is None else first["users"]
    found = of(values[1]) - of(values[0])
    return found, interval(found, after[:common] - before[:common], users)
