"""Independent NumPy computations of the papers' equations over histories: one row, one event after
the other, and no padding at all."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.models.reference import Array, dense, looked_up, mean_of_real, sigmoid
from tests.support import Arrays


def events_and_candidates(embeddings: Any, inputs: Arrays) -> tuple[list[Array], Array]:
    """Real events of every row of `tests.support.FEATURES`, and the candidates: item, tags, price.

    Returns:
        (events, width) for every row; (batch, width).
    """
    tables = {name: embeddings.tables[name].table.numpy() for name in ("item", "tags")}

    def side(prefix: str) -> Array:
        items = looked_up(tables["item"], inputs[f"{prefix}item"])
        ids = inputs[f"{prefix}tags"]
        tags = mean_of_real(looked_up(tables["tags"], ids), ids)
        return np.concatenate([items, tags, inputs[f"{prefix}price"][..., np.newaxis]], axis=-1)

    real = inputs["liked_item"] != 0
    events = [row[mask] for row, mask in zip(side("liked_"), real, strict=True)]
    return events, side("")


def simple_rnn(cell: Any, steps: Array) -> Array:
    """h ← tanh(W x + U h + b): states (steps, units)."""
    kernel, recurrent, bias = (v.numpy() for v in cell.weights)
    state, states = np.zeros(len(recurrent)), []
    for x in steps:
        state = np.tanh(x @ kernel + state @ recurrent + bias)
        states.append(state)
    return np.array(states).reshape(-1, len(recurrent))


def gru(cell: Any, steps: Array) -> Array:
    """z = σ(…), r = σ(…), h̃ = tanh(W x + b + r ∘ (U h + b')), h ← z ∘ h + (1 − z) ∘ h̃."""
    kernel, recurrent, bias = (v.numpy() for v in cell.weights)
    units = len(recurrent)
    state, states = np.zeros(units), []
    for x in steps:
        xz, xr, xh = np.split(x @ kernel + bias[0], 3)
        hz, hr, hh = np.split(state @ recurrent + bias[1], 3)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        state = z * state + (1 - z) * np.tanh(xh + r * hh)
        states.append(state)
    return np.array(states).reshape(-1, units)


def lstm(cell: Any, steps: Array) -> Array:
    """c ← f ∘ c + i ∘ tanh(…), h ← o ∘ tanh(c)."""
    kernel, recurrent, bias = (v.numpy() for v in cell.weights)
    units = len(recurrent)
    state, memory, states = np.zeros(units), np.zeros(units), []
    for x in steps:
        i, f, c, o = np.split(x @ kernel + state @ recurrent + bias, 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        state = sigmoid(o) * np.tanh(memory)
        states.append(state)
    return np.array(states).reshape(-1, units)


def recurrent_states(layer: Any, steps: Array) -> Array:
    """States of a layer of any cell: (steps, units)."""
    kinds = {"SimpleRNN": simple_rnn, "GRU": gru, "LSTM": lstm}
    return kinds[type(layer).__name__](layer.cell, steps)


def last(states: Array) -> Array:
    """The last state; zero where there was no step."""
    return states[-1] if len(states) else np.zeros(states.shape[1])


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def evolution(layer: Any, form: str, states: Array, attention: Array) -> Array:
    """Last state of DIEN's second GRU, which begins at 0."""
    cell = layer.rnn.cell
    kernel, recurrent, bias = (v.numpy() for v in (cell.kernel, cell.recurrent, cell.bias))
    state = np.zeros(len(recurrent))
    for x, a in zip(states, attention, strict=True):
        xu, xr, xh = np.split((a * x if form == "aigru" else x) @ kernel + bias, 3)
        hu, hr, hh = np.split(state @ recurrent, 3)
        new = np.tanh(xh + sigmoid(xr + hr) * hh)
        gate = {"augru": a * sigmoid(xu + hu), "agru": a, "aigru": sigmoid(xu + hu)}[form]
        state = (1 - gate) * state + gate * new
    return state


def layer_norm(layer: Any, x: Array) -> Array:
    """Over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * layer.gamma.numpy() + layer.beta.numpy()


def leaky_relu(x: Array) -> Array:
    """0.2 of what is below 0."""
    return np.where(x > 0, x, 0.2 * x)


def gelu(x: Array) -> Array:
    """x Φ(x), value by value."""
    return x * np.vectorize(statistics.NormalDist().cdf)(x)


def attention(layer: Any, x: Array, causal: bool) -> Array:
    """Self-attention over (steps, width), head by head."""
    query, key, value, output = (
        (part.kernel.numpy(), part.bias.numpy())
        for part in (
            layer._query_dense,
            layer._key_dense,
            layer._value_dense,
            layer._output_dense,
        )
    )
    attended = np.zeros_like(x) + output[1]
    for head in range(query[0].shape[1]):
        q, k, v = (x @ kernel[:, head] + bias[head] for kernel, bias in (query, key, value))
        scores = q @ k.T / np.sqrt(k.shape[1])
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        attended += softmax(scores) @ v @ output[0][head]
    return attended


def transformer_block(
    block: Any,
    x: Array,
    causal: bool = False,
    activation: Callable[[Array], Array] = leaky_relu,
) -> Array:
    """A block over (steps, width), with the norms where it has them."""
    if not len(x):
        return x

    def fed(s: Array) -> Array:
        return dense(block.outer, activation(dense(block.inner, s)))

    first, second = block.norms
    if block.pre_norm:
        s = x + attention(block.attention, layer_norm(first, x), causal)
        return s + fed(layer_norm(second, s))
    s = layer_norm(first, x + attention(block.attention, x, causal))
    return layer_norm(second, s + fed(s))


def placed(steps: Array, distances: Any, ago: Array) -> Array:
    """Steps with the vectors of their distances beside them."""
    return np.concatenate([steps, distances.vectors.numpy()[ago]], axis=1)


def next_item_losses(layer: Any, table: Array, states: Array, ids: Array) -> Array:
    """−log softmax(W h_t · e_i)[i_{t+1}] over all ids but the padding, t = 1 … T − 1."""
    kernel = layer.map.kernel.numpy()
    losses = []
    for state, following in zip(states[:-1], ids[1:], strict=True):
        chances = softmax(table[1:] @ (state @ kernel))
        losses.append(-np.log(chances[following - 1]))
    return np.array(losses)
