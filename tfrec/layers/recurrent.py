"""Recurrent layers over histories."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf
import tf_keras as keras

Cell = Literal["rnn", "gru", "lstm"]
Evolution = Literal["augru", "agru", "aigru"]


def recurrent_layer(cell: Cell, units: int, sequences: bool = False) -> keras.layers.Layer:
    """A recurrent layer; padded steps keep the state as it is.

    Args:
        cell: `rnn`, `gru` or `lstm`.
        units: of the state.
        sequences: give the states of all steps, not only the last one.

    Returns:
        A layer of (batch, steps, width), called with `mask` (batch, steps).
    """
    kinds = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}
    return kinds[cell](units, return_sequences=sequences)


def last_state(states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The state at the last real step, zero where there is none.

    Args:
        states: (batch, steps, units).
        mask: (batch, steps), real steps first.

    Returns:
        (batch, units).
    """
    count = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    last = tf.gather(states, tf.maximum(count - 1, 0), batch_dims=1)
    return last * tf.cast(count > 0, states.dtype)[:, tf.newaxis]


class OneStepGRUCell(keras.layers.GRUCell):
    """A GRU cell whose gradients end at the state that it is given."""

    def call(
        self, inputs: tf.Tensor, states: list[tf.Tensor], training: bool | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return super().call(inputs, tf.nest.map_structure(tf.stop_gradient, states), training)


class InterestEvolution(keras.layers.Layer):
    """A GRU whose update gate u_t is driven by the attention a_t of every step.

    u = σ(W_u x + U_u h + b_u), r = σ(W_r x + U_r h + b_r), h̃ = tanh(W_h x + r ∘ U_h h + b_h), and
    h ← (1 − ũ) ∘ h + ũ ∘ h̃ with ũ = a u (augru), ũ = a (agru), or ũ = u over inputs a x (aigru).

    Source: Zhou et al. 2019, Deep Interest Evolution Network for Click-Through Rate Prediction,
    equations 2 to 5 and 10 to 15.

    Args:
        units: of the state, which begins at 0.
        evolution: which of the forms.

    Call: states (batch, steps, width), attention (batch, steps), mask (batch, steps)
    → last state (batch, units).
    """

    def __init__(self, units: int, evolution: Evolution = "augru", **kwargs) -> None:
        super().__init__(**kwargs)
        self.evolution = evolution
        self.rnn = keras.layers.RNN(_AttentionalCell(units, evolution))

    def call(self, states: tf.Tensor, attention: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        if self.evolution == "aigru":
            states *= attention[..., tf.newaxis]
        steps = tf.concat([states, attention[..., tf.newaxis]], axis=-1)
        return self.rnn(steps, mask=mask)


class _AttentionalCell(keras.layers.Layer):
    def __init__(self, units: int, evolution: Evolution, **kwargs) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units
        self.evolution = evolution

    def build(self, input_shape) -> None:
        width = input_shape[-1] - 1  # the last one is the attention
        self.kernel = self.add_weight(name="kernel", shape=(width, 3 * self.units))
        self.recurrent = self.add_weight(
            name="recurrent", shape=(self.units, 3 * self.units), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(3 * self.units,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        state, attention = states[0], inputs[:, -1:]
        mapped = tf.matmul(inputs[:, :-1], self.kernel) + self.bias
        update, reset, new = tf.split(mapped, 3, axis=1)
        update_h, reset_h, new_h = tf.split(tf.matmul(state, self.recurrent), 3, axis=1)
        new = tf.tanh(new + tf.sigmoid(reset + reset_h) * new_h)
        if self.evolution == "agru":
            gate = attention
        else:
            gate = tf.sigmoid(update + update_h)
            gate = attention * gate if self.evolution == "augru" else gate
        state = (1 - gate) * state + gate * new
        return state, [state]
