"""The preprocessing graph: raw columns to ids and numbers, the same in training and serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from pipeline.blocks import FeatureDeclaration
from pipeline.declaration import Declaration
from pipeline.description import GAPS, packed_fields
from tfrec.crosses import crossed
from tfrec.keys import keys_of

Tensors = dict[str, Any]

QUANTILE_ERROR = 0.001


def make_preprocessing_fn(declaration: Declaration) -> Callable[[Tensors], Tensors]:
    """The `preprocessing_fn` of a declared data set.

    Inputs: one (batch,) tensor per raw column, one ragged (batch, events) tensor per
    `<history>_<column>`. Outputs: under `IDS` and `NUMBERS`, (batch, fields) int64 and float32 of
    the features with one value; under the features' names, ragged (batch, values) for many
    values, ragged (batch, events[, values]) in a history, ragged (batch, values) for a cross.
    Ids are int64, 0 is a missing value.

    Vocabularies count the events of the analysed split once each: a history looks its values up
    in the vocabulary of the feature that it repeats.
    """

    def preprocessing_fn(inputs: Tensors) -> Tensors:
        lookups = _Lookups(declaration, inputs)
        values = {name: lookups.value(name, None) for name in declaration.features}
        for history, declared in declaration.histories.items():
            for name in declared.features:
                value = lookups.value(name, history)
                values[f"{history}_{name}"] = value[:, -declared.length :]
            if gap := declaration.gap(history):
                now = inputs[str(declaration.time)]
                ids = _gap_ids(now, inputs[f"{history}_{declaration.time}"])
                values[gap] = ids[:, -declared.length :]
        for cross in declaration.crosses:
            parts = [values[name] for name in cross.features]
            values[cross.name] = crossed(parts, cross.buckets)
        packed = {
            key: tf.stack([values.pop(name) for name in names], axis=1)
            for key, names in packed_fields(declaration).items()
        }
        return {**packed, **values}

    return preprocessing_fn


class _Lookups:
    """What the analysed split says of every feature, and its use on any column."""

    def __init__(self, declaration: Declaration, inputs: Tensors) -> None:
        self.declaration = declaration
        self.inputs = inputs
        self.vocabularies = self._vocabularies()
        self.numeric: dict[str, tuple[Any, ...]] = {}

    def _raw(self, name: str, history: str | None) -> Any:
        """Raw values of a feature, with `fill` in place of missing ones and lists split."""
        feature = self.declaration.features[name]
        column = self.declaration.column(name)
        raw = self.inputs[f"{history}_{column}" if history else column]
        if not feature.tokens:
            return _map_flat(lambda values: _filled(tf.cast(values, tf.float64), feature), raw)
        raw = _map_flat(lambda values: _token(values, feature), raw)
        if not feature.many:
            return raw
        if feature.kind == "text":
            return tf.strings.split(_map_flat(_words, raw))
        values = _map_flat(tf.strings.strip, tf.strings.split(raw, feature.separator))
        return tf.ragged.boolean_mask(values, values != "")

    def _vocabularies(self) -> dict[str, Any]:
        by_table: dict[str, list[str]] = {}
        for name, feature in self.declaration.features.items():
            if feature.tokens and not feature.hash_buckets:
                by_table.setdefault(self.declaration.vocabulary(name), []).append(name)
        vocabularies = {}
        for table, names in by_table.items():
            feature = self.declaration.features[names[0]]
            tokens = [_flat(self._raw(name, None)) for name in names]
            vocabularies[table] = tft.vocabulary(
                tf.concat(tokens, axis=0),
                top_k=feature.top_k,
                frequency_threshold=feature.min_count if feature.min_count > 1 else None,
                vocab_filename=table,
                name=f"vocabulary_{table}",
            )
        return vocabularies

    def value(self, name: str, history: str | None) -> Any:
        """Output of a feature, or of its repetition in a history."""
        feature = self.declaration.features[name]
        raw = self._raw(name, history)
        if feature.tokens:
            return _map_flat(lambda tokens: self._ids(name, feature, tokens), raw)
        if feature.clock:
            return _map_flat(lambda seconds: _clock_ids(feature, seconds), raw)
        if name not in self.numeric:
            own = self._raw(name, None)
            present = tf.boolean_mask(own, ~tf.math.is_nan(own))
            self.numeric[name] = _analysed(feature, present)
        numeric = self.numeric[name]
        if feature.kind == "buckets":
            return _map_flat(lambda values: _bucket_ids(values, *numeric), raw)
        return _map_flat(lambda values: _normalised(feature, values, *numeric), raw)

    def _ids(self, name: str, feature: FeatureDeclaration, tokens: tf.Tensor) -> tf.Tensor:
        if feature.hash_buckets:
            ids = tf.strings.to_hash_bucket_fast(tokens, feature.hash_buckets)
        else:
            table = self.vocabularies[self.declaration.vocabulary(name)]
            ids = tft.apply_vocabulary(tokens, table, num_oov_buckets=feature.oov_buckets)
        return tf.where(tokens == "", tf.zeros_like(ids), ids + 1)


def _map_flat(function: Callable[[tf.Tensor], tf.Tensor], value: Any) -> Any:
    if isinstance(value, tf.RaggedTensor):
        return tf.ragged.map_flat_values(function, value)
    return function(value)


def _flat(value: Any) -> tf.Tensor:
    return value.flat_values if isinstance(value, tf.RaggedTensor) else value


def _token(values: tf.Tensor, feature: FeatureDeclaration) -> tf.Tensor:
    values = keys_of(values)
    if feature.fill is None:
        return values
    return tf.where(values == "", str(feature.fill), values)


def _words(values: tf.Tensor) -> tf.Tensor:
    """Words in lower case between single spaces; what is neither letter nor digit separates."""
    return tf.strings.regex_replace(tf.strings.lower(values, "utf-8"), r"[^\pL\pN]+", " ")


def _filled(values: tf.Tensor, feature: FeatureDeclaration) -> tf.Tensor:
    if feature.fill is None:
        return values
    return tf.where(tf.math.is_nan(values), tf.constant(float(feature.fill), values.dtype), values)


def _analysed(feature: FeatureDeclaration, present: tf.Tensor) -> tuple[Any, ...]:
    """Full-pass figures of the analysed split that `feature` is normalised by."""
    if feature.kind == "buckets":
        boundaries = tft.quantiles(tf.cast(present, tf.float32), feature.buckets, QUANTILE_ERROR)
        return (boundaries,)
    if feature.normalise == "z_score":
        return tft.mean(present), tf.sqrt(tft.var(present))
    if feature.normalise == "min_max":
        low = tft.min(present)
        return low, tft.max(present) - low
    return ()


def _clock_ids(feature: FeatureDeclaration, seconds: tf.Tensor) -> tf.Tensor:
    """Ids from 1: hours of the day, or days of the week from Monday (1970 began on a Thursday)."""
    if feature.kind == "hour":
        return 1 + tf.cast(tf.math.floormod(seconds, 86_400) // 3_600, tf.int64)
    return 1 + tf.cast(tf.math.floormod(seconds // 86_400 + 3, 7), tf.int64)


def _gap_ids(now: tf.Tensor, then: tf.RaggedTensor) -> tf.RaggedTensor:
    """Ids from 1 of the seconds that have gone by: 0, 1, 2 and 3, 4 to 7, …, 2^30 and more."""
    seconds = tf.repeat(now, then.row_lengths()) - then.flat_values
    ids = tf.raw_ops.Bucketize(input=seconds, boundaries=[2.0**n for n in range(GAPS - 1)])
    return then.with_flat_values(1 + tf.cast(ids, tf.int64))


def _bucket_ids(values: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
    ids = tft.apply_buckets(tf.cast(values, tf.float32), boundaries)
    return tf.where(tf.math.is_nan(values), tf.zeros_like(ids), ids + 1)


def _normalised(feature: FeatureDeclaration, values: tf.Tensor, *figures: Any) -> tf.Tensor:
    """float32; float64 inside, since a time in seconds has more digits than float32."""
    if feature.normalise == "is_missing":
        return tf.cast(tf.math.is_nan(values), tf.float32)
    if figures:
        centre, scale = figures
        values = (values - centre) / tf.where(scale > 0, scale, tf.ones_like(scale))
    elif feature.normalise == "log":
        values = tf.math.log1p(tf.maximum(values, 0.0))
    values = tf.where(tf.math.is_nan(values), tf.zeros_like(values), values)
    return tf.cast(values, tf.float32)
