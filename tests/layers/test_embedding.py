import dataclasses

import numpy as np
import tensorflow as tf

from tests.support import FEATURES, batch, tensors
from tfrec.features import NOW, Feature, Table
from tfrec.layers.embedding import Embedding, Embeddings, history_vectors


def test_padding_is_zero_and_is_never_trained() -> None:
    layer = Embedding(5, 3)
    layer(tf.constant([1]))
    layer.table.assign(np.ones((5, 3)))
    with tf.GradientTape() as tape:
        vectors = layer(tf.constant([[0, 2], [2, 4]], tf.int64))
        loss = tf.reduce_sum(vectors)
    np.testing.assert_array_equal(vectors[0, 0], [0, 0, 0])
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.table)).numpy()
    np.testing.assert_array_equal(gradient[:, 0], [0, 0, 2, 0, 1])


def test_unknown_values_begin_at_zero_in_parts_of_the_table_too() -> None:
    layer = Embedding(9, 2, unknown=3)
    assert not layer(tf.range(6, 9)).numpy().any()
    assert layer(tf.range(1, 6)).numpy().all()
    for first, known in ((0, 4), (4, 2), (8, 0)):
        part = layer._initial(
            (9, 2), tf.float32, partition_shape=(4, 2), partition_offset=(first, 0)
        )
        np.testing.assert_array_equal(part.numpy().all(axis=1), np.arange(4) < known)


def test_mean_counts_only_values_that_are_there() -> None:
    layer = Embedding(3, 1)
    layer(tf.constant([1]))
    layer.table.assign([[9.0], [2.0], [4.0]])
    ids = tf.constant([[[1, 2, 0], [0, 0, 0]], [[0, 2, 0], [2, 2, 1]]])
    with tf.GradientTape() as tape:
        means = layer(ids, mean=True)
    np.testing.assert_allclose(means[..., 0], [[3, 0], [4, 10 / 3]], rtol=1e-6)
    gradient = tf.convert_to_tensor(tape.gradient(means, layer.table))
    np.testing.assert_allclose(gradient[:, 0], [0, 1 / 2 + 1 / 3, 1 / 2 + 1 + 2 / 3], rtol=1e-6)


def test_features_of_one_table_share_its_vectors() -> None:
    shared = dataclasses.replace(
        FEATURES,
        features=(
            *FEATURES.features,
            dataclasses.replace(FEATURES.feature("item"), name="second_item"),
        ),
    )
    layer = Embeddings(shared, 4, shared.histories)
    inputs = batch(6, features=shared)
    inputs["second_item"] = inputs["item"]
    inputs["liked_item"][:, 0] = inputs["item"]
    vectors = layer(tensors(inputs))
    np.testing.assert_array_equal(vectors["item"], vectors["second_item"])
    np.testing.assert_array_equal(vectors["item"], vectors["liked_item"][:, 0])
    assert len(layer.trainable_variables) == 3  # user, item, tags


def test_a_candidate_is_seen_without_a_gap() -> None:
    (history,) = FEATURES.histories
    gap = Feature("liked_gap", "category", "user", "liked_gap", mirrors=f"{NOW}liked_gap")
    history = dataclasses.replace(history, features=(history.features[0], gap))
    features = dataclasses.replace(
        FEATURES, tables=(*FEATURES.tables, Table("liked_gap", 32)), histories=(history,)
    )
    layer = Embeddings(features, 4, features.histories)
    inputs = tensors(batch(6, features=features))
    events, candidate, real = history_vectors(layer(inputs), inputs, history)
    table = layer.tables["liked_gap"].table.numpy()
    np.testing.assert_array_equal(candidate[:, 4:], np.repeat(table[1:2], 6, axis=0))
    ids = inputs["liked_gap"].numpy()
    np.testing.assert_array_equal(events[..., 4:][real], table[ids[ids != 0]])
