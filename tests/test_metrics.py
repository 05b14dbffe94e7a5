"""Figures against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from tfrec import tallies
from tfrec.bootstrap import draws
from tfrec.features import Label
from tfrec.metrics import auc_by_group
from tfrec.tallies import Figures, Tally, tally


def counted(
    labels: Any,
    scores: Any,
    users: Any = None,
    weights: Any = None,
    task: Any = "binary",
    replicates: int = 0,
    parts: int = 1,
) -> Tally:
    """The sums of examples, added in parts that hold whole users."""
    labels, scores = np.asarray(labels, float), np.asarray(scores, float)
    weights = np.ones(len(labels)) if weights is None else weights
    found = tally(Label("task", task), replicates, users is not None)
    keys = np.arange(len(labels)) if users is None else np.asarray(users)
    drawn = draws(keys, replicates)
    for part in range(parts):
        mine = keys % parts == part
        found.add(labels[mine], scores[mine], weights[mine], keys[mine], drawn[mine])
    return found


def figures(*arguments: Any, **more: Any) -> Figures:
    return counted(*arguments, **more).figures()


def data(rows: int = 400, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Labels, scores with ties, users and weights."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rows), 2)
    labels = (rng.random(rows) < 0.2 + 0.5 * scores).astype(float)
    return labels, scores, rng.integers(0, 40, rows), rng.uniform(0.5, 2, rows)


def test_gauc_is_the_impression_weighted_mean_of_each_user_s_auc() -> None:
    labels, scores, users, weights = data()
    labels[users == 3] = 1  # no AUC: left out
    total = count = 0.0
    for user in range(40):
        mine = users == user
        if len(set(labels[mine])) == 2:
            area = roc_auc_score(labels[mine], scores[mine], sample_weight=weights[mine])
            total += weights[mine].sum() * area
            count += weights[mine].sum()
    for parts in (1, 7):
        found = figures(labels, scores, users, weights, parts=parts)
        assert found["gauc"] == pytest.approx(total / count)


def test_gauc_by_hand() -> None:
    labels, scores, users = [1, 0, 0, 1, 0], [0.9, 0.1, 0.8, 0.2, 0.7], [0, 0, 1, 1, 1]
    assert figures(labels, scores, users)["gauc"] == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)
    assert figures(np.ones(5), scores, users)["gauc"] is None
    weighted = figures([1, 0, 0], [0.5, 0.1, 0.8], [0, 0, 0], np.array([2.0, 3.0, 1.0]))
    assert weighted["gauc"] == pytest.approx(3 / 4)
    equal = np.array([1, 0, 1]), np.array([0.5, 0.5, 0.1]), np.ones(3)
    np.testing.assert_array_equal(auc_by_group(*equal, np.array([2, 2, 0])), [np.nan, np.nan, 0.5])


@pytest.mark.parametrize("parts", [1, 5])
def test_binary_figures_agree_with_scikit_learn_and_leave_missing_labels_out(parts: int) -> None:
    labels, scores, _, weights = data(300, seed=1)
    labels[:10] = np.nan
    found = figures(labels, scores, None, weights, parts=parts)
    labels, scores, weights = labels[10:], scores[10:], weights[10:]
    loss = log_loss(labels, scores, sample_weight=weights)
    rate = np.average(labels, weights=weights)
    expected = {
        "auc": roc_auc_score(labels, scores, sample_weight=weights),
        "pr_auc": average_precision_score(labels, scores, sample_weight=weights),
        "log_loss": loss,
        "normalised_entropy": loss / log_loss(labels, np.full(290, rate), sample_weight=weights),
        "calibration": np.average(scores, weights=weights) / rate,
    }
    assert "gauc" not in found
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_calibration_error_by_hand() -> None:
    # 20 bins of five examples each; what is predicted is 0.1 too high in the upper half.
    predicted = np.repeat(np.arange(1, 21) / 40, 5)
    labels = np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 20)
    found = counted(labels, predicted)
    assert found.figures()["ece"] == pytest.approx(np.abs(np.arange(1, 21) / 40 - 0.2).mean())
    curve = found.curve()
    assert [bin_["weight"] for bin_ in curve] == [5] * 20
    assert [bin_["predicted"] for bin_ in curve] == pytest.approx(np.arange(1, 21) / 40)
    assert [bin_["observed"] for bin_ in curve] == pytest.approx([0.2] * 20)


def test_equal_scores_are_one_bin_of_the_curve() -> None:
    found = counted([0, 0, 0, 1], np.full(4, 0.75))
    assert found.curve() == [{"weight": 4, "predicted": 0.75, "observed": 0.25}]
    assert found.figures()["ece"] == pytest.approx(0.5)
    assert found.figures()["auc"] == 0.5


def test_figures_that_do_not_exist_are_absent_and_never_zero() -> None:
    found = figures(np.zeros(4), np.full(4, 0.2), np.arange(4))
    for name in ("auc", "pr_auc", "gauc", "calibration", "normalised_entropy"):
        assert found[name] is None, name
    assert found["log_loss"] == pytest.approx(-np.log(0.8))
    for nothing in (figures([], []), figures([np.nan], [0.5], task="regression")):
        assert set(nothing.values()) == {None}


def test_a_certain_mistake_costs_what_scikit_learn_says() -> None:
    expected = log_loss([1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0])
    assert figures([1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0])["log_loss"] == pytest.approx(expected)


def test_of_very_many_scores_the_figures_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-rng.normal(-2, 1.5, 20_000)))
    labels = (rng.random(20_000) < scores).astype(float)
    exact = figures(labels, scores)
    assert exact["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    monkeypatch.setattr(tallies, "DISTINCT", 500)
    bounded = counted(labels, scores, parts=10)
    assert bounded.figures() == pytest.approx(exact, abs=1e-5)
    assert bounded.figures() != exact


def test_regression_figures() -> None:
    found = figures([1.0, 2.0, np.nan], [2.0, 4.0, 9.0], task="regression")
    expected = {"rmse": np.sqrt(2.5), "mae": 1.5, "bias": 1.5, "r2": 1 - 5 / 0.5}
    assert found == pytest.approx(expected)
    labels, scores, _, weights = data()
    found = figures(labels, scores, None, weights, "regression", parts=3)
    pair = {"y_true": labels, "y_pred": scores, "sample_weight": weights}
    assert found["rmse"] == pytest.approx(root_mean_squared_error(**pair))
    assert found["mae"] == pytest.approx(mean_absolute_error(**pair))
    assert found["r2"] == pytest.approx(r2_score(**pair))
    assert figures([3.0, 3.0], [1.0, 2.0], task="regression")["r2"] is None
