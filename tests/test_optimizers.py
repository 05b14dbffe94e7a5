from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.models.test_harness import make
from tests.support import batch, training_data
from tfrec.config import OptimizerConfig, OptimizersConfig
from tfrec.optimizers import RowSparseAdam, composite, create_slots, make_optimizer
from tfrec.schedules import Schedule


def sparse(values: Any, indices: Any, rows: int) -> tf.IndexedSlices:
    return tf.IndexedSlices(
        tf.constant(values, tf.float32), tf.constant(indices), tf.constant([rows, 2])
    )


def numpy_adam(table: Any, steps: list[tuple[Any, Any]], lr: float, l2: float, decay: float) -> Any:
    """Row by row, from the docstring's equations."""
    table = table.astype(np.float64).copy()
    m, v = np.zeros_like(table), np.zeros_like(table)
    for t, (values, indices) in enumerate(steps, start=1):
        for row in np.unique(indices):
            g = np.sum([x for x, i in zip(values, indices, strict=True) if i == row], axis=0)
            g = g + l2 * table[row]
            m[row] = 0.9 * m[row] + 0.1 * g
            v[row] = 0.999 * v[row] + 0.001 * g**2
            rate = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            decayed = lr * decay * table[row]
            table[row] -= rate * m[row] / (np.sqrt(v[row]) + 1e-7) + decayed
    return table


@pytest.mark.parametrize(("l2", "decay"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_row_sparse_adam_equals_numpy_with_repeated_rows(l2: float, decay: float) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 2)).astype(np.float32)
    steps = [(rng.normal(size=(5, 2)), rng.integers(0, 6, 5)) for _ in range(7)]
    variable = tf.Variable(table)
    optimizer = RowSparseAdam(0.05, l2=l2, weight_decay=decay)
    for values, indices in steps:
        optimizer.apply_gradients([(sparse(values, indices, 6), variable)])
    expected = numpy_adam(table, steps, 0.05, l2, decay)
    np.testing.assert_allclose(variable, expected, rtol=1e-5, atol=1e-6)


def test_row_sparse_adam_is_adam_when_every_row_is_in_every_batch() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(4, 2)).astype(np.float32)
    ours, dense = tf.Variable(start), tf.Variable(start)
    optimizer, adam = RowSparseAdam(0.1), keras.optimizers.legacy.Adam(0.1)
    for _ in range(5):
        gradient = rng.normal(size=(4, 2)).astype(np.float32)
        optimizer.apply_gradients([(sparse(gradient, np.arange(4), 4), ours)])
        adam.apply_gradients([(tf.constant(gradient), dense)])
    np.testing.assert_allclose(ours, dense, rtol=1e-5, atol=1e-6)


def test_rows_outside_the_batch_keep_weights_and_moments() -> None:
    variable = tf.Variable(np.ones((4, 2), np.float32))
    optimizer = RowSparseAdam(0.1, l2=0.5)
    optimizer.apply_gradients([(sparse([[1, 1], [2, 2]], [0, 1], 4), variable)])
    moments = optimizer.get_slot(variable, "m").numpy().copy()
    before = variable.numpy().copy()
    optimizer.apply_gradients([(sparse([[1, 1]], [0], 4), variable)])
    np.testing.assert_array_equal(variable.numpy()[1:], before[1:])
    np.testing.assert_array_equal(optimizer.get_slot(variable, "m").numpy()[1:], moments[1:])
    assert (variable.numpy()[2:] == 1).all()


def ftrl_steps(optimizer: Any, start: Any) -> Any:
    """Of rows and of a whole variable in turn."""
    variables = tf.Variable(start), tf.Variable(start)
    rng = np.random.default_rng(2)
    for _ in range(8):
        dense, values = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
        gradients = tf.constant(dense, tf.float32), sparse(values, [3, 0, 3], 4)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return np.stack([v.numpy() for v in variables])


def test_ftrl_s_weights_do_not_move_with_its_rate() -> None:
    """Without L1 and L2, FTRL takes Adagrad's steps, at whatever rate the schedule has."""
    start = np.random.default_rng(4).normal(size=(4, 2)).astype(np.float32)
    shape = {"kind": "exponential", "rate": 0.5, "every": 1, "warm_up": 3}
    config = OptimizerConfig.parse(
        {"name": "ftrl", "learning_rate": 0.5, "schedule": shape}, "test"
    )
    adagrad = keras.optimizers.legacy.Adagrad(
        Schedule(0.5, config.schedule, 1, 1.0), initial_accumulator_value=0.1, epsilon=0.0
    )
    found = ftrl_steps(make_optimizer(config), start)
    np.testing.assert_allclose(found, ftrl_steps(adagrad, start), rtol=1e-4, atol=1e-5)


def test_ftrl_of_a_varying_rate_is_ftrl_while_it_stays() -> None:
    """From weights of 0, as all first-order ones begin: FTRL forgets others at its first step."""
    start = np.zeros((4, 2), np.float32)
    config = OptimizerConfig.parse({"name": "ftrl", "l1": 1.0, "l2": 0.1, "learning_rate": 0.5}, "")
    found = ftrl_steps(make_optimizer(config, scale=tf.Variable(1.0)), start)
    expected = ftrl_steps(make_optimizer(config), start)
    assert (expected == 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["row_sparse_adam", "adam", "adagrad", "ftrl", "sgd"])
def test_every_optimizer_lowers_a_loss(name: str) -> None:
    variable = tf.Variable(np.full((3, 2), 5.0, np.float32))
    optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=0.1))  # type: ignore[arg-type]

    def loss() -> Any:
        return tf.reduce_sum(tf.square(tf.gather(variable, [0, 1, 1])))

    before = float(loss())
    for _ in range(20):
        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply_gradients([(tape.gradient(value, variable), variable)])
    assert float(loss()) < before
    assert (variable.numpy()[2] == 5).all() or name in ("adam",)


def test_a_variable_of_no_optimizer_or_of_two_is_an_error() -> None:
    model = make("wide_deep")
    groups = model.groups()
    configs = dict(OptimizersConfig())
    missing = {**groups, "dense": groups["dense"][1:]}
    twice = {**groups, "dense": [*groups["dense"], groups["embedding"][0]]}
    for wrong, message in ((missing, "not handled by any"), (twice, "disjoint")):
        model.compile(optimizer=composite(wrong, configs))
        with pytest.raises(ValueError, match=message):
            model.train_step(training_data(batch(4), [0, 1, 0, 1]))


def test_slots_exist_before_the_first_step_and_survive_a_checkpoint(tmp_path: Any) -> None:
    def trained(steps: int) -> tuple[Any, Any]:
        keras.utils.set_random_seed(3)
        model = make("wide_deep")
        optimizer = composite(model.groups(), dict(OptimizersConfig()))
        create_slots(optimizer, model.groups())
        model.compile(optimizer=optimizer)
        for step in range(steps):
            model.train_step(training_data(batch(8, step), np.arange(8) % 2))
        return model, tf.train.Checkpoint(model=model, optimizer=optimizer)

    whole, _ = trained(4)
    _, half = trained(2)
    path = half.save(str(tmp_path / "half"))
    model, restored = trained(0)
    restored.restore(path).assert_consumed()
    for step in (2, 3):
        model.train_step(training_data(batch(8, step), np.arange(8) % 2))
    for a, b in zip(whole.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.name)


def test_ftrl_of_a_varying_rate_is_the_same_on_two_replicas(mirrored: Any) -> None:
    def trained(replicas: bool) -> Any:
        variables = tf.Variable(np.zeros((4, 2), np.float32)), tf.Variable(tf.zeros((4, 2)))
        shape = {"kind": "exponential", "rate": 0.5, "every": 1}
        config = OptimizerConfig.parse({"name": "ftrl", "l1": 0.1, "schedule": shape}, "test")
        optimizer = make_optimizer(config)

        def step() -> None:
            share = 0.5 if replicas else 1.0
            dense = share * tf.reshape(tf.range(8.0), (4, 2))
            gradients = dense, sparse(share * np.ones((3, 2)), [3, 0, 3], 4)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

        for _ in range(3):
            mirrored.run(step) if replicas else step()
        return np.stack([v.numpy() for v in variables])

    alone = trained(False)
    with mirrored.scope():
        together = trained(True)
    assert np.abs(alone).max() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)
