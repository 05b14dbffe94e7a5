"""Experts, the gates that mix them, and levels of both."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from tfrec.layers.mlp import after_dense


class ExpertsDense(keras.layers.Layer):
    """W_i x_i + b_i of every expert i, all in one product.

    Args:
        experts: how many.
        units: width of each one's output.

    Call: (batch, width), which all see, or (batch, experts, width) → (batch, experts, units).
    """

    def __init__(self, experts: int, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.experts, self.units = experts, units

    def build(self, input_shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.experts, input_shape[-1], self.units),
            # He et al.'s, as in an MLP; Keras takes the inputs of all experts for those of each.
            initializer=keras.initializers.VarianceScaling(2.0 * self.experts, "fan_in"),
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.experts, self.units), initializer="zeros"
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        equation = "bei,eio->beo" if inputs.shape.rank == 3 else "bi,eio->beo"
        return tf.einsum(equation, inputs, self.kernel) + self.bias


class Experts(keras.layers.Layer):
    """MLPs side by side: f_i(x) of every expert i.

    Args:
        experts: how many.
        hidden: widths of each one's layers.
        activation: of each layer.
        dropout: share of the units dropped after each layer.
        batch_norm: normalise before each activation.

    Call: (batch, width), which all see, or (batch, experts, width) → (batch, experts, hidden[-1]).

    Raises:
        ValueError: there is no layer.
    """

    def __init__(
        self,
        experts: int,
        hidden: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not hidden:
            raise ValueError("experts need at least one layer, and `hidden` is empty")
        self.dense = [ExpertsDense(experts, width) for width in hidden]
        self.after = [after_dense(activation, dropout, batch_norm) for _ in hidden]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        value = inputs
        for dense, after in zip(self.dense, self.after, strict=True):
            value = dense(value)
            shape = [-1, *value.shape[1:]]
            value = tf.reshape(value, [-1, dense.experts * dense.units])  # a channel for each unit
            for layer in after:
                value = layer(value, training=training)
            value = tf.reshape(value, shape)
        return value


class Gate(keras.layers.Layer):
    """Σ_i g_i f_i of experts f_i with g = softmax(W x).

    Source: Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, section 4, equations 5 to 7.

    Args:
        experts: how many.

    Call: x (batch, width), experts (batch, experts, units) → (batch, units).
    """

    def __init__(self, experts: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.map = keras.layers.Dense(experts, use_bias=False)

    def call(self, inputs: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
        return tf.einsum("be,beu->bu", self.shares(inputs), experts)

    def shares(self, inputs: tf.Tensor) -> tf.Tensor:
        """g: (batch, width) → (batch, experts)."""
        return tf.nn.softmax(self.map(inputs))


class Extraction(keras.layers.Layer):
    """One level of experts that belong to a task, experts that all share, and their gates.

    The gate of task k mixes its own experts and the shared ones, by what task k had from the level
    before; the shared gate mixes the experts of all tasks and the shared ones.

    Source: Tang et al. 2020, Progressive Layered Extraction (PLE), sections 4.1 (customised gate
    control, equations 1 to 3) and 4.2 (equation 5).

    Args:
        tasks: how many.
        task_experts: of each task.
        shared_experts: of all.
        hidden: widths of each expert's layers.
        activation: of the experts.
        dropout: in the experts.
        batch_norm: in the experts.
        last: the last level has no shared gate, which nothing would come after.

    Call: (batch, width), which all see, or (batch, tasks + 1, width), the shared one last
    → (batch, tasks + 1, hidden[-1]), or (batch, tasks, hidden[-1]) of the last level.
    """

    def __init__(
        self,
        tasks: int,
        task_experts: int,
        shared_experts: int,
        hidden: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        last: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        own = tasks * task_experts
        self.owners = [place // task_experts for place in range(own)]
        self.own = Experts(own, hidden, activation, dropout, batch_norm)
        self.shared = Experts(shared_experts, hidden, activation, dropout, batch_norm)
        shared = list(range(own, own + shared_experts))
        self.seen = [
            [place for place in range(own) if self.owners[place] == task] + shared
            for task in range(tasks)
        ]
        if not last:
            self.seen.append([*range(own), *shared])
        self.gates = [Gate(len(places)) for places in self.seen]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        own = shared = inputs
        if inputs.shape.rank == 3:
            own, shared = tf.gather(inputs, self.owners, axis=1), inputs[:, -1]
        experts = [self.own(own, training=training), self.shared(shared, training=training)]
        experts = tf.concat(experts, axis=1)
        values = self._of_gates(inputs)
        mixed = [
            gate(value, tf.gather(experts, places, axis=1))
            for gate, value, places in zip(self.gates, values, self.seen, strict=True)
        ]
        return tf.stack(mixed, axis=1)

    def shares(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """Of the experts that each gate sees, the shared ones last: (batch, experts) each."""
        values = self._of_gates(inputs)
        return [gate.shares(value) for gate, value in zip(self.gates, values, strict=True)]

    def _of_gates(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        if inputs.shape.rank == 2:
            return [inputs] * len(self.gates)
        return tf.unstack(inputs, axis=1)[: len(self.gates)]
