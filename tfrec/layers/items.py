"""What a model of all items knows of them, and how it draws some."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrec.features import Feature
from tfrec.layers.random import RandomLayer


class Items(RandomLayer):
    """Features and counts of the items with ids 1 … `size`, kept with the model's weights.

    Args:
        id_feature: the item's id.
        size: how many items there are; out-of-vocabulary ids are none.
        fields: other features of an item that are kept.

    Call: ids (n,) → the items' features by name, (n, …).
    """

    def __init__(
        self, id_feature: Feature, size: int, fields: tuple[Feature, ...] = (), **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.id_feature, self.size = id_feature, size
        self.fields = tuple(f for f in fields if f.name != id_feature.name)

    def build(self, input_shape) -> None:
        options = {"trainable": False, "experimental_autocast": False}
        self.kept = {
            feature.name: self.add_weight(
                name=f"items_{feature.name}",
                shape=(self.size + 1, *([feature.length] if feature.length else [])),
                dtype=tf.int64 if feature.kind == "category" else tf.float32,
                initializer="zeros",
                **options,
            )
            for feature in self.fields
        }
        self.counts = self.add_weight(
            name="counts", shape=(self.size + 1,), dtype=tf.int64, initializer="ones", **options
        )
        # Of the weights that items are drawn by; whole numbers, so that all sums are exact.
        self.cumulative = self.add_weight(
            name="cumulative",
            shape=(self.size + 1,),
            dtype=tf.int64,
            initializer=lambda shape, dtype: tf.range(shape[0], dtype=dtype),
            **options,
        )
        super().build(input_shape)

    def fill(self, inputs: dict[str, np.ndarray], counts: np.ndarray, exponent: float) -> None:
        """Takes what the data set says of the items.

        Args:
            inputs: by feature, (size, …), in the order of the ids.
            counts: (size,) of the items as targets.
            exponent: of the counts, in the weights that items are drawn by.
        """
        for name, variable in self.kept.items():
            variable.assign(np.concatenate([np.zeros_like(inputs[name][:1]), inputs[name]]))
        self.counts.assign(np.concatenate([[0], counts]))
        weights = np.maximum(np.rint(1000.0 * np.power(np.maximum(counts, 1), exponent)), 1)
        self.cumulative.assign(np.concatenate([[0], np.cumsum(weights.astype(np.int64))]))

    def call(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        found = {name: tf.gather(variable, ids) for name, variable in self.kept.items()}
        return {self.id_feature.name: ids, **found}

    def draw(self, shape: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Ids of that shape, drawn independently, int64."""
        draws = tf.random.stateless_uniform(
            shape, self.next_seed(training), 0, self.cumulative[-1], dtype=tf.int64
        )
        found = tf.searchsorted(self.cumulative, tf.reshape(draws, [-1]), side="right")
        return tf.reshape(tf.cast(found, tf.int64), shape)

    def log_expected(self, ids: tf.Tensor, drawn: int, targets: tf.Tensor) -> tf.Tensor:
        """Log of how often an item is expected among `drawn` ids and among so many targets."""
        weights = tf.gather(self.cumulative, ids) - tf.gather(self.cumulative, ids - 1)
        share = tf.cast(weights, tf.float32) / tf.cast(self.cumulative[-1], tf.float32)
        counts = tf.cast(tf.maximum(tf.gather(self.counts, ids), 1), tf.float32)
        of_targets = counts / tf.cast(tf.reduce_sum(self.counts), tf.float32)
        return tf.math.log(drawn * share + tf.cast(targets, tf.float32) * of_targets)
