"""Independent NumPy computations of the papers' equations."""

from __future__ import annotations

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


def linear(layer: Any, inputs: dict[str, Array]) -> Array:
    """w0 + Σ w_i x_i, feature by feature."""
    total = np.full(len(inputs["user"]), float(layer.bias.numpy()))
    for name, variable in layer.terms.one_hot_weights.items():
        rows = looked_up(variable.numpy(), inputs[name])
        total += (mean_of_real(rows, inputs[name]) if inputs[name].ndim == 2 else rows)[:, 0]
    for index, name in enumerate(("age", "price")):
        total += layer.terms.number_weights.numpy()[index, 0] * inputs[name]
    return total


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


def mlp(layer: Any, x: Array) -> Array:
    """Dense layers with ReLU or Dice, as served: without dropout."""
    for part in layer.stack:
        kind = type(part).__name__
        if kind == "Dense":
            x = x @ part.kernel.numpy() + part.bias.numpy()
        elif kind == "Dice":
            x = dice(part, x)
        elif kind == "Activation":
            assert part.activation.__name__ == "relu"
            x = np.maximum(x, 0)
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
