"""Optimizers by variable group, joined into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrec.config import OptimizerConfig, ScheduleConfig
from tfrec.schedules import Schedule

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
        weight_decay: takes lr · weight_decay · w from the batch's rows, beside Adam's step
            (Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2).
        beta_1: decay of the first moments.
        beta_2: decay of the second moments.
        epsilon: beside their roots.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "RowSparseAdam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.l2, self.weight_decay = l2, weight_decay

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None
    ) -> tf.Operation:
        grad += self.l2 * var
        if self.weight_decay:
            state = self._state(var, apply_state)
            var.assign_sub(state["lr_t"] * self.weight_decay * var)
        return super()._resource_apply_dense(grad, var, apply_state)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        state = self._state(var, apply_state)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        if self.l2 or self.weight_decay:
            rows = tf.gather(var, indices)
            grad += self.l2 * rows
        rows_m = state["beta_1_t"] * tf.gather(m, indices) + state["one_minus_beta_1_t"] * grad
        rows_v = state["beta_2_t"] * tf.gather(v, indices) + state["one_minus_beta_2_t"] * grad**2
        rate = state["lr_t"] * tf.sqrt(1 - state["beta_2_power"]) / (1 - state["beta_1_power"])
        step = rate * rows_m / (tf.sqrt(rows_v) + state["epsilon"])
        if self.weight_decay:
            step += state["lr_t"] * self.weight_decay * rows
        return tf.group(
            m.scatter_update(tf.IndexedSlices(rows_m, indices)),
            v.scatter_update(tf.IndexedSlices(rows_v, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )

    def _state(self, var: tf.Variable, apply_state: Any) -> dict[str, tf.Tensor]:
        key = (var.device, var.dtype.base_dtype)
        return (apply_state or {}).get(key) or self._fallback_apply_state(*key)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2, "weight_decay": self.weight_decay}


class VaryingFtrl(keras.optimizers.legacy.Ftrl):
    """FTRL-Proximal whose learning rate α may change without moving the weights.

    FTRL keeps z, of which w = (sign(z) λ1 − z) / (√n / α + 2 λ2) where |z| > λ1: at half the rate,
    the same z is half the weight. So z is set to what stands for w at the rate of the step,
    −w (√n / α + 2 λ2) − sign(w) λ1, before each step; without L1 and L2 that is
    w ← w − α g / √n, with n the sum of squares g².

    Source: McMahan et al. 2013, Ad Click Prediction: a View from the Trenches, algorithm 1.
    """

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None
    ) -> tf.Operation:
        linear, accumulator = self.get_slot(var, "linear"), self.get_slot(var, "accumulator")
        kept = linear.assign(self._standing_for(var, accumulator, linear))
        with tf.control_dependencies([kept]):
            return super()._resource_apply_dense(grad, var, apply_state)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        slots = var, self.get_slot(var, "accumulator"), self.get_slot(var, "linear")
        rows = self._standing_for(*(tf.gather(slot, indices) for slot in slots))
        kept = slots[2].scatter_update(tf.IndexedSlices(rows, indices))
        with tf.control_dependencies([kept]):
            return super()._resource_apply_sparse(grad, var, indices, apply_state)

    def _standing_for(self, var: Any, accumulator: Any, linear: Any) -> tf.Tensor:
        rate = self._decayed_lr(tf.float32)
        l1 = self._get_hyper("l1_regularization_strength", tf.float32)
        l2 = self._get_hyper("l2_regularization_strength", tf.float32)
        value = -var * (tf.sqrt(accumulator) / rate + 2 * l2) - tf.sign(var) * l1
        return tf.where(tf.not_equal(var, 0.0), value, linear)


def make_optimizer(
    config: OptimizerConfig, steps: int = 1, scale: tf.Variable | None = None
) -> keras.optimizers.legacy.Optimizer:
    """One optimizer from its configuration.

    Args:
        config: which, and its schedule.
        steps: of the whole run.
        scale: factor of the learning rate that the run may lower.
    """
    steady = scale is None and config.schedule == ScheduleConfig()
    rate: Any = config.learning_rate
    if not steady:
        factor = 1.0 if scale is None else scale
        rate = Schedule(config.learning_rate, config.schedule, steps, factor)
    if config.name == "ftrl":
        return (legacy.Ftrl if steady else VaryingFtrl)(
            rate,
            l1_regularization_strength=config.l1,
            l2_regularization_strength=config.l2,
        )
    if config.name == "row_sparse_adam":
        return RowSparseAdam(rate, l2=config.l2, weight_decay=config.weight_decay)
    return {"adagrad": legacy.Adagrad, "sgd": legacy.SGD, "adam": legacy.Adam}[config.name](rate)


class _Composite(tfrs.experimental.optimizers.CompositeOptimizer):
    """Returns an operation, as loss scaling expects of an optimizer."""

    def apply_gradients(self, *args: Any, **kwargs: Any) -> Any:
        super().apply_gradients(*args, **kwargs)
        return self.iterations.assign_add(0, read_value=False)


def composite(
    groups: Mapping[str, Sequence[tf.Variable]],
    configs: dict[str, OptimizerConfig],
    steps: int = 1,
    scale: tf.Variable | None = None,
) -> tfrs.experimental.optimizers.CompositeOptimizer:
    """Joins an optimizer per group, so that one step trains all.

    A variable that no group holds, or two, raises at the first step.

    Args:
        groups: trainable variables by group; empty groups are left out.
        configs: optimizer of each group.
        steps: of the whole run, for schedules.
        scale: factor of all learning rates that the run may lower.
    """

    def of(group: str) -> Callable[[], Sequence[tf.Variable]]:
        return partial(groups.__getitem__, group)

    return _Composite(
        [
            (make_optimizer(configs[group], steps, scale), of(group))
            for group, owned in groups.items()
            if owned
        ]
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


def clipped(gradients: list[Any], norm: float) -> list[Any]:
    """Gradients scaled so that their global norm is at most `norm`.

    Sparse gradients list a row once per occurrence: those are summed first, since the norm is
    that of the whole gradient. Inside replicas the gradients have to be those of all replicas.
    """
    summed = [_summed(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    return tf.clip_by_global_norm(summed, norm)[0]


def _summed(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    rows, places = tf.unique(slices.indices)
    values = tf.math.unsorted_segment_sum(slices.values, places, tf.size(rows))
    return tf.IndexedSlices(values, rows, slices.dense_shape)
