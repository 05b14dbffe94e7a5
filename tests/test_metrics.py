import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfrec.metrics import binary_metrics, gauc, regression_metrics


def test_gauc_is_the_impression_weighted_mean_of_each_user_s_auc() -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, 20, 400)
    labels = (rng.random(400) < 0.4).astype(float)
    labels[users == 3] = 1  # no AUC: left out
    scores = np.round(rng.random(400), 1)  # with ties
    total = count = 0.0
    for user in range(20):
        mine = users == user
        if len(set(labels[mine])) == 2:
            total += mine.sum() * roc_auc_score(labels[mine], scores[mine])
            count += mine.sum()
    assert gauc(labels, scores, users) == pytest.approx(total / count)
    assert gauc(labels, scores, users.astype(str).astype("S")) == pytest.approx(total / count)


def test_gauc_by_hand() -> None:
    labels = np.array([1, 0, 0, 1, 0])
    scores = np.array([0.9, 0.1, 0.8, 0.2, 0.7])
    users = np.array(["a", "a", "b", "b", "b"])
    assert gauc(labels, scores, users) == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)
    assert gauc(np.ones(5), scores, users) is None


def test_binary_metrics_agree_with_scikit_learn_and_leave_missing_labels_out() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(300) < 0.3).astype(float)
    scores, weights = rng.random(300), rng.uniform(0.5, 2, 300)
    labels[:10] = np.nan
    known = slice(10, None)
    found = binary_metrics(labels, scores, None, weights)
    expected = {
        "auc": roc_auc_score(labels[known], scores[known], sample_weight=weights[known]),
        "log_loss": log_loss(labels[known], scores[known], sample_weight=weights[known]),
        "calibration": np.average(scores[known], weights=weights[known])
        / np.average(labels[known], weights=weights[known]),
    }
    assert found["gauc"] is None
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_metrics_that_do_not_exist_are_absent_and_never_zero() -> None:
    found = binary_metrics(np.zeros(4), np.full(4, 0.2), np.arange(4), np.ones(4))
    assert found["auc"] is None
    assert found["gauc"] is None
    assert found["calibration"] is None
    assert found["log_loss"] == pytest.approx(-np.log(0.8))


def test_regression_metrics() -> None:
    found = regression_metrics(np.array([1.0, 2.0, np.nan]), np.array([2.0, 4.0, 9.0]), np.ones(3))
    assert found == {"rmse": pytest.approx(np.sqrt(2.5)), "mae": pytest.approx(1.5)}
