"""Every loss against its formula, target by target and negative by negative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.models.history_reference import softmax
from tests.models.reference import sigmoid
from tests.models.test_harness import FAST, make
from tests.support import FEATURES, batch, randomise, tensors, training_data
from tfrec.config import ItemLossConfig, OptimizersConfig
from tfrec.item_losses import calibration, item_loss
from tfrec.optimizers import composite

ITEMS = FEATURES.table("item").vocabulary
OTHERS = ITEMS - 1

Formula = Callable[[float, Any], float]


def cross_entropy(beta: float) -> Formula:
    def of_target(s: float, others: Any) -> float:
        positive = beta * math.log(sigmoid(s))
        return -(positive + np.log(1 - sigmoid(others)).sum()) / (1 + len(others))

    return of_target


def bpr_max(s: float, others: Any) -> float:
    share = softmax(others)
    return -math.log((share * sigmoid(s - others)).sum()) + 0.5 * (share * others**2).sum()


def top1(s: float, others: Any) -> Any:
    return sigmoid(others - s) + sigmoid(others**2)


FORMULAS: dict[str, tuple[dict[str, Any], Formula]] = {
    "sampled_softmax": ({}, lambda s, o: -math.log(softmax(np.array([s, *o]))[0])),
    "bce": ({}, cross_entropy(1.0)),
    "gbce": ({"t": 0.5}, cross_entropy(0.5 * (3 / OTHERS - 1) + 1)),
    "bpr": ({}, lambda s, o: -np.log(sigmoid(s - o)).mean()),
    "bpr_max": ({"regularisation": 0.5}, bpr_max),
    "top1": ({}, lambda s, o: top1(s, o).mean()),
    "top1_max": ({}, lambda s, o: (softmax(o) * top1(s, o)).sum()),
}


def given() -> tuple[Any, Any, Any]:
    """Scores of 6 targets and 3 negatives each, one of which is the target itself in two rows."""
    rng = np.random.default_rng(0)
    real = np.ones((6, 3), bool)
    real[1, 0] = real[4, 2] = False
    return rng.normal(size=6), rng.normal(size=(6, 3)), real


def found(config: ItemLossConfig, positive: Any, negative: Any, real: Any) -> Any:
    scores = (tf.constant(values, tf.float32) for values in (positive, negative))
    return item_loss(config, *scores, tf.constant(real), ITEMS).numpy()


@pytest.mark.parametrize("kind", FORMULAS)
def test_equals_its_formula_over_the_real_negatives(kind: str) -> None:
    options, formula = FORMULAS[kind]
    positive, negative, real = given()
    losses = found(ItemLossConfig(kind=kind, negatives=3, **options), positive, negative, real)
    for row in range(6):
        expected = formula(positive[row], negative[row][real[row]])
        assert losses[row] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hard", [None, 2])
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_target_without_real_negatives_is_compared_with_nothing(
    kind: str, hard: int | None
) -> None:
    """All of them are the target itself: what is left is its own part, where a loss has one."""
    options, formula = FORMULAS[kind]
    config = ItemLossConfig(kind=kind, negatives=3, hard_negatives=hard, **options)
    scores = [tf.Variable([0.3, -2.0]), tf.Variable([[1.5, -0.2, 40.0]] * 2)]
    real = tf.constant([[True, False, True], [False] * 3])
    with tf.GradientTape() as tape:
        losses = item_loss(config, *scores, real, ITEMS)
    own = formula(-2.0, np.zeros(0)) if kind in ("bce", "gbce") else 0.0
    assert losses[1].numpy() == pytest.approx(own, rel=1e-4)
    positive, negative = (gradient.numpy() for gradient in tape.gradient(losses, scores))
    assert np.isfinite(positive).all()
    assert np.isfinite(negative).all()
    assert (negative[1] == 0).all()
    assert positive[1] == 0 or own


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_better_target_and_worse_negatives_cost_less(kind: str) -> None:
    config = ItemLossConfig(kind=kind, negatives=3)
    far = found(config, [0.0, 2.0], [[0.5, 0.1, 0.2]] * 2, np.ones((2, 3), bool))
    assert far[1] < far[0]


@pytest.mark.parametrize("hard", [2, 3, 9])
@pytest.mark.parametrize("kind", FORMULAS)
def test_hard_negatives_are_those_with_the_highest_scores(kind: str, hard: int) -> None:
    """All real ones, where as many are not left."""
    options, formula = FORMULAS[kind]
    positive, negative, real = given()
    config = ItemLossConfig(kind=kind, negatives=3, hard_negatives=hard, **options)
    losses = found(config, positive, negative, real)
    for row in range(6):
        kept = np.sort(negative[row][real[row]])[-hard:]
        assert losses[row] == pytest.approx(formula(positive[row], kept), rel=1e-4)


def test_calibration_is_between_the_plain_loss_and_probabilities() -> None:
    assert calibration(0.1, 0.0) == pytest.approx(1.0)
    assert calibration(0.1, 1.0) == pytest.approx(0.1)
    assert calibration(0.1, 0.75) == pytest.approx(0.25 + 0.75 * 0.1)
    for t in (0.0, 0.3, 1.0):
        assert calibration(1.0, t) == pytest.approx(1.0)


def test_full_calibration_makes_the_sigmoid_a_probability() -> None:
    """The minimum over one score, that is drawn by 5% of the time where it is no target."""
    share, chance = 0.05, 0.2
    scores = np.linspace(-6, 3, 9001)
    beta = calibration(share, 1.0)
    cost = -chance * beta * np.log(sigmoid(scores)) - (1 - chance) * share * np.log(
        1 - sigmoid(scores)
    )
    assert sigmoid(scores[cost.argmin()]) == pytest.approx(chance, abs=1e-3)


def learning(model: Any, **config: Any) -> Any:
    optimizers = OptimizersConfig.parse(FAST, "test")
    model.compile(composite(model.groups(), dict(optimizers)), ItemLossConfig(**config))
    return model


def losses_of(model: Any, inputs: Any) -> Any:
    return model.task_losses(*training_data(inputs, np.ones(len(inputs["item"]))))["item_loss"][0]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_softmax_is_over_all_items(temperature: float) -> None:
    built = learning(make("mf"), kind="softmax", temperature=temperature)
    randomise(built)
    inputs = batch(9)
    inputs["item"] %= ITEMS
    inputs["item"] += 1
    scores = built.scores(built.users(tensors(inputs)), built.index()).numpy() / temperature
    expected = -np.log(softmax(scores)[np.arange(9), inputs["item"] - 1])
    np.testing.assert_allclose(losses_of(built, inputs), expected, rtol=1e-4)


def test_a_drawn_target_is_no_negative() -> None:
    """One item is drawn always: it counts where it is not the target."""
    built = learning(make("mf"), kind="bce", negatives=4, exponent=1.0)
    randomise(built)
    counts = np.zeros(ITEMS)
    counts[2] = 1e12
    built.catalogue.fill({}, counts, exponent=1.0)
    inputs = batch(2)
    inputs["item"] = np.array([3, 5])
    scores = built.scores(built.users(tensors(inputs)), built.index()).numpy()
    expected = [
        cross_entropy(1.0)(scores[0, 2], np.zeros(0)),
        cross_entropy(1.0)(scores[1, 4], scores[1, [2] * 4]),
    ]
    np.testing.assert_allclose(losses_of(built, inputs), expected, rtol=1e-4)


def test_negatives_are_drawn_by_a_power_of_the_counts() -> None:
    built = make("mf")
    counts = np.arange(ITEMS) ** 2
    for exponent in (0.0, 0.5, 1.0):
        built.catalogue.fill({}, counts, exponent)
        drawn = built.catalogue.draw(tf.constant([60_000]), training=True).numpy()
        weights = np.maximum(counts, 1) ** exponent
        shares = np.bincount(drawn, minlength=ITEMS + 1) / len(drawn)
        assert shares[0] == 0
        np.testing.assert_allclose(shares[1:], weights / weights.sum(), atol=0.006)
        expected = built.catalogue.log_expected(tf.range(1, ITEMS + 1), 100, 0)
        np.testing.assert_allclose(np.exp(expected), 100 * weights / weights.sum(), rtol=2e-3)


def divergence(log_q: bool) -> float:
    """KL(P, what the model says) after learning from items drawn by their popularity."""
    keras.utils.set_random_seed(0)
    chances = 1 / np.arange(1, ITEMS + 1)
    chances /= chances.sum()
    items = 1 + np.random.default_rng(0).choice(ITEMS, 200 * 64, p=chances)
    built = make("mf")
    built.catalogue.fill({}, np.bincount(items, minlength=ITEMS + 1)[1:], exponent=1.0)
    learning(built, negatives=3, exponent=1.0, log_q=log_q)
    step = tf.function(built.train_step)
    for part in np.split(items, 200):
        inputs = {**batch(64), "item": part, "user": np.ones(64, np.int64)}
        step(training_data(inputs, np.ones(64)))
    learned = softmax(built.scores(built.users(tensors(inputs)), built.index()).numpy()[0])
    return float((chances * np.log(chances / learned)).sum())


def test_log_q_makes_up_for_how_items_are_drawn() -> None:
    corrected = divergence(log_q=True)
    assert corrected < 0.05
    assert divergence(log_q=False) > 5 * corrected
