"""What copied code gets wrong in models of retrieval."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.models.retrieval_cases import ITEMS
from tests.models.test_harness import FAST, assert_two_replicas_equal_one, logits, make
from tests.support import FEATURES, batch, randomise, tensors, training_data
from tfrec.config import ItemLossConfig, OptimizersConfig
from tfrec.features import Features, Table
from tfrec.models.registry import ENTRIES, find
from tfrec.models.retrieval import ncf
from tfrec.models.retrieval.two_tower import TwoTower
from tfrec.optimizers import composite
from tfrec.strict import UserError

MODELS = [entry.id for entry in ENTRIES if entry.family == "retrieval"]
IN_BATCH = ItemLossConfig(in_batch=True, negatives=0)
PLAIN = IN_BATCH.model_copy(update={"log_q": False})


def learning(model: Any, loss: ItemLossConfig) -> Any:
    configs = OptimizersConfig.parse(FAST, "test")
    model.compile(composite(model.groups(), dict(configs)), loss)
    return model


@pytest.mark.parametrize("model", MODELS)
def test_a_user_s_vector_has_nothing_of_the_example_s_item(model: str) -> None:
    built = make(model)
    randomise(built)
    inputs, other = batch(8), batch(8, seed=1)
    changed = {name: other[name] for name in ("item", "tags", "price", "user_x_tags")}
    vectors = [built.users(tensors(i), training=True) for i in (inputs, {**inputs, **changed})]
    np.testing.assert_array_equal(*vectors)
    without = {name: v for name, v in tensors(inputs).items() if name not in changed}
    np.testing.assert_array_equal(built.users(without, training=True), vectors[0])


@pytest.mark.parametrize("model", ["mf", "ncf", "als_mlp", "two_tower"])
def test_users_that_training_did_not_know_are_alike(model: str) -> None:
    """What they get would be by chance, and not what is best for anyone."""
    built = make(model)
    one = {name: np.repeat(values[:1], 4, axis=0) for name, values in batch(1).items()}
    unknown = FEATURES.table("user").vocabulary + 1

    def users(*ids: int) -> Any:
        return built.users(tensors({**one, "user": np.array(ids)})).numpy()

    np.testing.assert_allclose(users(unknown, 0, unknown + 1, 0), users(0, 0, 0, 0), rtol=1e-6)
    assert not np.allclose(users(1, 2, 3, 4), users(0, 0, 0, 0))


@pytest.mark.parametrize("model", MODELS)
def test_the_best_are_the_model_s_own_scores_in_order(model: str) -> None:
    built = make(model)
    randomise(built)
    inputs = batch(5)
    own = []  # scores of all items, each as an example's own item
    for item in range(1, ITEMS + 1):
        own.append(logits(built, {**inputs, "item": np.full(5, item)}))
    order = np.argsort(-np.stack(own, axis=1), axis=1, kind="stable") + 1
    users, index = built.users(tensors(inputs)), built.index()
    excluded = np.array([[0, 0], [3, 3], [1, 2], [ITEMS + 1, 12], [0, 7]])
    for k in (4, ITEMS, ITEMS + 9):
        ids, scores = (t.numpy() for t in built.best(users, index, tf.constant(excluded), k))
        assert ids.shape == scores.shape == (5, min(k, ITEMS))
        for row in range(5):
            wanted = [i for i in order[row] if i not in excluded[row]][:k]
            found = ids[row][ids[row] > 0]
            assert found.tolist() == wanted
            np.testing.assert_allclose(
                scores[row][: len(found)], [own[i - 1][row] for i in found], rtol=1e-4, atol=1e-5
            )
            assert not scores[row][len(found) :].any()


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        *((model, "dropout") for model in ("als_mlp", "two_tower", "youtube_dnn")),
        *((model, "event_dropout") for model in ("two_tower", "youtube_dnn")),
    ],
)
def test_dropout_is_for_training_only(model: str, kind: str) -> None:
    built, without = make(model, **{kind: 0.5}), make(model)
    for each in (built, without):
        randomise(each)
    inputs = tensors(batch(8))
    np.testing.assert_array_equal(built(inputs)["score"], without(inputs)["score"])
    np.testing.assert_array_equal(built.index(), without.index())
    dropped = [built(inputs, training=True)["score"].numpy() for _ in range(2)]
    assert np.abs(dropped[0] - dropped[1]).max() > 0.01


def test_ncf_scores_all_pairs_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    built = make("ncf")
    randomise(built)
    users, index = built.users(tensors(batch(7))), built.index()
    each = tf.broadcast_to(index, [7, *index.shape])
    for at_once in (1, 2 * ITEMS, 2**20):
        monkeypatch.setattr(ncf, "PAIRS_AT_ONCE", at_once)
        found = built.scores(users, index)
        np.testing.assert_allclose(found, built.scores(users, each), rtol=1e-5, atol=1e-6)


def zipf(users: int = 4, items: int = 60) -> tuple[Features, Any]:
    """Popular items, of which odd users take odd ones more often; P(user, item)."""
    tables = (Table("user", users, 1), Table("item", items, 1))
    fields = tuple(f for f in FEATURES.features if f.name in ("user", "item"))
    features = dataclasses.replace(FEATURES, features=fields, tables=tables, histories=())
    alike = np.arange(users)[:, np.newaxis] % 2 == np.arange(items) % 2
    taken = np.where(alike, 4.0, 1.0) / (1 + np.arange(items))
    return dataclasses.replace(features, crosses=()), taken / taken.sum()


def divergence(log_q: bool, sign: float = 1.0) -> float:
    """Mean over users of KL(P(item | user), what the model says), learned from batches alone."""
    keras.utils.set_random_seed(0)
    features, taken = zipf()
    rng = np.random.default_rng(0)
    events = rng.choice(taken.size, 200 * 128, p=taken.ravel())
    users, items = np.unravel_index(events, taken.shape)
    model = TwoTower(features, dim=16, hidden=(), output=16, normalise=False)
    counts = np.bincount(items, minlength=taken.shape[1])
    model.catalogue.fill({}, counts, exponent=0.0)
    expected = model.catalogue.log_expected
    object.__setattr__(model.catalogue, "log_expected", lambda *given: sign * expected(*given))
    learning(model, IN_BATCH if log_q else PLAIN)
    step = tf.function(model.train_step)
    for part in np.split(np.arange(len(events)), 200):
        inputs = {"user": users[part] + 1, "item": items[part] + 1}
        step(training_data(inputs, np.ones(128), features=features))
    vectors = model.users({"user": tf.range(1, len(taken) + 1)})
    learned = tf.nn.log_softmax(model.scores(vectors, model.index())).numpy()
    given = taken / taken.sum(axis=1, keepdims=True)
    return float((given * (np.log(given) - learned)).sum(axis=1).mean())


def test_log_q_has_the_sign_that_gives_the_items_their_probabilities() -> None:
    """Popular items are often in batches: what makes up for it is taken from their scores."""
    corrected = divergence(log_q=True)
    assert corrected < 0.1
    assert divergence(log_q=False) > 5 * corrected
    assert divergence(log_q=True, sign=-1.0) > 5 * corrected


def test_an_item_that_is_in_the_batch_twice_is_no_negative_of_itself() -> None:
    built = learning(make("two_tower", normalise=False), PLAIN)
    randomise(built)
    inputs = batch(6)
    inputs["item"] = np.array([3, 5, 3, 3, 9, 5])
    losses, weights = built.task_losses(*training_data(inputs, np.ones(6)))["item_loss"]
    scores = built.scores(built.users(tensors(inputs)), built.index()).numpy()
    for row, item in enumerate(inputs["item"]):
        others = [j for j in inputs["item"] if j != item]  # the other ones as often as they occur
        terms = np.exp(scores[row, np.array([item, *others]) - 1])
        assert losses[row].numpy() == pytest.approx(-np.log(terms[0] / terms.sum()), rel=1e-4)
    assert weights.numpy().tolist() == [1] * 6


def test_negative_examples_are_not_in_the_batch() -> None:
    """Nor are those of unknown items: their losses do not count, and no loss depends on them."""
    built = learning(make("two_tower"), IN_BATCH)
    randomise(built)
    inputs, labels = batch(6), np.array([1, 0, 1, 1, 0, 1])
    inputs["item"] = np.array([3, 4, ITEMS + 1, 5, 6, 7])
    losses, weights = built.task_losses(*training_data(inputs, labels))["item_loss"]
    assert weights.numpy().tolist() == [1, 0, 0, 1, 0, 1]
    kept = {name: value[[0, 3, 5]] for name, value in inputs.items()}
    alone, _ = built.task_losses(*training_data(kept, np.ones(3)))["item_loss"]
    np.testing.assert_allclose(losses.numpy()[[0, 3, 5]], alone, rtol=1e-5)


def test_replicas_see_the_items_of_one_another(mirrored: Any) -> None:
    steps = [training_data(batch(16, seed), np.arange(16) % 3 > 0) for seed in range(2)]
    assert_two_replicas_equal_one(lambda: learning(make("two_tower"), IN_BATCH), steps, mirrored)


def test_the_age_of_an_example_is_for_training_only() -> None:
    built = make("youtube_dnn", example_age="age")
    randomise(built)
    inputs = batch(8)
    now = {**inputs, "age": np.zeros(8, np.float32)}
    np.testing.assert_array_equal(logits(built, inputs), logits(built, now))
    aged, new = (built.users(tensors(i), training=True).numpy() for i in (inputs, now))
    assert np.abs(aged - new).max() > 0.01
    np.testing.assert_allclose(new, built.users(tensors(inputs)), rtol=1e-5)


def test_the_age_of_an_example_is_a_number() -> None:
    with pytest.raises(ValueError, match="example_age 'user' is none of the numbers"):
        make("youtube_dnn", example_age="user")


@pytest.mark.parametrize(("model", "lacking"), [("mf", "user_id"), ("two_tower", "item_id")])
def test_a_data_set_without_ids_is_told(model: str, lacking: str) -> None:
    side = lacking.removesuffix("_id")
    with pytest.raises(UserError, match=f"needs ids of the {side} .declare `{side}`"):
        find(model).check(dataclasses.replace(FEATURES, **{lacking: None}))


def test_a_tower_without_anything_to_read_is_told() -> None:
    items = dataclasses.replace(
        FEATURES, features=FEATURES.of_role("item"), crosses=(), histories=(), user_id=None
    )
    with pytest.raises(ValueError, match="needs features of the user or of the context, or a hist"):
        make("two_tower", features=items)
