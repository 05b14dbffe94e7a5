"""One side of a model of users and items."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf
import tf_keras as keras

from tfrec.features import Feature, Features, History
from tfrec.layers.dropout import Dropout
from tfrec.layers.embedding import Embedding
from tfrec.layers.mlp import MLP


def embedding_tables(
    features: Features, fields: Iterable[Feature], dim: int, stddev: float = 0.01
) -> dict[str, Embedding]:
    """Tables of vectors, by name, of all categories among some fields."""
    names = dict.fromkeys(field.table for field in fields if field.table)
    tables = {name: features.table(name) for name in names}
    return {
        name: Embedding(table.size, dim, stddev, table.oov, name=f"table_{name}")
        for name, table in tables.items()
    }


class Tower(keras.layers.Layer):
    """The fields of one side, and what its histories hold, side by side through an MLP.

    A category is its vector, or the mean of its values' vectors; a number is itself. A history is
    the mean of each of its features over all its events (over all their values, where an event may
    have several).

    Args:
        fields: of the side.
        histories: of the side.
        tables: vectors by table; towers may share them.
        mlp: what comes last.
        event_dropout: share of the events that training leaves out of the histories.

    Call: dict of inputs → (batch, width of the MLP). Of the inputs, only those of the fields and
    histories are looked at. XLA does not have the operations of histories.
    """

    def __init__(
        self,
        fields: tuple[Feature, ...],
        histories: tuple[History, ...],
        tables: dict[str, Embedding],
        mlp: MLP,
        event_dropout: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.fields, self.histories, self.tables, self.mlp = fields, histories, tables, mlp
        self.event_dropout = Dropout(event_dropout) if event_dropout else None

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        parts = [self._field(feature, inputs[feature.name]) for feature in self.fields]
        for history in self.histories:
            real = inputs[history.mask_feature.name] != 0
            if self.event_dropout:
                real = self.event_dropout(tf.cast(real, tf.float32), training=training) > 0
            parts += [self._mean(f, inputs[f.name], real) for f in history.features]
        together = tf.concat([tf.cast(part, self.compute_dtype) for part in parts], axis=1)
        return self.mlp(together, training=training)

    def _field(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        if not feature.table:
            return values[:, tf.newaxis]
        return self.tables[feature.table](values, mean=bool(feature.length))

    def _mean(self, feature: Feature, values: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        if not feature.table:
            count = tf.reduce_sum(tf.cast(real, values.dtype), axis=1, keepdims=True)
            total = tf.reduce_sum(tf.where(real, values, 0.0), axis=1, keepdims=True)
            return total / tf.maximum(count, 1)
        if feature.length:
            real = tf.repeat(real, feature.length, axis=1)
            values = tf.reshape(values, tf.shape(real))
        return self.tables[feature.table](tf.where(real, values, 0), mean=True, fused=True)
