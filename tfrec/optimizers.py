"""Optimizers by variable group, joined into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrec.config import OptimizerConfig

# tf_keras' newer optimizers touch whole tables at every step, even where they take sparse
# gradients; the older ones have fused sparse kernels for FTRL and Adagrad, and slots that a
# subclass can gather.
legacy: Any = keras.optimizers.legacy


class RowSparseAdam(keras.optimizers.legacy.Adam):
    """Adam whose step on a table costs what the batch's rows cost, not what the table costs.

    For the rows of the batch, with duplicates summed into g: m ← β1 m + (1 − β1) g,
    v ← β2 v + (1 − β2) g², w ← w − lr √(1 − β2^t) / (1 − β1^t) · m / (√v + ε), t counting all
    steps. Unlike Adam, rows that are not in the batch keep their moments and their weights: no
    decay of the moments, and no movement by momentum. Dense variables get plain Adam.

    Source: Kingma & Ba 2015, Adam, algorithm 1, with the efficient form of section 2.

    Args:
        learning_rate: a number or a schedule.
        l2: added to the gradient of the batch's rows as l2 · w.
        beta_1, beta_2, epsilon: of Adam.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        l2: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "RowSparseAdam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.l2 = l2

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None
    ) -> tf.Operation:
        return super()._resource_apply_dense(grad + self.l2 * var, var, apply_state)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        key = (var.device, var.dtype.base_dtype)
        state = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        if self.l2:
            grad += self.l2 * tf.gather(var, indices)
        rows_m = state["beta_1_t"] * tf.gather(m, indices) + state["one_minus_beta_1_t"] * grad
        rows_v = state["beta_2_t"] * tf.gather(v, indices) + state["one_minus_beta_2_t"] * grad**2
        rate = state["lr_t"] * tf.sqrt(1 - state["beta_2_power"]) / (1 - state["beta_1_power"])
        step = rate * rows_m / (tf.sqrt(rows_v) + state["epsilon"])
        return tf.group(
            m.scatter_update(tf.IndexedSlices(rows_m, indices)),
            v.scatter_update(tf.IndexedSlices(rows_v, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2}


def make_optimizer(config: OptimizerConfig) -> keras.optimizers.legacy.Optimizer:
    """One optimizer from its configuration."""
    if config.name == "ftrl":
        return legacy.Ftrl(
            config.learning_rate,
            l1_regularization_strength=config.l1,
            l2_regularization_strength=config.l2,
        )
    if config.name == "adagrad":
        return legacy.Adagrad(config.learning_rate)
    if config.name == "sgd":
        return legacy.SGD(config.learning_rate)
    if config.name == "adam":
        return legacy.Adam(config.learning_rate)
    return RowSparseAdam(config.learning_rate, l2=config.l2)


def composite(
    groups: Mapping[str, Sequence[tf.Variable]], configs: dict[str, OptimizerConfig]
) -> tfrs.experimental.optimizers.CompositeOptimizer:
    """Joins an optimizer per group, so that one step trains all.

    A variable that no group holds, or two, raises at the first step.

    Args:
        groups: trainable variables by group; empty groups are left out.
        configs: optimizer of each group.
    """

    def of(group: str) -> Callable[[], Sequence[tf.Variable]]:
        return partial(groups.__getitem__, group)

    return tfrs.experimental.optimizers.CompositeOptimizer(
        [(make_optimizer(configs[group]), of(group)) for group, owned in groups.items() if owned]
    )


def create_slots(
    optimizer: tfrs.experimental.optimizers.CompositeOptimizer,
    groups: Mapping[str, Sequence[tf.Variable]],
) -> None:
    """Makes all of the optimizer's variables now, so that they can be counted and restored."""
    owned = [variables for variables in groups.values() if variables]
    for inner, variables in zip(optimizer.optimizers, owned, strict=True):
        _ = inner.iterations
        inner._create_hypers()
        inner._create_slots(variables)
