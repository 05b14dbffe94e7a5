"""Embedding tables and the vectors of an example's features."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrec.features import NO_GAP, Feature, Features, History


@keras.utils.register_keras_serializable("tfrec")
class Embedding(keras.layers.Layer):
    """One table of vectors. Id 0 is padding: its vector is zero and is never trained.

    Args:
        size: rows, padding included.
        dim: length of a vector.
        stddev: of the normal distribution that the vectors begin with.
        unknown: rows at the end, for values that are not in the vocabulary, that begin at zero:
            there may be no example to train them, and a random vector would say something.

    Call: ids (…,) → vectors (…, dim) in the compute dtype; the table itself is float32. With
    `mean`, ids (…, values) → means (…, dim) of the values that are there, zero where none is.
    """

    optimizer_group = "embedding"

    def __init__(
        self, size: int, dim: int, stddev: float = 0.01, unknown: int = 0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.dim, self.stddev, self.unknown = size, dim, stddev, unknown

    def build(self, input_shape) -> None:
        self.table = self.add_weight(
            name="table",
            shape=(self.size, self.dim),
            dtype=tf.float32,
            initializer=self._initial,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def _initial(self, shape: tuple[int, int], dtype: tf.DType, **part: Any) -> tf.Tensor:
        """The table, or the part of it that one parameter server holds."""
        values = keras.initializers.RandomNormal(stddev=self.stddev)(shape, dtype, **part)
        if not self.unknown:
            return values
        first = part.get("partition_offset", (0,))[0]
        known = min(max(self.size - self.unknown - first, 0), values.shape[0])
        return tf.concat([values[:known], tf.zeros_like(values[known:])], axis=0)

    def call(self, ids: tf.Tensor, mean: bool = False, fused: bool = False) -> tf.Tensor:
        means = fused_mean_of_rows if fused else mean_of_rows
        vectors = (means if mean else rows)(self.table, ids)
        return tf.cast(vectors, self.compute_dtype)

    def get_config(self) -> dict:
        own = {"size": self.size, "dim": self.dim, "stddev": self.stddev, "unknown": self.unknown}
        return {**super().get_config(), **own}


class Embeddings(keras.layers.Layer):
    """The vectors of all categories, and of the histories, of an example.

    Features that share a table share its vectors.

    Args:
        features: of the data set.
        dim: length of every vector.
        histories: histories that are embedded too.
        fields: categories that are embedded; all unless given.
        stddev: of the initial vectors.

    Call: dict of inputs → dict of vectors by feature name, (batch, dim) for a category (the mean
    of its values where it may have many), (batch, events, dim) for a history's category; for
    what a gap mirrors, the candidate's (batch, dim).
    """

    def __init__(
        self,
        features: Features,
        dim: int,
        histories: tuple[History, ...] = (),
        fields: tuple[Feature, ...] | None = None,
        stddev: float = 0.01,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        steps = [f for history in histories for f in history.features if f.kind == "category"]
        fields = features.categories if fields is None else fields
        self.embedded: tuple[Feature, ...] = (*fields, *steps)
        self.tables = {
            name: Embedding(features.table(name).size, dim, stddev, name=f"table_{name}")
            for name in dict.fromkeys(feature.table for feature in self.embedded)
        }

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        vectors = {}
        for feature in self.embedded:
            table, ids = self.tables[feature.table], inputs[feature.name]
            vectors[feature.name] = table(ids, mean=bool(feature.length))
            if feature.is_gap:
                vectors[str(feature.mirrors)] = table(tf.fill(tf.shape(ids)[:1], NO_GAP))
        return vectors


class FieldEmbeddings(keras.layers.Layer):
    """The vectors x_i v_i of all fields of an example: numbers have a vector too.

    Args:
        features: of the data set.
        dim: length of every vector.
        stddev: of the initial vectors.

    Call: dict of inputs → (batch, fields, dim), categories before numbers.
    """

    optimizer_group = "embedding"

    def __init__(self, features: Features, dim: int, stddev: float = 0.01, **kwargs) -> None:
        super().__init__(**kwargs)
        self.features, self.dim, self.stddev = features, dim, stddev
        self.categories = Embeddings(features, dim, stddev=stddev)

    def build(self, input_shape) -> None:
        if self.features.numbers:
            self.number_vectors = self.add_weight(
                name="number_vectors",
                shape=(len(self.features.numbers), self.dim),
                initializer=keras.initializers.RandomNormal(stddev=self.stddev),
            )
        super().build(input_shape)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        vectors = self.categories(inputs)
        parts = [vectors[feature.name][:, tf.newaxis] for feature in self.features.categories]
        if self.features.numbers:
            numbers = tf.stack([inputs[f.name] for f in self.features.numbers], axis=1)
            numbers = tf.cast(numbers, self.compute_dtype)
            parts.append(numbers[..., tf.newaxis] * self.number_vectors)
        return tf.concat(parts, axis=1)


class FieldAwareEmbeddings(keras.layers.Layer):
    """A vector of every field for every field that it may meet, x_i v_{i,j}.

    Source: Juan et al. 2016, Field-aware Factorization Machines for CTR Prediction, section 2.

    Args:
        features: of the data set.
        dim: length of every vector.
        stddev: of the initial vectors.

    Call: dict of inputs → (batch, fields, fields, dim): element i, j is v_{i,j}. Memory: a row of a
    table has fields × dim numbers, and a batch batch × fields² × dim.
    """

    def __init__(self, features: Features, dim: int, stddev: float = 0.01, **kwargs) -> None:
        super().__init__(**kwargs)
        self.fields, self.dim = len(features.features), dim
        self.embeddings = FieldEmbeddings(features, self.fields * dim, stddev)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        shape = [-1, self.fields, self.fields, self.dim]
        return tf.reshape(self.embeddings(inputs), shape)


def rows(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Rows of a table (size, dim), zero for id 0: (…,) → (…, dim)."""
    found = tf.nn.embedding_lookup(table, ids)
    return found * tf.cast(ids != 0, found.dtype)[..., tf.newaxis]


def mean_of_rows(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """Means of a table's rows over the values that are there: ids (…, values) → (…, dim).

    Zero where there is none. Most of a list is padding, which is not even looked up.
    """
    lists = tf.reshape(ids, [-1, ids.shape[-1]])
    real = lists != 0
    places = tf.where(real)
    found = tf.nn.embedding_lookup(table, tf.gather_nd(lists, places))
    sums = tf.math.unsorted_segment_sum(found, places[:, 0], tf.shape(lists)[0])
    counts = tf.reduce_sum(tf.cast(real, sums.dtype), axis=1, keepdims=True)
    means = tf.reshape(
        sums / tf.maximum(counts, 1), tf.concat([tf.shape(ids)[:-1], [table.shape[1]]], axis=0)
    )
    return tf.ensure_shape(means, [*ids.shape[:-1], table.shape[1]])


def fused_mean_of_rows(table: tf.Variable, ids: tf.Tensor) -> tf.Tensor:
    """The same for ids (batch, values), in half the time, by operations that XLA does not have."""
    places = tf.where(ids != 0)
    unique, numbers = tf.unique(tf.gather_nd(ids, places))
    found = tf.nn.embedding_lookup(table, unique)
    return tf.sparse.segment_mean(found, numbers, places[:, 0], num_segments=tf.shape(ids)[0])


def history_vectors(
    vectors: dict[str, tf.Tensor], inputs: dict[str, tf.Tensor], history: History
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Each event of a history as one vector, its features side by side, and the candidate's.

    Args:
        vectors: of categories, as `Embeddings` returns them.
        inputs: of the model.
        history: whose events are wanted.

    Returns:
        Events (batch, events, width), zero at padding; the candidate in the same features
        (batch, width); True at real events (batch, events).
    """

    def joined(names: list[str]) -> tf.Tensor:
        return _joined([vectors[n] if n in vectors else inputs[n][..., tf.newaxis] for n in names])

    events = joined([f.name for f in history.features])
    candidate = joined([str(f.mirrors) for f in history.features])
    return events, candidate, inputs[history.mask_feature.name] != 0


def field_vectors(
    vectors: dict[str, tf.Tensor], inputs: dict[str, tf.Tensor], features: Features
) -> tf.Tensor:
    """All fields side by side, categories as vectors and numbers as they are: (batch, width)."""
    parts = [vectors[f.name] for f in features.categories]
    parts += [inputs[f.name][:, tf.newaxis] for f in features.numbers]
    return _joined(parts)


def _joined(parts: list[tf.Tensor]) -> tf.Tensor:
    dtype = parts[0].dtype  # numbers follow the vectors' precision
    return tf.concat([tf.cast(part, dtype) for part in parts], axis=-1)
