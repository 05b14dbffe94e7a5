import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.models import reference
from tests.support import FEATURES, batch, randomise, tensors
from tfrec.layers.interactions import (
    CIN,
    BiInteraction,
    MatrixCross,
    VectorCross,
    field_aware_products,
    inner_products,
    pair_products,
    upper_triangle,
)
from tfrec.layers.linear import HashedPairs


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def test_bi_interaction_and_its_gradient_are_those_of_the_pairs() -> None:
    fields, upstream = tf.constant(normal(3, 5, 4)), normal(3, 4)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(fields)
        pooled = BiInteraction()(fields)
        pairs = [fields[:, i] * fields[:, j] for i, j in itertools.combinations(range(5), 2)]
        expected = tf.add_n(pairs)
    np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        tape.gradient(pooled, fields, upstream),
        tape.gradient(expected, fields, upstream),
        rtol=1e-4,
        atol=1e-5,
    )


def test_pairs_come_in_order() -> None:
    matrix = tf.constant([[[0, 1, 2, 3], [9, 9, 4, 5], [9, 9, 9, 6], [9, 9, 9, 9]]])
    np.testing.assert_array_equal(upper_triangle(matrix), [[1, 2, 3, 4, 5, 6]])
    fields = normal(2, 4, 3)
    pairs = list(itertools.combinations(range(4), 2))
    products = [fields[:, i] * fields[:, j] for i, j in pairs]
    np.testing.assert_allclose(pair_products(tf.constant(fields)), np.stack(products, axis=1))
    np.testing.assert_allclose(
        inner_products(tf.constant(fields)),
        np.stack([p.sum(axis=1) for p in products], axis=1),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("split_half", [False, True])
@pytest.mark.parametrize("maps", [[4], [5, 3], [4, 5, 2]])
def test_cin_equals_its_equation(maps: list[int], split_half: bool) -> None:
    layer, fields = CIN(maps, split_half, "relu"), normal(3, 5, 4)
    found = layer(tf.constant(fields))
    # Of a split layer only half goes to the output, but of the last one all.
    width = sum(m // 2 for m in maps[:-1]) + maps[-1] if split_half else sum(maps)
    assert found.shape == (3, width)
    np.testing.assert_allclose(found, reference.cin(layer, fields), rtol=1e-4, atol=1e-5)


def test_vector_cross_is_a_matrix_cross_of_rank_one_with_the_bias_outside() -> None:
    x0, x = tf.constant(normal(6, 4)), tf.constant(normal(6, 4)[::-1].copy())
    vector, matrix = VectorCross(), MatrixCross()
    for layer in (vector, matrix):
        layer(x0, x)
        randomise(layer)
    matrix.kernel.assign(tf.repeat(vector.kernel, 4, axis=1))
    matrix.bias.assign(tf.zeros(4))
    np.testing.assert_allclose(vector(x0, x) - vector.bias, matrix(x0, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"rank": 2}, {"rank": 4}, {"rank": 2, "experts": 3}], ids=str
)
def test_matrix_cross_equals_its_equation(settings: dict[str, Any]) -> None:
    x0, x, layer = normal(6, 4), normal(6, 4)[::-1].copy(), MatrixCross(**settings)
    layer(tf.constant(x0), tf.constant(x))
    randomise(layer)
    expected = reference.matrix_cross(layer, x0, x)
    np.testing.assert_allclose(layer(tf.constant(x0), tf.constant(x)), expected, rtol=1e-4)


def test_experts_need_a_rank() -> None:
    with pytest.raises(ValueError, match="rank"):
        MatrixCross(experts=2)


def hashed(buckets: int) -> HashedPairs:
    """A weight of its own in every bucket, so that a logit tells which one was met."""
    layer = HashedPairs(FEATURES, buckets)
    layer(tensors(batch(1)))
    layer.table.assign(np.arange(buckets)[:, np.newaxis])
    return layer


def met(layer: HashedPairs, **given: list[int]) -> Any:
    """Buckets of examples in which nothing else than what is given is there."""
    size = len(next(iter(given.values())))
    inputs = {name: np.zeros_like(value) for name, value in batch(size).items()}
    for name, ids in given.items():
        inputs[name][...] = np.reshape(ids, (size, *[1] * (inputs[name].ndim - 1)))
    return layer(tensors(inputs)).numpy()


def test_pairs_of_one_id_space_in_two_fields_differ_by_their_order() -> None:
    layer = hashed(1_000_003)
    ids = list(itertools.permutations(range(1, 9), 2))
    first, second = [a for a, _ in ids], [b for _, b in ids]
    assert (met(layer, user=first, item=second) != met(layer, user=second, item=first)).all()
    assert len(set(met(layer, user=first, item=second))) == len(ids)
    # The same ids in other fields are other pairs.
    assert (met(layer, user=first, item=second) != met(layer, user=first, tags=second)).all()


def test_a_field_makes_no_pairs_alone_or_among_its_own_values() -> None:
    layer = hashed(1_000_003)
    assert (met(layer, user=[1, 2]) == 0).all()
    inputs = {name: np.zeros_like(value) for name, value in batch(1).items()}
    inputs["tags"][:] = [1, 2, 3]
    assert (layer(tensors(inputs)).numpy() == 0).all()


def test_hashed_pairs_fill_all_buckets_evenly() -> None:
    buckets = 64
    pairs = list(itertools.product(range(1, 129), range(1, 129)))
    found = met(hashed(buckets), user=[a for a, _ in pairs], item=[b for _, b in pairs])
    counts = np.bincount(found.astype(int), minlength=buckets)
    expected = len(pairs) / buckets
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 104  # 0.1 % of random hashes are above, with 63 degrees of freedom


def test_hashed_pairs_are_the_same_everywhere() -> None:
    """A table trained on one machine is served on another: the hash is part of the weights."""
    inputs, layer = batch(9), hashed(5_000)
    np.testing.assert_allclose(
        layer(tensors(inputs)), reference.hashed_pairs(layer, inputs), rtol=1e-4, atol=0.1
    )


def test_gradient_of_field_aware_products_is_that_of_their_definition() -> None:
    vectors = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 4, 2)), tf.float32)

    def gradient(products: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            loss = tf.reduce_sum(tf.sin(products(vectors)))
        return tape.gradient(loss, vectors)

    expected = gradient(lambda v: upper_triangle(tf.einsum("bijk,bjik->bij", v, v)))
    np.testing.assert_allclose(gradient(field_aware_products), expected, rtol=1e-5, atol=1e-6)
