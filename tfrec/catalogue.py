"""The items that a model may recommend: keys, counts and the model's inputs for each of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data import pad
from tfrec.features import Column, Features, Table
from tfrec.keys import keys_of
from tfrec.parquet import tables
from tfrec.serving_inputs import MISSING
from tfrec.strict import UserError

ROWS_AT_ONCE = 10_000
ITEMS_FILE = "items.txt"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Catalogue:
    """All items of the vocabulary, in order of their ids 1…n.

    Attributes:
        features: of the data set.
        keys: (n,) raw items, `str`.
        counts: (n,) events in the training split.
        raw: by column, (n,) values of what the item features are made of; "", NaN or 0 where an
            item has none.
    """

    features: Features
    keys: Array
    counts: Array
    raw: dict[str, Array]

    def inputs(self, transform: Any) -> dict[str, tf.Tensor]:
        """A model's inputs of role item, as the stored examples have them.

        Args:
            transform: the data set's `transform/transform_fn`, loaded.

        Returns:
            By feature, (n,) or (n, length).
        """
        names = [feature.name for feature in self.features.of_role("item")]
        parts = []
        for start in range(0, len(self.keys), ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, len(self.keys))
            known = {name: values[start:end] for name, values in self.raw.items()}
            raw = raw_rows(self.features, known, end - start)
            values = transform.transform_fn(raw)
            inputs = pad(self.features, values)
            parts.append({name: inputs[name] for name in names})
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in names}


def raw_rows(features: Features, known: dict[str, Array], count: int) -> dict[str, Any]:
    """Raw inputs of the transform: known columns, no other value and no history.

    Args:
        features: of the data set.
        known: by column, (count,) values.
        count: of rows.
    """
    raw: dict[str, Any] = {}
    for column in features.columns:
        if column.history:
            nothing = tf.constant([], column.dtype)
            splits = tf.zeros([count + 1], tf.int64)
            raw[column.name] = tf.RaggedTensor.from_row_splits(nothing, splits)
        else:
            values = known.get(column.name, _missing(column, count))
            raw[column.name] = tf.constant(values, column.dtype)
    return raw


def load(directory: str | Path, features: Features) -> Catalogue:
    """Reads the items of a data set.

    Args:
        directory: of the data set.
        features: of it.

    Raises:
        UserError: its items have no ids, or ids without a vocabulary, or a file cannot be read.
    """
    if features.item_id is None or features.item_key is None:
        raise UserError(
            f"data set {features.name!r} has no ids of items; declare `item` and a category of "
            "role item of that column"
        )
    table = features.table(features.feature(features.item_id).table)
    if not table.learned:
        raise UserError(
            f"data set {features.name!r} has no vocabulary of items: feature {features.item_id!r} "
            "is hashed; declare it without `hash_buckets`"
        )
    keys, counts = vocabulary(directory, table)
    return Catalogue(features, keys, counts, raw_columns(directory, features, keys))


def raw_columns(directory: str | Path, features: Features, keys: Array) -> dict[str, Array]:
    """What a data set says of some items.

    Args:
        directory: of the data set.
        features: of it.
        keys: (n,) raw items.

    Returns:
        By column that features of role item are made of, (n,) values; "", NaN or 0 where the data
        set says nothing.

    Raises:
        UserError: the data set has no items, or a file cannot be read.
    """
    used = {feature.column for feature in features.of_role("item")}
    columns = [column for column in features.columns if column.name in used]
    raw = {column.name: _missing(column, len(keys)) for column in columns}
    places = {key: index for index, key in enumerate(keys)}
    item = str(features.item_key)
    for part in tables(directory, "items", list(dict.fromkeys([item, *raw]))):
        rows = np.array([places.get(key, -1) for key in part[item].to_pylist()], np.int64)
        for name, values in raw.items():
            values[rows[rows >= 0]] = part[name].to_numpy()[rows >= 0]
    if item in raw:
        raw[item] = keys  # a vocabulary may have values that no event had as its item
    return raw


def named(directory: str | Path, features: Features) -> set[str]:
    """Raw items that a data set says something of.

    Args:
        directory: of the data set.
        features: of it.

    Raises:
        UserError: the data set has no items, or a file cannot be read.
    """
    item = str(features.item_key)
    return {key for part in tables(directory, "items", [item]) for key in part[item].to_pylist()}


class Places(tf.Module):
    """Where raw items are among the keys, in a graph.

    Args:
        keys: (n,) raw items.
        directory: an existing one, for the file that an export takes the items from.
    """

    def __init__(self, keys: Array, directory: Path) -> None:
        super().__init__()
        path = directory / ITEMS_FILE
        path.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
        lines = tf.lookup.TextFileInitializer(
            str(path),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self._table = tf.lookup.StaticHashTable(lines, default_value=-1)

    def __call__(self, items: tf.Tensor) -> tf.Tensor:
        """Places int64 of raw items as requests name them; -1 for unknown ones."""
        return self._table.lookup(keys_of(items))


def _missing(column: Column, count: int) -> Array:
    dtype = object if column.dtype == "string" else column.dtype
    return np.full(count, MISSING.get(column.dtype, 0), dtype)


def vocabulary(directory: str | Path, table: Table) -> tuple[Array, Array]:
    """Values of ids 1…n and their counts in the training split.

    Args:
        directory: of the data set.
        table: of the ids; hashes and buckets have "" as their values.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(directory) / "vocabulary" / f"{table.name}.tsv"
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            lines = list(itertools.islice(file, 2, 2 + table.vocabulary))  # after head and padding
        rows = [line.removesuffix("\n").split("\t", 2) for line in lines]
        _, counts, keys = zip(*rows, strict=True)
        if len(keys) < table.vocabulary:
            raise ValueError(f"it ends after {len(keys):,} of {table.vocabulary:,} values")
        return np.array(keys, object), np.array(counts).astype(np.int64)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); make the data set again") from None
