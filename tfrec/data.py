"""TFRecords of a data set directory to batches of tensors."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.features import (
    FILE_NAME,
    IDS,
    ITEM_KEY,
    LABEL_PREFIX,
    TIME_KEY,
    USER_KEY,
    WEIGHT,
    Feature,
    Features,
)
from tfrec.strict import UserError

# Records go from file to batch as blocks and are shuffled a window at a time: an element of a
# tf.data pipeline costs microseconds, whatever it holds, so that one per record would cost more
# than its training.
BLOCK_ROWS = 256
WINDOW_ROWS = 100_000
FILES_AT_ONCE = 4

_KEY_SPEC = {
    USER_KEY: tf.io.FixedLenFeature([], tf.string, ""),
    ITEM_KEY: tf.io.FixedLenFeature([], tf.string, ""),
    TIME_KEY: tf.io.FixedLenFeature([], tf.int64, 0),
}

Batch = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]


def files(directory: str | Path, split: str) -> list[str]:
    """TFRecord files of a split, in order.

    Raises:
        UserError: no such split, or one of its files is missing.
    """
    found = sorted(tf.io.gfile.glob(f"{directory}/examples/{split}-*-of-*.tfrecord"))
    if not found:
        raise UserError(f"data set {directory} has no split {split!r}")
    shards = int(found[0].removesuffix(".tfrecord").rpartition("-")[2])
    for index in range(shards):
        path = f"{directory}/examples/{split}-{index:05d}-of-{shards:05d}.tfrecord"
        if path not in found:
            raise UserError(f"{path} is missing; make the data set again")
    return found


def training_batches(
    directory: str | Path,
    features: Features,
    batch_size: int,
    seed: int,
    epochs: range,
    skip: int = 0,
    positive: str | None = None,
    workers: int = 1,
    worker: Any = 0,
) -> tf.data.Dataset:
    """Shuffled batches of the training split, pass after pass.

    Args:
        directory: of the data set.
        features: whose tasks are wanted.
        batch_size: examples of a batch; the last one of a pass may be smaller.
        seed: decides the order, with the number of the pass, and nothing else does.
        epochs: numbers of the passes.
        skip: batches that were done before an interruption; they are read, not parsed.
        positive: keep the examples whose label of this name is 1.
        workers: how many there are, each of which keeps its own batches.
        worker: which of them this is, from 0.

    Yields:
        (inputs by name, labels by task, weights (batch,)).
    """
    names = files(directory, "train")

    def one_pass(epoch: int) -> tf.data.Dataset:
        order = hash((seed, epoch)) % 2**31  # of integers: the same in every process
        files_in_order = tf.data.Dataset.from_tensor_slices(names).shuffle(10_000, seed=order)
        blocks = files_in_order.interleave(
            lambda name: tf.data.TFRecordDataset(name).batch(BLOCK_ROWS),
            cycle_length=FILES_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        if positive:
            blocks = blocks.map(lambda records: _with_label(records, positive))
        windows = blocks.rebatch(WINDOW_ROWS).enumerate()
        shuffled = windows.map(
            lambda index, records: tf.random.experimental.stateless_shuffle(records, [order, index])
        )
        return shuffled.prefetch(1).rebatch(batch_size)

    batches = functools.reduce(tf.data.Dataset.concatenate, map(one_pass, epochs))
    return _parsed(batches.skip(skip).shard(workers, worker), features, keys=False)


def _with_label(records: tf.Tensor, label: str) -> tf.Tensor:
    """Those serialized examples whose label is 1."""
    key = LABEL_PREFIX + label
    values = tf.io.parse_example(records, {key: tf.io.FixedLenFeature([], tf.float32)})
    return tf.boolean_mask(records, values[key] == 1)


def evaluation_batches(
    directory: str | Path, features: Features, split: str, batch_size: int
) -> tf.data.Dataset:
    """Batches of a split in stored order, one pass.

    Yields:
        (inputs by name, labels by task, weights (batch,), keys (batch,)): the raw `user` and
        `item`, "" where the data set has none, and the `time` in seconds, 0 where it has none.
    """
    records = tf.data.TFRecordDataset(files(directory, split))
    return _parsed(records.batch(batch_size), features, keys=True)


def _parsed(batches: tf.data.Dataset, features: Features, keys: bool) -> tf.data.Dataset:
    spec = stored_spec(features) | (_KEY_SPEC if keys else {})

    def parse(examples: tf.Tensor) -> Any:
        values = tf.io.parse_example(examples, spec)
        inputs = pad(features, values)
        _check_ids(features, inputs)
        labels = task_labels(features, values)
        weights = values[WEIGHT] if features.weighted else tf.ones(tf.shape(examples)[:1])
        if not keys:
            return inputs, labels, weights
        of_event = {"user": values[USER_KEY], "item": values[ITEM_KEY], "time": values[TIME_KEY]}
        return inputs, labels, weights, of_event

    return batches.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def task_labels(features: Features, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Labels by task, for losses and metrics alike.

    Args:
        features: with the tasks that are wanted.
        values: (batch,) labels as they are stored, by key.
    """
    labels = {label.name: values[LABEL_PREFIX + label.name] for label in features.labels}
    for label in features.labels:
        if label.after:
            none = tf.math.is_nan(labels[label.name]) & (labels[label.after] == 0)
            labels[label.name] = tf.where(none, 0.0, labels[label.name])
    return labels


def stored_spec(features: Features) -> dict[str, Any]:
    """How the stored examples are parsed, but for their keys."""
    spec: dict[str, Any] = {}
    for key, fields in features.packed.items():
        dtype = tf.int64 if key == IDS else tf.float32
        spec[key] = tf.io.FixedLenFeature([len(fields)], dtype)
    for feature in (*features.features, *features.crosses):
        if feature.length:
            spec[feature.name] = _stored(feature, in_history=False)
    for history in features.histories:
        for feature in history.features:
            spec[feature.name] = _stored(feature, in_history=True)
    for label in features.labels:
        spec[LABEL_PREFIX + label.name] = tf.io.FixedLenFeature([], tf.float32)
    if features.weighted:
        spec[WEIGHT] = tf.io.FixedLenFeature([], tf.float32)
    return spec


def _stored(feature: Feature, in_history: bool) -> Any:
    dtype = tf.int64 if feature.kind == "category" else tf.float32
    nested = in_history and feature.length
    lengths = [tf.io.RaggedFeature.RowLengths(f"{feature.name}$row_lengths_1")] if nested else []
    return tf.io.RaggedFeature(
        dtype, f"{feature.name}$ragged_values", lengths, row_splits_dtype=tf.int64
    )


def pad(features: Features, values: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Model inputs of transformed values, by feature; lists are padded with 0 on the right.

    Args:
        features: of the data set.
        values: as stored, or as the transform returns them.
    """
    inputs = {}
    for key, fields in features.packed.items():
        for feature, value in zip(fields, tf.unstack(values[key], axis=1), strict=True):
            inputs[feature.name] = value
    for feature in (*features.features, *features.crosses):
        if feature.length:
            inputs[feature.name] = _dense(values[feature.name], [feature.length])
    for history in features.histories:
        for feature in history.features:
            inputs[feature.name] = _dense(values[feature.name], [history.length, feature.length])
    return inputs


def _dense(value: Any, lengths: list[int | None]) -> tf.Tensor:
    if isinstance(value, tf.RaggedTensor):
        return value.to_tensor(shape=[None, *(length for length in lengths if length)])
    return value


def load_transform(directory: str | Path) -> Any:
    """The transform graph of a data set; its `transform_fn` takes raw columns.

    Raises:
        UserError: it cannot be loaded.
    """
    path = f"{directory}/transform/transform_fn"
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # every kind of damage has one of its own
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(f"{path} cannot be loaded ({reason}); make the data set again") from None


def _check_ids(features: Features, inputs: dict[str, tf.Tensor]) -> None:
    """An id outside its table would be an error on a CPU and zeros on a GPU: it is an error."""
    steps = [feature for history in features.histories for feature in history.features]
    for feature in (*features.features, *features.crosses, *steps):
        if feature.kind == "category":
            size = features.table(feature.table).size
            unsigned = tf.bitcast(inputs[feature.name], tf.uint64)  # what is negative is huge
            tf.debugging.assert_less(
                tf.reduce_max(unsigned),
                tf.constant(size, tf.uint64),
                f"feature {feature.name}: an id is outside its table of {size} rows; "
                "make the data set again",
            )


def readable(batches: tf.data.Dataset, directory: str | Path) -> Iterator[Any]:
    """Iterates; a broken file becomes an error that names it.

    Raises:
        UserError: a file is truncated or damaged.
    """
    try:
        yield from batches
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise broken_file(directory, error) from None


def broken_file(directory: str | Path, error: Exception) -> UserError:
    """The error to raise when a TFRecord of the data set could not be read to its end.

    Raises:
        tf.errors.InvalidArgumentError: the data set is not to blame.
    """
    if isinstance(error, tf.errors.OutOfRangeError):
        return UserError(
            f"data set {directory} has fewer training examples than {FILE_NAME} says; make it again"
        )
    for path in sorted(tf.io.gfile.glob(f"{directory}/examples/*.tfrecord")):
        try:
            rows = 0
            for _ in tf.data.TFRecordDataset(path):
                rows += 1
        except tf.errors.DataLossError:
            return UserError(
                f"{path}: truncated or damaged after {rows:,} examples; make the data set again"
            )
    message = re.search(r"feature \S+: an id is outside.*|Could not parse.*|Key: .*", str(error))
    if not message and isinstance(error, tf.errors.InvalidArgumentError):
        raise error
    reason = message.group(0) if message else str(error).splitlines()[0]
    return UserError(f"data set {directory}: {reason}")
