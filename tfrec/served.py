"""Measures an export by what it answers to raw examples."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tfrec.baselines import BATCH_SIZE
from tfrec.data import load_transform, pad, task_labels
from tfrec.export import newest_version
from tfrec.features import (
    FILE_NAME,
    ITEM_KEY,
    LABEL_PREFIX,
    TIME_KEY,
    USER_KEY,
    WEIGHT,
    Column,
    Features,
)
from tfrec.measuring import Measuring
from tfrec.metrics import Array
from tfrec.serving_inputs import from_columns, request_name
from tfrec.slices import Slices
from tfrec.strict import UserError

RAW = "raw:"  # beside the inputs of a batch, its raw columns
_KEYS = {"user": USER_KEY, "item": ITEM_KEY, "time": TIME_KEY}
# What `esmm` serves of its two tasks.
_CONVERSION = ("pCTR", "pCTCVR")


class ServedEvaluator(Measuring):
    """Measures a SavedModel by its signature `predict`.

    It is asked with the raw examples that the pipeline's step `ingest` has left beside the data
    set: as many as the data set has, but not transformed.

    Args:
        export: directory of the SavedModel, or that of its versions, of which the newest is meant.
        directory: of the data set, `<output>/transform`.
        split: to measure on.

    Raises:
        UserError: there is no export of tasks that the data set has, or no raw example.
    """

    def __init__(self, export: Path, directory: Path, split: str) -> None:
        version = export if (export / "saved_model.pb").is_file() else newest_version(export)
        if version is None or not (version / "saved_model.pb").is_file():
            raise UserError(f"{export} is no SavedModel and has no version of one")
        if not (version / "assets.extra" / FILE_NAME).is_file():
            raise UserError(f"{version} does not tell its tasks; export it again")
        self.version, self.served = version, Features.load(version / "assets.extra")
        data = Features.load(directory)
        tasks = [label.name for label in self.served.labels]
        features = replace(data.with_labels(tasks), labels=self.served.labels)
        super().__init__(directory, features, split)
        self.files = sorted((directory.parent / "ingest" / "examples" / split).glob("*.parquet"))
        if not self.files:
            raise UserError(
                f"{directory.parent / 'ingest'} has no raw examples of {split}, which an export is "
                "measured on; make them with `python -m pipeline run`"
            )
        # Content tells examples apart that have no user, and it is the one of transformed examples.
        self.transform: Any = None if data.user_key else load_transform(directory)
        try:
            self.model = tf.saved_model.load(str(version))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{version} cannot be loaded ({reason})") from None
        self.odds = bool(getattr(self.model, "serves_odds", False))

    def ask(self, name: str, columns: dict[str, Any]) -> dict[str, tf.Tensor]:
        """What a signature answers.

        Args:
            name: of the signature.
            columns: raw columns by their names in requests, and options, at least those it takes.

        Raises:
            UserError: it asks for something else.
        """
        signature = self.model.signatures[name]
        specs = signature.structured_input_signature[1]
        for column in specs:
            if column not in columns:
                raise UserError(f"{self.version} asks for {column!r}, which the data set lacks")
        try:
            answer: dict[str, tf.Tensor] = signature(**{c: columns[c] for c in specs})
        except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.version} does not take the data set's columns ({reason})"
            ) from None
        return answer

    def read(self) -> Iterator[Any]:
        """Batches of inputs, labels, weights and keys."""
        for path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(BATCH_SIZE):
                        yield self._batch(batch)
            except (pa.ArrowException, KeyError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{path} cannot be read ({reason}); ingest again") from None

    def _batch(self, batch: pa.RecordBatch) -> Any:
        columns = {request_name(column): _column(batch, column) for column in self.features.columns}
        inputs: dict[str, Any] = {RAW: columns}
        if self.transform:
            raw = from_columns(self.features, columns)
            inputs |= pad(self.features, self.transform.transform_fn(raw))
        names = [LABEL_PREFIX + label.name for label in self.features.labels]
        labels = {name: tf.constant(_values(batch, name)) for name in names}
        weights = _values(batch, WEIGHT) if self.features.weighted else np.ones(batch.num_rows)
        keys = {
            name: tf.constant(_values(batch, key))
            if key in batch.schema.names
            else tf.fill([batch.num_rows], tf.constant(0, tf.int64) if key == TIME_KEY else b"")
            for name, key in _KEYS.items()
        }
        known = task_labels(self.features, labels)
        return inputs, known, tf.constant(weights, tf.float32), keys

    def slices(self, wanted: Sequence[str]) -> Slices:
        self.transform = load_transform(self.directory)  # parts are told by transformed inputs
        return super().slices(wanted)

    @functools.cached_property
    def outputs(self) -> dict[str, str]:
        """Name of the output by task."""
        tasks = [label.name for label in self.served.labels]
        names = self.model.signatures["predict"].structured_outputs
        if names.keys() >= set(_CONVERSION):
            return dict(zip(tasks, _CONVERSION, strict=True))
        if not names.keys() >= set(tasks):
            raise UserError(f"{self.version} serves {', '.join(names)} and no {tasks[0]!r}")
        return {task: task for task in tasks}

    def score(self, inputs: dict[str, Any], keys: dict[str, Any]) -> dict[str, Array]:
        """What the export answers, by task.

        Raises:
            UserError: it does not know what to say, or says no probability.
        """
        answer = self.ask("predict", inputs[RAW])
        found = {task: answer[output].numpy() for task, output in self.outputs.items()}
        if self.odds:
            found = {task: odds / (1 + odds) for task, odds in found.items()}
        for label in self.served.labels:
            values = found[label.name]
            inside = (values >= 0) & (values <= 1)
            if not np.isfinite(values).all() or (label.task == "binary" and not inside.all()):
                raise UserError(
                    f"{self.version} says of {label.name} what is no probability; export it again, "
                    "or measure it with --run"
                )
        return found


def _values(batch: pa.RecordBatch, name: str) -> Array:
    """(n,) of a column with one value in a row."""
    found = batch.column(name).flatten().to_numpy(zero_copy_only=False)
    if len(found) != batch.num_rows:
        raise KeyError(f"{name}: not one value per row")
    return found


def _column(batch: pa.RecordBatch, column: Column) -> tf.Tensor:
    """(n,), or (n, events) for a history, padded as requests are."""
    if not column.history:
        return tf.constant(_values(batch, column.name), column.dtype)
    lists = batch.column(column.name)
    values = tf.constant(lists.flatten().to_numpy(zero_copy_only=False), column.dtype)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return tf.RaggedTensor.from_row_lengths(values, lengths).to_tensor()
