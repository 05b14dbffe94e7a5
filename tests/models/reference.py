"""Independent NumPy computations of the papers' equations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def looked_up(table: Array, ids: Array) -> Array:
    """Rows of a table; zero for padding."""
    rows = np.zeros((*ids.shape, table.shape[1]))
    for place in np.ndindex(ids.shape):
        if ids[place]:
            rows[place] = table[ids[place]]
    return rows


def mean_of_real(rows: Array, ids: Array) -> Array:
    """(…, values, dim) → (…, dim), over ids that are not padding."""
    result = np.zeros((*ids.shape[:-1], rows.shape[-1]))
    for place in np.ndindex(ids.shape[:-1]):
        real = [rows[(*place, i)] for i in range(ids.shape[-1]) if ids[(*place, i)]]
        if real:
            result[place] = np.mean(real, axis=0)
    return result


def terms(layer: Any, inputs: dict[str, Array]) -> Array:
    """w_i x_i, feature by feature: categories, crosses if the layer has them, age, price."""
    columns = []
    for name, variable in layer.one_hot_weights.items():
        rows = looked_up(variable.numpy(), inputs[name])
        columns.append((mean_of_real(rows, inputs[name]) if inputs[name].ndim == 2 else rows)[:, 0])
    for index, name in enumerate(("age", "price")):
        columns.append(layer.number_weights.numpy()[index, 0] * inputs[name])
    return np.stack(columns, axis=1)


def linear(layer: Any, inputs: dict[str, Array]) -> Array:
    """w0 + Σ w_i x_i."""
    return layer.bias.numpy() + terms(layer.terms, inputs).sum(axis=1)


def vectors(layer: Any, inputs: dict[str, Array]) -> dict[str, Array]:
    """Embedded categories of `tests.support.FEATURES`."""
    tables = {name: table.table.numpy() for name, table in layer.tables.items()}
    result = {}
    for name in ("user", "item"):
        result[name] = looked_up(tables[name], inputs[name])
    result["tags"] = mean_of_real(looked_up(tables["tags"], inputs["tags"]), inputs["tags"])
    result["liked_item"] = looked_up(tables["item"], inputs["liked_item"])
    liked_tags = looked_up(tables["tags"], inputs["liked_tags"])
    result["liked_tags"] = mean_of_real(liked_tags, inputs["liked_tags"])
    return result


def field_matrix(layer: Any, inputs: dict[str, Array]) -> Array:
    """x_i v_i of user, item, tags, age, price: (batch, 5, dim)."""
    embedded = vectors(layer.categories, inputs)
    numbers = layer.number_vectors.numpy()
    rows = [embedded[name] for name in ("user", "item", "tags")]
    rows += [inputs[name][:, np.newaxis] * numbers[i] for i, name in enumerate(("age", "price"))]
    return np.stack(rows, axis=1)


def fields(embedded: dict[str, Array], inputs: dict[str, Array]) -> Array:
    """[v_user, v_item, v_tags, age, price]."""
    numbers = np.stack([inputs["age"], inputs["price"]], axis=1)
    return np.concatenate([embedded["user"], embedded["item"], embedded["tags"], numbers], axis=1)


def dice(layer: Any, x: Array) -> Array:
    """Serving form: moving moments."""
    mean, variance, slope = (v.numpy() for v in (layer.mean, layer.variance, layer.slope))
    p = sigmoid((x - mean) / np.sqrt(variance + layer.epsilon))
    return p * x + (1 - p) * slope * x


def batch_norm(layer: Any, x: Array) -> Array:
    """Serving form: moving moments."""
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    normed = (x - mean) / np.sqrt(variance + layer.epsilon)
    return layer.gamma.numpy() * normed + layer.beta.numpy()


def relu(x: Array) -> Array:
    """0 where it is below."""
    return np.maximum(x, 0)


ACTIVATIONS = {"relu": relu, "tanh": np.tanh, "linear": lambda x: x}


def mlp(layer: Any, x: Array) -> Array:
    """Dense layers with batch norm and activations, as served: without dropout."""
    for part in layer.stack:
        kind = type(part).__name__
        if kind == "Dense":
            x = x @ part.kernel.numpy() + part.bias.numpy()
        elif kind == "Dice":
            x = dice(part, x)
        elif kind == "BatchNormalization":
            x = batch_norm(part, x)
        elif kind == "ChannelPReLU":
            x = np.where(x > 0, x, part.slope.numpy() * x)
        elif kind == "Activation":
            x = ACTIVATIONS[part.activation.__name__](x)
        else:
            assert kind == "Dropout"
    return x


def attention(unit: Any, events: Array, candidate: Array, mask: Array) -> Array:
    """a_j = MLP[e_j, v, e_j − v, e_j ∘ v], event by event; 0 at padding."""
    weights = np.zeros(mask.shape)
    for row, column in np.argwhere(mask):
        e, v = events[row, column], candidate[row]
        weights[row, column] = mlp(unit.mlp, np.concatenate([e, v, e - v, e * v])[np.newaxis])[0, 0]
    if unit.softmax:
        for row in range(len(mask)):
            if mask[row].any():
                real = np.exp(weights[row][mask[row]] - weights[row][mask[row]].max())
                weights[row][mask[row]] = real / real.sum()
    return weights


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _mixed(key: np.int64) -> np.int64:
    for factor in (-0x61C8864680B583EB, -0x4B47D0C5A1A7C3D9):
        key = (key ^ (key >> np.int64(29))) * np.int64(factor)
    return key ^ (key >> np.int64(32))


def hashed_pairs(layer: Any, inputs: dict[str, Array]) -> Array:
    """Σ w_{hash(i,j)} x_i x_j over the values of different fields, example by example."""
    table = layer.table.numpy()[:, 0]
    result = np.zeros(len(inputs["user"]))
    for row in range(len(result)):
        values = []  # (field, id, x)
        for field, name in enumerate(("user", "item", "tags")):
            real = [i for i in np.atleast_1d(inputs[name][row]) if i]
            values += [(field, i, 1 / len(real)) for i in real]
        values += [(3 + i, 0, inputs[name][row]) for i, name in enumerate(("age", "price"))]
        with np.errstate(over="ignore"):
            for (f, i, x), (g, j, y) in itertools.combinations(values, 2):
                if f != g:
                    first, second = (_mixed(np.int64(a + 2**40 * b)) for a, b in ((i, f), (j, g)))
                    key = _mixed(first * np.int64(3) + second)
                    result[row] += table[key % np.int64(len(table))] * x * y
    return result


def field_aware(layer: Any, inputs: dict[str, Array]) -> Array:
    """x_i v_{i,j}: (batch, i, j, dim)."""
    rows = field_matrix(layer.embeddings, inputs)
    return np.stack(np.split(rows, 5, axis=2), axis=2)


def cin(layer: Any, x0: Array) -> Array:
    """X^k_h = φ(Σ_ij W^{k,h}_ij (X^{k−1}_i ∘ X^0_j)), map by map; their sums over the vectors."""
    activation = ACTIVATIONS[layer.activation.__name__]
    before, pooled = x0, []
    for place, kernel in enumerate(layer.kernels):
        weights = kernel.numpy().reshape(before.shape[1], x0.shape[1], -1)
        maps = []
        for h in range(weights.shape[2]):
            pairs = np.ndindex(weights.shape[:2])
            terms = [weights[i, j, h] * before[:, i] * x0[:, j] for i, j in pairs]
            maps.append(activation(np.sum(terms, axis=0)))
        last = place == len(layer.kernels) - 1
        half = len(maps) // 2 if layer.split_half and not last else None
        pooled += [m.sum(axis=1) for m in maps[:half]]
        before = np.stack(maps[half or 0 :], axis=1)
    return np.stack(pooled, axis=1)


def matrix_cross(layer: Any, x0: Array, x: Array) -> Array:
    """x_0 ∘ (W x + b) + x with W full, U Vᵀ, or a gated mixture, example by example."""
    bias, result = layer.bias.numpy(), np.zeros_like(x)
    for row, value in enumerate(x):
        if layer.rank is None:
            result[row] = x0[row] * (layer.kernel.numpy().T @ value + bias) + value
            continue
        outputs = []
        for i, (u, v) in enumerate(zip(layer.u.numpy(), layer.v.numpy(), strict=True)):
            inner = v.T @ value
            if layer.experts > 1:
                inner = np.tanh(layer.c.numpy()[i].T @ np.tanh(inner))
            outputs.append(x0[row] * (u.T @ inner + bias))
        gates = softmax(value @ layer.gate.numpy()) if layer.experts > 1 else [1.0]
        result[row] = sum(g * o for g, o in zip(gates, outputs, strict=True)) + value
    return result


def convolution(layer: Any, x: Array) -> Array:
    """relu of filters over the second axis, whose ends are padded with zeros."""
    kernel, width = layer.kernel.numpy(), layer.kernel_size[0]
    before = (width - 1) // 2
    padded = np.pad(x, ((0, 0), (before, width - 1 - before), (0, 0)))
    result = np.zeros((*x.shape[:2], kernel.shape[2]))
    for place in range(x.shape[1]):
        for step in range(width):
            result[:, place] += padded[:, place + step] @ kernel[step]
    return np.maximum(result + layer.bias.numpy(), 0)


def dense(layer: Any, x: Array) -> Array:
    """W x + b, before any activation."""
    x = x @ layer.kernel.numpy()
    return x + layer.bias.numpy() if layer.use_bias else x


def graph_interaction(layer: Any, nodes: Array) -> Array:
    """Node by node: its strongest edges (also to itself), then what every head gathers there."""
    result = np.zeros_like(nodes)
    count = nodes.shape[1]
    for row, i in np.ndindex(nodes.shape[:2]):
        pairs = nodes[row, i] * nodes[row]
        hidden = np.maximum(dense(layer.selection, pairs), 0)
        strength = sigmoid(dense(layer.selected, hidden))[:, 0]
        kept = np.argsort(-strength, kind="stable")[: min(layer.neighbours, count)]
        values = np.split(dense(layer.values, pairs)[kept], layer.heads, axis=1)
        heads = []
        for head, vector in zip(values, layer.attention.numpy(), strict=True):
            scores = head @ vector
            shares = softmax(np.where(scores > 0, scores, 0.2 * scores)) * strength[kept]
            heads.append(np.maximum(shares @ head, 0))
        result[row, i] = nodes[row, i] + dense(layer.joined, np.concatenate(heads))
    return result


def expert(layer: Any, place: int, x: Array) -> Array:
    """f_i(x) of one of the experts side by side, as served."""
    for wide, after in zip(layer.dense, layer.after, strict=True):
        x = x @ wide.kernel.numpy()[place] + wide.bias.numpy()[place]
        own = slice(place * wide.units, (place + 1) * wide.units)
        for part in after:
            kind = type(part).__name__
            if kind == "BatchNormalization":
                mean, variance = part.moving_mean.numpy()[own], part.moving_variance.numpy()[own]
                normed = (x - mean) / np.sqrt(variance + part.epsilon)
                x = part.gamma.numpy()[own] * normed + part.beta.numpy()[own]
            elif kind == "ChannelPReLU":
                x = np.where(x > 0, x, part.slope.numpy()[own] * x)
            else:
                x = ACTIVATIONS[part.activation.__name__](x)
    return x


def mixture(gate: Any, x: Array, experts: list[Array]) -> Array:
    """Σ_i softmax(W x)_i f_i, example by example."""
    kernel = gate.map.kernel.numpy()
    assert kernel.shape[1] == len(experts)
    rows = []
    for row, value in enumerate(x):
        shares = softmax(value @ kernel)
        rows.append(sum(g * f[row] for g, f in zip(shares, experts, strict=True)))
    return np.array(rows)
