"""What copied code gets wrong, model by model."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models.test_harness import compiled, logits, make
from tests.support import FEATURES, batch, randomise, tensors, training_data
from tfrec.config import LossConfig
from tfrec.layers.attention import LocalActivationUnit
from tfrec.layers.graph import GraphInteraction
from tfrec.models.registry import find


@pytest.mark.parametrize("model", ["lr", "poly2", "fm", "ffm", "nfm", "afm", "deepfm", "xdeepfm"])
def test_first_order_terms_take_ids_as_categories_and_not_as_numbers(model: str) -> None:
    linear = make(model).linear
    randomise(linear)
    inputs = batch(4)
    by_item = {}
    for item in range(1, 14):
        inputs["item"] = np.full(4, item)
        by_item[item] = linear(tensors(inputs)).numpy()[1]
    steps = np.diff(list(by_item.values()))
    assert np.ptp(steps) > 0.1  # a number times a weight would step evenly


def test_wide_part_sees_categories_and_crosses_and_not_only_numbers() -> None:
    model = make("wide_deep")
    randomise(model)
    inputs = batch(6)
    before = model.wide(tensors(inputs)).numpy()
    for name in ("user", "item", "user_x_tags"):
        changed = {**inputs, name: np.roll(inputs[name], 1, axis=0)}
        assert not np.allclose(model.wide(tensors(changed)).numpy(), before), name


def test_wide_and_deep_logits_are_added_and_not_averaged() -> None:
    model = make("wide_deep")
    randomise(model)
    inputs = batch(6)
    before = logits(model, inputs)
    model.wide.bias.assign_add(1.0)
    np.testing.assert_allclose(logits(model, inputs), before + 1, rtol=1e-5)


def test_wide_part_is_trained_by_ftrl_and_deep_part_by_adam_in_one_step() -> None:
    model = compiled(make("wide_deep"))
    groups = model.groups()
    assert {v.ref() for v in groups["linear"]} == {v.ref() for v in model.wide.trainable_variables}
    inputs = batch(32)
    model.train_step(training_data(inputs, np.arange(32) % 2))
    names = {type(o).__name__: o for o in model.optimizer.optimizers}
    assert set(names) == {"Ftrl", "RowSparseAdam", "Adam"}
    for variable in groups["linear"]:
        names["Ftrl"].get_slot(variable, "linear")
    for variable in groups["embedding"]:
        names["RowSparseAdam"].get_slot(variable, "v")
    before = [v.numpy() for v in model.trainable_variables]
    model.train_step(training_data(inputs, np.arange(32) % 2))
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy()), variable.name


def test_l1_makes_wide_weights_exactly_zero() -> None:
    config: dict[str, Any] = {"linear": {"name": "ftrl", "learning_rate": 0.5, "l1": 0.05}}
    rng = np.random.default_rng(0)
    labels = rng.random(512) < 0.5
    weak, strong = compiled(make("lr"), {}), compiled(make("lr"), config)
    for model in (weak, strong):
        for _ in range(5):
            model.train_step(training_data(batch(512), labels))

    def zeros(model: Any) -> int:
        return sum(int((v.numpy() == 0).sum()) for v in model.trainable_variables)

    assert zeros(strong) > zeros(weak) + 20


def test_attention_looks_at_the_candidate_and_not_at_the_history_alone() -> None:
    model = make("din")
    randomise(model)
    inputs = batch(8)
    unit = model.units["liked"]

    def weights(inputs: Any) -> Any:
        from tfrec.layers.embedding import history_vectors

        history = model.features.histories[0]
        given = tensors(inputs)
        vectors = model.embeddings(given)
        return unit(*history_vectors(vectors, given, history)).numpy()

    before = weights(inputs)
    changed = weights({**inputs, "item": np.roll(inputs["item"], 1)})
    real = inputs["liked_item"] != 0
    assert not np.allclose(before[real], changed[real])
    assert (before[~real] == 0).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_attention_weights_sum_to_one_over_events_only_with_softmax(softmax: bool) -> None:
    unit = LocalActivationUnit([4], softmax=softmax)
    rng = np.random.default_rng(0)
    events = tf.constant(rng.normal(size=(3, 5, 4)), tf.float32)
    candidate = tf.constant(rng.normal(size=(3, 4)), tf.float32)
    mask = tf.constant([[True] * 5, [True, True, False, False, False], [False] * 5])
    sums = unit(events, candidate, mask).numpy().sum(axis=1)
    if softmax:
        np.testing.assert_allclose(sums, [1, 1, 0], atol=1e-6)
    else:
        assert abs(sums[0] - 1) > 0.01
        assert sums[2] == 0


def test_deepfm_has_one_embedding_for_both_parts_and_no_layer_above_the_sum() -> None:
    model = make("deepfm")
    randomise(model)
    inputs = batch(6)
    tables = [v for v in model.trainable_variables if v.name.endswith("table:0")]
    assert len(tables) == 3
    before = logits(model, inputs)
    model.linear.bias.assign_add(1.0)
    np.testing.assert_allclose(logits(model, inputs), before + 1, rtol=1e-5)
    model.mlp.stack[-1].bias.assign_add([2.0])
    np.testing.assert_allclose(logits(model, inputs), before + 3, rtol=1e-5)


def test_fm_has_no_interaction_of_a_field_with_itself() -> None:
    """Σ (a² − b) or (Σ v)² alone would have one: a single field that is there says nothing."""
    model = make("fm")
    randomise(model)
    inputs = {name: np.zeros_like(value) for name, value in batch(6).items()}
    inputs["item"] = np.arange(1, 7)
    np.testing.assert_allclose(
        logits(model, inputs), model.linear(tensors(inputs)).numpy(), rtol=1e-5, atol=1e-6
    )
    inputs["user"] = np.arange(1, 7)
    tables = {
        name: table.table.numpy() for name, table in model.embeddings.categories.tables.items()
    }
    np.testing.assert_allclose(
        logits(model, inputs) - model.linear(tensors(inputs)).numpy(),
        (tables["user"][1:7] * tables["item"][1:7]).sum(axis=1),  # neither half nor twice of it
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("model", ["ffm", "onn"])
def test_field_aware_models_have_a_vector_per_other_field(model: str) -> None:
    """The item's vector for the user has no part in how the item meets the tags."""
    built = make(model)
    randomise(built)
    inputs = tensors(batch(6))
    table = built.embeddings.embeddings.categories.tables["item"].table
    count, dim = built.embeddings.fields, built.embeddings.dim
    assert table.shape[1] == count * dim
    before = built.embeddings(inputs).numpy()
    change = np.zeros(table.shape)
    change[:, :dim] = 1.0  # for field 0, the user
    table.assign_add(change)
    after = built.embeddings(inputs).numpy()
    changed = {
        (i, j) for i in range(count) for j in range(count) if (before != after)[:, i, j].any()
    }
    assert changed == {(1, 0)}


def test_onn_has_copies_of_their_own_beside_the_products() -> None:
    model = make("onn")
    randomise(model)
    inputs = tensors(batch(6))
    seen = []
    model.mlp.call = lambda value, training=None: seen.append(value.numpy()) or value
    model.logits(inputs, False)
    vectors = model.embeddings(inputs).numpy()
    copies = np.concatenate([vectors[:, i, i] for i in range(5)], axis=1)
    np.testing.assert_allclose(seen[0][:, : copies.shape[1]], copies)
    assert seen[0].shape[1] == copies.shape[1] + 10
    dim = vectors.shape[3]
    others = vectors[:, 0, 1], vectors[:, 0, 2]
    assert all(not np.allclose(copies[:, :dim], other) for other in others)


def test_fnn_begins_from_a_factorization_machine_and_not_at_random() -> None:
    fm, fnn = make("fm"), make("fnn")
    randomise(fm)
    fnn.begin_from(fm)
    inputs = tensors(batch(6))
    np.testing.assert_array_equal(fnn.embeddings(inputs), fm.embeddings(inputs))
    np.testing.assert_array_equal(fnn.first_order(inputs), fm.linear.terms(inputs))
    assert np.ptp(fnn.first_order(inputs).numpy()) > 0.1
    fm.embeddings.number_vectors.assign_add(tf.ones_like(fm.embeddings.number_vectors))
    assert not np.allclose(fnn.embeddings(inputs), fm.embeddings(inputs))  # a copy


@pytest.mark.parametrize("frozen", [False, True])
def test_fnn_trains_its_vectors_unless_they_are_frozen(frozen: bool) -> None:
    model = make("fnn", frozen=frozen)
    fm = make("fm")
    randomise(fm)
    model.begin_from(fm)
    compiled(model)
    below = [*model.first_order.variables, *model.embeddings.variables]
    before = {v.ref(): v.numpy() for v in model.mlp.variables + below}
    for seed in range(2):
        model.train_step(training_data(batch(64, seed), np.arange(64) % 2))
    moved = {ref for ref, value in before.items() if (value != ref.deref().numpy()).any()}
    assert {v.ref() for v in model.mlp.variables} <= moved
    assert {v.ref() for v in below} & moved == (set() if frozen else {v.ref() for v in below})


def test_fnn_plus_has_no_first_order_term() -> None:
    model = make("fnn_plus")
    randomise(model)
    inputs = {name: np.zeros_like(value) for name, value in batch(6).items()}
    inputs["item"] = np.arange(1, 7)
    assert np.ptp(logits(model, inputs)) < 1e-5  # one field alone has no interaction


def test_pnn_superposition_is_the_sum_of_outer_products_of_all_pairs() -> None:
    outer, inner = make("pnn", product="outer"), make("pnn", product="inner")
    both = make("pnn", product="both")
    widths = [m.mlp.stack[0].kernel.shape[0] for m in (inner, outer, both)]
    assert widths == [5 * 4 + 10, 5 * 4 + 4 * 4, 5 * 4 + 10 + 4 * 4]


def test_xdeepfm_feeds_each_layer_the_maps_before_it() -> None:
    """A second layer's map is a product of three fields, so that it is of degree 3."""
    model = make("xdeepfm")
    randomise(model)
    fields = tf.random.stateless_normal([4, 5, 4], [1, 2])
    once, twice = model.cin(fields).numpy(), model.cin(2 * fields).numpy()
    np.testing.assert_allclose(twice[:, :5], 4 * once[:, :5], rtol=1e-4)
    np.testing.assert_allclose(twice[:, 5:], 8 * once[:, 5:], rtol=1e-4)
    model.cin.kernels[0].assign(tf.zeros_like(model.cin.kernels[0]))
    np.testing.assert_array_equal(model.cin(fields), 0)  # nothing goes past the first layer


def test_afm_weighs_all_pairs_and_not_one_pooled_vector() -> None:
    model = make("afm")
    randomise(model)
    attention = model.explain(tensors(batch(8)))["attention"].numpy()
    assert attention.shape == (8, 10)
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
    assert attention.std(axis=1).min() > 1e-3


def test_dcn_adds_its_bias_outside_the_product() -> None:
    model = make("dcn", layers=1)
    randomise(model)
    inputs = batch(6)
    before = logits(model, inputs)
    cross = model.crosses[0]
    cross.bias.assign_add(tf.ones_like(cross.bias))
    weights = model.joined.kernel.numpy()[: cross.bias.shape[0], 0]
    np.testing.assert_allclose(logits(model, inputs) - before, weights.sum(), rtol=1e-4)


def test_dcn_v2_adds_its_bias_inside_the_product() -> None:
    model = make("dcn_v2", layers=1)
    randomise(model)
    inputs = batch(6)
    before = logits(model, inputs)
    cross = model.crosses[0]
    cross.bias.assign_add(tf.ones_like(cross.bias))
    assert np.ptp(logits(model, inputs) - before) > 0.1  # it depends on x_0


def test_dlrm_sends_numbers_through_the_bottom_mlp_only() -> None:
    model = make("dlrm")
    randomise(model)
    last = model.bottom.stack[-2]
    last.kernel.assign(tf.zeros_like(last.kernel))
    last.bias.assign(tf.ones_like(last.bias))
    inputs = batch(6)
    other = {**inputs, "age": inputs["age"] + 1, "price": inputs["price"] - 2}
    np.testing.assert_array_equal(logits(model, inputs), logits(model, other))


def test_dlrm_leaves_out_the_diagonal() -> None:
    model = make("dlrm")
    assert model.top.stack[0].kernel.shape[0] == 4 + 6  # d, and pairs of it and three categories


def test_dlrm_works_without_numbers() -> None:
    features = dataclasses.replace(FEATURES, features=FEATURES.categories, histories=())
    model = make("dlrm", features)
    randomise(model)
    assert np.ptp(logits(model, batch(6, features=features))) > 0.01
    assert model.top.stack[0].kernel.shape[0] == 3


def test_graph_fm_keeps_its_strongest_edges_only() -> None:
    """With one edge per field, a field that no field has chosen says nothing to the others."""
    layer = GraphInteraction(4, neighbours=1, heads=2)
    layer(tf.zeros([1, 5, 4]))
    randomise(layer)
    fields = tf.random.stateless_normal([1, 5, 4], [3, 4])
    pairs = fields[:, :, tf.newaxis] * fields[:, tf.newaxis]
    chosen = layer.selected(layer.selection(pairs))[0, ..., 0].numpy().argmax(axis=1)
    with tf.GradientTape() as tape:
        tape.watch(fields)
        result = layer(fields)
    gradient = tape.jacobian(result, fields).numpy()[0, :, :, 0]  # (to, dim, from, dim)
    felt = np.abs(gradient).max(axis=(1, 3)) > 0
    for to, source in itertools.product(range(5), repeat=2):
        assert not felt[to, source] or source in (to, chosen[to])
    assert (felt.sum(axis=1) > 1).any()


def test_graph_fm_keeps_no_more_edges_where_many_are_equal() -> None:
    few, all_of_them = GraphInteraction(4, 2, 1), GraphInteraction(4, 5, 1)
    for layer in (few, all_of_them):
        layer(tf.zeros([1, 5, 4]))
        randomise(layer)
        layer.selected.kernel.assign(tf.zeros_like(layer.selected.kernel))
    fields = tf.random.stateless_normal([3, 5, 4], [5, 6])
    assert not np.allclose(few(fields), all_of_them(fields))


def test_youtube_ranking_weighs_positives_by_watch_time_and_negatives_by_one() -> None:
    loss = LossConfig(**find("youtube_ranking").load().defaults["loss"])
    inputs, labels = batch(64), np.arange(64) % 2

    def trained(weights: Any, config: LossConfig | None = loss) -> Any:
        model = make("youtube_ranking")
        randomise(model)
        compiled(model)
        model.loss_config = config
        model.train_step(training_data(inputs, labels, weights))
        return logits(model, inputs)

    watched = np.where(labels == 1, np.linspace(1, 90, 64), 1.0)
    of_negatives = np.where(labels == 1, watched, 7.0)
    np.testing.assert_array_equal(trained(watched), trained(of_negatives))
    assert not np.allclose(trained(watched), trained(np.ones(64)))


def test_youtube_ranking_learns_and_serves_the_expected_watch_time() -> None:
    """Watched for 20 at even items, in a tenth of the impressions; not at all at odd ones."""
    served = {"like": tf.constant([-1.0, 0.0, 2.0])}
    model = make("youtube_ranking")
    np.testing.assert_allclose(model.served(served)["like"], np.exp([-1, 0, 2]), rtol=1e-6)
    np.testing.assert_allclose(
        model.probabilities(served)["like"], tf.sigmoid(served["like"]), rtol=1e-6
    )
    inputs = batch(4_096)
    rng = np.random.default_rng(0)
    even = inputs["item"] % 2 == 0
    labels = rng.random(4_096) < np.where(even, 0.1, 0.02)
    weights = np.where(even, 20.0, 5.0)
    optimizers: dict[str, Any] = {
        "embedding": {"learning_rate": 0.02}, "dense": {"name": "adam", "learning_rate": 0.02}
    }  # fmt: skip
    compiled(model, optimizers)
    model.loss_config = LossConfig(**find("youtube_ranking").load().defaults["loss"])
    step = tf.function(model.train_step)
    data = training_data(inputs, labels, weights)
    for _ in range(60):
        step(data)
    times = model.served({"like": tf.constant(logits(model, inputs))})["like"].numpy()
    for kind in (even, ~even):  # odds: Σ watch time / impressions without a click
        expected = (weights * labels)[kind].sum() / (1 - labels)[kind].sum()
        assert times[kind].mean() == pytest.approx(expected, rel=0.25)


def test_youtube_ranking_sees_numbers_as_squares_and_roots_too() -> None:
    model = make("youtube_ranking")
    assert model.mlp.stack[0].kernel.shape[0] == 3 * 4 + 3 * 2
