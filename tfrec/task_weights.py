"""How the losses of several tasks add up to what is minimised."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrec.config import TaskWeightsConfig
from tfrec.features import Label


class TaskWeights(keras.layers.Layer):
    """Σ_k w_k L_k with weights that are given.

    Args:
        labels: the tasks.
        config: which weights.

    Call: per task a loss () and 1, or 0 where no example of the step has its label → () their sum;
    of all losses, this replica's shares.
    """

    def __init__(self, labels: tuple[Label, ...], config: TaskWeightsConfig) -> None:
        super().__init__(dtype=tf.float32, name="task_weights")
        self.labels, self.config = labels, config

    def call(self, losses: list[tf.Tensor], told: list[tf.Tensor]) -> tf.Tensor:
        del told  # a loss that is not told is 0
        return tf.reduce_sum(self.factors() * tf.stack(losses))

    def factors(self) -> tf.Tensor:
        """w: (tasks,)."""
        return tf.constant([self.config.weights.get(label.name, 1.0) for label in self.labels])

    def after_validation(self, means: list[float]) -> None:
        """Learns the mean of every task's losses since the last validation, 0 of no label."""

    def _moving(self, name: str, value: float) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=(len(self.labels),),
            initializer=keras.initializers.Constant(value),
            trainable=False,
            aggregation=tf.VariableAggregation.MEAN,  # of equal ones
        )


class Uncertainty(TaskWeights):
    """Σ_k e^{−s_k} L_k + s_k / 2 with learned log variances s_k; ½ e^{−s_k} L_k for a regression.

    A task without a label in a step has no part in it.

    Source: Kendall, Gal & Cipolla 2018, Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics, section 3.2, equations 7 and 10.

    Args and call: as of `TaskWeights`.
    """

    def __init__(self, labels: tuple[Label, ...], config: TaskWeightsConfig) -> None:
        super().__init__(labels, config)
        self.log_variances = self.add_weight("log_variances", (len(labels),), initializer="zeros")

    def call(self, losses: list[tf.Tensor], told: list[tf.Tensor]) -> tf.Tensor:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        variances = tf.reduce_sum(self.log_variances * tf.stack(told))
        return super().call(losses, told) + variances / 2 / replicas

    def factors(self) -> tf.Tensor:
        halves = [0.5 if label.task == "regression" else 1.0 for label in self.labels]
        return tf.constant(halves) * tf.exp(-self.log_variances)


class Dynamic(TaskWeights):
    """w_k = K softmax(r / T)_k, with r_k the last mean loss of task k over the one before it.

    Dynamic weight averaging. Means are those between validations, the last ones that there were;
    all weights are 1 until there are two.

    Source: Liu, Johns & Davison 2019, End-to-End Multi-Task Learning with Attention, equation 7.

    Args and call: as of `TaskWeights`.
    """

    def __init__(self, labels: tuple[Label, ...], config: TaskWeightsConfig) -> None:
        super().__init__(labels, config)
        self.current, self.before = self._moving("current", 1.0), self._moving("before", 0.0)

    def factors(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.current)

    def after_validation(self, means: list[float]) -> None:
        losses, before = tf.constant(means, tf.float32), tf.convert_to_tensor(self.before)
        both = (before > 0) & (losses > 0)
        ratios = tf.where(both, tf.math.divide_no_nan(losses, before), 1.0)
        shares = tf.nn.softmax(ratios / self.config.temperature)
        self.current.assign(len(self.labels) * shares)
        self.before.assign(tf.where(losses > 0, losses, before))


class GradNorm(TaskWeights):
    """Weights that even out the gradients of the tasks at the last layer that all share.

    With G_k = w_k ‖∇_W L_k‖ and r_k = L_k / L_k(0) over its mean, a step on w of
    Σ_k |G_k − mean(G) r_k^α|, where mean(G) r_k^α is a constant; then w_k ← K w_k / Σ w.
    Weights stay above 0. All of it is over the tasks that have a label in the step; the weights of
    the others stay as they are.

    Source: Chen et al. 2018, GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks, section 3.2, equations 1 and 2, and algorithm 1.

    Args and call: as of `TaskWeights`.
    """

    def __init__(self, labels: tuple[Label, ...], config: TaskWeightsConfig) -> None:
        super().__init__(labels, config)
        self.current, self.first = self._moving("current", 1.0), self._moving("first", 0.0)

    def factors(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.current)

    def after_step(
        self, losses: tf.Tensor, told: tf.Tensor, gradients: list[list[tf.Tensor]]
    ) -> None:
        """Takes a step on the weights, unless a gradient is not finite.

        Args:
            losses: (tasks,), without weights.
            told: (tasks,) 1, or 0 where no example of the step has the label.
            gradients: of each task's loss, by the variables of the layer; as of the losses, this
                replica's shares.
        """
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            losses, gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, [losses, gradients])
        norms = tf.stack([tf.linalg.global_norm(of_task) for of_task in gradients])
        first = tf.where(self.first > 0, self.first, losses)  # a label may be missing at first
        rates = tf.math.divide_no_nan(losses, first)
        rates = tf.math.divide_no_nan(rates, _mean(rates, told))
        current = tf.convert_to_tensor(self.current)
        targets = _mean(current * norms, told) * rates**self.config.alpha
        slopes = tf.sign(current * norms - targets) * norms
        moved = tf.maximum(current - self.config.learning_rate * slopes, 1e-3)
        others = tf.reduce_sum(current * (1 - told))
        scale = (len(self.labels) - others) / tf.maximum(tf.reduce_sum(moved * told), 1e-3)
        moved = tf.where(told > 0, moved * scale, current)
        finite = tf.reduce_all(tf.math.is_finite(norms))
        self.current.assign(tf.where(finite, moved, current))
        self.first.assign(tf.where(finite, first, self.first))


def _mean(values: tf.Tensor, told: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(values * told), tf.reduce_sum(told))


KINDS: dict[str, Any] = {
    "fixed": TaskWeights,
    "uncertainty": Uncertainty,
    "dynamic": Dynamic,
    "gradnorm": GradNorm,
}
