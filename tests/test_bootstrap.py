"""Intervals: of the width that new samples of users would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.test_metrics import counted, data
from tfrec.bootstrap import draws, interval


def sample(users: int, seed: int) -> tuple[Any, Any, Any]:
    """Labels, scores and users; labels of one user go together."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 12)
    taste = rng.normal(0, 1.5, users)[user]
    item = rng.normal(0, 1, len(user))
    labels = (rng.random(len(user)) < 1 / (1 + np.exp(-taste - item))).astype(float)
    return labels, 1 / (1 + np.exp(-item)), user


def test_a_user_counts_as_often_whatever_stands_beside_them() -> None:
    users = np.random.default_rng(0).integers(0, 2**62, 3_000)
    drawn = draws(users, 150)
    assert drawn.shape == (3_000, 150)
    np.testing.assert_array_equal(draws(users[::-7], 150), drawn[::-7])
    np.testing.assert_array_equal(draws(users, 40), drawn[:, :40])


def test_users_are_drawn_with_replacement() -> None:
    drawn = draws(np.arange(20_000), 50).astype(float)
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)
    together = np.corrcoef(drawn.T) - np.eye(50)
    assert np.abs(together).max() < 0.04
    assert np.abs(np.corrcoef(drawn[:200]) - np.eye(200)).mean() < 0.2


def test_a_resampling_is_what_the_repeated_examples_give() -> None:
    labels, scores, users, weights = data(500)
    drawn = draws(users, 8)
    for task in ("binary", "regression"):
        found = counted(labels, scores, users, weights, task, replicates=8, parts=3).resampled()
        for number in range(8):
            times = drawn[:, number]
            expected = counted(labels, scores, users, weights * times, task).figures()
            for name, value in expected.items():
                if name != "gauc":
                    assert found[name][number] == pytest.approx(value, rel=2e-3), (name, number)
            mine = times > 0
            copies = np.repeat(np.flatnonzero(mine), times[mine])
            # Copies of a user are users of their own, whose AUC is the same.
            if task == "binary":
                alone = counted(labels[copies], scores[copies], users[copies], weights[copies])
                assert found["gauc"][number] == pytest.approx(alone.figures()["gauc"])


@pytest.mark.parametrize("name", ["auc", "log_loss", "gauc", "pr_auc"])
def test_intervals_are_as_wide_as_new_users_would_make_them(name: str) -> None:
    others = [counted(*sample(300, seed)).figures()[name] for seed in range(60)]
    spread = 1.96 * np.std(np.array(others, float), ddof=1)
    widths = []
    for seed in range(60, 66):
        record = counted(*sample(300, seed), replicates=200).record()
        low, high = record["intervals"][name]
        assert low < record["metrics"][name] < high
        widths.append((high - low) / 2)
    assert np.mean(widths) == pytest.approx(spread, rel=0.25)


def test_users_rather_than_examples_are_drawn() -> None:
    labels, scores, users = sample(300, 0)
    by_user = counted(labels, scores, users, replicates=100).record()["intervals"]["calibration"]
    by_example = counted(labels, scores, replicates=100).record()["intervals"]["calibration"]
    assert by_user[1] - by_user[0] > 1.4 * (by_example[1] - by_example[0])


def test_what_does_not_exist_has_no_interval() -> None:
    some = np.array([0.5, 0.4, 0.45, 0.5])
    assert interval(None, some, 50) is None
    assert interval(0.5, np.array([0.5, np.nan, np.nan, 0.4]), 50) is None
    assert interval(0.5, np.array([]), 50) is None
    assert interval(0.5, np.full(4, 0.5), 50) is None
    assert interval(0.5, some, 9) is None
    low, high = interval(0.5, some, 10) or ()
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.959964 * np.std(some, ddof=1))
