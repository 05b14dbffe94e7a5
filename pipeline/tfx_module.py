"""The functions that TFX's Transform and Trainer call, of a declared data set.

    Transform(module_file="pipeline/tfx_module.py", custom_config={"declaration": "shop.yaml"}, …)
    Trainer(module_file="pipeline/tfx_module.py", custom_config={"declaration": "shop.yaml"}, …)

Raw examples are those of the step `ingest`, which TFX's Parquet executor of FileBasedExampleGen
reads. The model is what the declaration's `train` says, or `train` in `custom_config`. Models that
score all items need the catalogue that the step `transform` makes, and are not trained here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from pipeline.checks import read
from pipeline.declaration import Declaration
from pipeline.description import describe, packed_fields, raw_columns, tables_of_fields
from pipeline.events import Layout
from pipeline.transform import make_preprocessing_fn
from pipeline.vocabularies import tables, write_vocabularies
from pipeline.writers import CountIds
from tfrec.features import IDS, ITEM_KEY, LABEL_PREFIX, TIME_KEY, USER_KEY, WEIGHT
from tfrec.strict import UserError

BATCH_SIZE = 4_096
_MISSING = {"string": "", "int64": 0, "float32": float("nan")}


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """What the step `transform` computes; labels, weight and keys pass as they are.

    Args:
        inputs: raw columns, each dense (batch,) or (batch, 1), sparse or ragged, as the schema
            says.
        custom_config: `declaration`, the path of the data set's.

    Returns:
        Outputs of `pipeline.transform.make_preprocessing_fn`, and what passes, (batch,).
    """
    declaration = read(custom_config["declaration"])
    columns = {}
    for column in raw_columns(declaration):
        if column.history:
            columns[column.name] = _ragged(inputs[column.name])
        else:
            columns[column.name] = _single(inputs[column.name], _MISSING[column.dtype])
    layout = Layout.of(declaration)
    passed: dict[str, Any] = {LABEL_PREFIX + name: float("nan") for name in layout.labels}
    passed |= dict.fromkeys((key for key in layout.keys if key in inputs), None)
    if declaration.weight:
        passed[WEIGHT] = 1.0
    outputs = make_preprocessing_fn(declaration)(columns)
    return {**outputs, **{name: _single(inputs[name], value) for name, value in passed.items()}}


def _single(value: Any, missing: Any) -> tf.Tensor:
    """(batch,) of a column with one value at most."""
    if isinstance(value, tf.RaggedTensor):
        value = value.to_sparse()
    if isinstance(value, tf.SparseTensor):
        if missing is None:
            missing = "" if value.dtype == tf.string else 0
        shape = tf.stack([value.dense_shape[0], tf.constant(1, tf.int64)])
        value = tf.SparseTensor(value.indices, value.values, shape)
        value = tf.sparse.to_dense(value, tf.constant(missing, value.dtype))
    return tf.reshape(value, [-1])


def _ragged(value: Any) -> tf.RaggedTensor:
    if isinstance(value, tf.SparseTensor):
        return tf.RaggedTensor.from_sparse(value)
    return value if isinstance(value, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(value)


def run_fn(fn_args: Any) -> None:
    """Trains, and leaves the SavedModel where TFX's Pusher takes it from.

    Args:
        fn_args: `tfx.components.FnArgs`: `train_files`, `eval_files` (patterns of gzipped
            TFRecords), `transform_output`, `serving_model_dir`, `model_run_dir`, `custom_config`.

    Raises:
        UserError: the model scores all items, or the configuration is wrong.
    """
    from tfrec.models.registry import find
    from tfrec.train import train

    declaration = read(fn_args.custom_config["declaration"])
    values = fn_args.custom_config.get("train") or declaration.train
    if not values:
        raise UserError("'train' is missing in custom_config and in the declaration")
    if isinstance(values.get("model"), str):
        values = {**values, "model": {"id": values["model"]}}
    if find(values["model"]["id"]).scores_items:
        raise UserError(
            f"{values['model']['id']} scores all items, which TFX's examples do not tell; train it "
            "with python -m pipeline run"
        )
    place = Path(fn_args.model_run_dir)
    data = place / "data"
    shutil.rmtree(data, ignore_errors=True)  # of an attempt before
    files = {"train": fn_args.train_files, "validation": fn_args.eval_files}
    _make_data_set(declaration, data, Path(fn_args.transform_output), files)
    train({**values, "data": str(data)}, place / "run", "custom_config")
    (exported,) = (place / "run" / "export").iterdir()
    shutil.copytree(exported, fn_args.serving_model_dir, dirs_exist_ok=True)


class Served(tf.Module):
    """TFX's transform of what a request has: raw columns, dense, and no labels.

    Args:
        declaration: of the data set.
        output: of TFX's Transform.
    """

    def __init__(self, declaration: Declaration, output: tft.TFTransformOutput) -> None:
        super().__init__()
        self.layer = output.transform_features_layer()
        self.raw_spec = output.raw_feature_spec()
        types = {c.name: (tf.dtypes.as_dtype(c.dtype), c.history) for c in raw_columns(declaration)}
        signature = {
            name: tf.RaggedTensorSpec([None, None], dtype, row_splits_dtype=tf.int64)
            if history
            else tf.TensorSpec([None], dtype)
            for name, (dtype, history) in types.items()
        }
        self.transform_fn = tf.function(self._transform, input_signature=[signature])

    def _transform(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = self.layer({name: self._as_tfx(name, value) for name, value in inputs.items()})
        reserved = (LABEL_PREFIX, WEIGHT, USER_KEY, ITEM_KEY, TIME_KEY)
        return {name: value for name, value in outputs.items() if not name.startswith(reserved)}

    def _as_tfx(self, name: str, value: Any) -> Any:
        spec = self.raw_spec[name]
        if isinstance(spec, tf.io.FixedLenFeature):
            return tf.reshape(value, [-1, *spec.shape])
        if isinstance(spec, tf.io.RaggedFeature):
            return value if isinstance(value, tf.RaggedTensor) else value[:, tf.newaxis]
        if isinstance(value, tf.RaggedTensor):
            return value.to_sparse()
        rows = tf.range(tf.size(value, tf.int64))
        indices = tf.stack([rows, tf.zeros_like(rows)], axis=1)
        shape = tf.stack([tf.size(value, tf.int64), 1])
        return tf.SparseTensor(indices, value, shape)


def _make_data_set(
    declaration: Declaration, data: Path, transformed: Path, files: dict[str, list[str]]
) -> None:
    """The directory that `tfrec.train` reads, of what TFX's Transform has made."""
    (data / "examples").mkdir(parents=True)
    output = tft.TFTransformOutput(str(transformed))
    tf.saved_model.save(Served(declaration, output), str(data / "transform" / "transform_fn"))
    counts = {split: _copy(data, split, patterns) for split, patterns in files.items()}
    ids, lengths = _count(declaration, output, data)
    known = tables(declaration, output, ids)
    write_vocabularies(data / "vocabulary", declaration, output, known, ids)
    always = {f.name for f in output.raw_metadata.schema.feature if f.presence.min_fraction == 1}
    missing = {column.name for column in raw_columns(declaration)} - always
    describe(declaration, known, lengths, counts, missing).save(data)
    example = tf.train.Example()
    for column in raw_columns(declaration):
        feature = example.features.feature[column.name]
        if column.dtype == "string":
            feature.bytes_list.value.extend([] if column.history else [b""])
        elif not column.history:
            values = feature.int64_list if column.dtype == "int64" else feature.float_list
            values.value.append(0)
    with tf.io.TFRecordWriter(str(data / "sample.tfrecord")) as writer:  # to warm up with
        writer.write(example.SerializeToString())


def _copy(data: Path, split: str, patterns: list[str]) -> int:
    """Writes the examples of a split as `tfrec.data` reads them: one file for each of TFX's."""
    found = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    rows = 0
    for index, path in enumerate(found):
        name = f"{split}-{index:05d}-of-{len(found):05d}.tfrecord"
        with tf.io.TFRecordWriter(str(data / "examples" / name)) as writer:
            for record in tf.data.TFRecordDataset(path, "GZIP").as_numpy_iterator():
                writer.write(record)
                rows += 1
    return rows


def _count(
    declaration: Declaration, output: tft.TFTransformOutput, data: Path
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Counts of ids by table, and the longest lists by feature, of the training split."""
    tables_of, packed = tables_of_fields(declaration), packed_fields(declaration).get(IDS, [])
    counted: dict[str, list[Any]] = {table: [] for table in tables_of.values()}
    lengths: dict[str, int] = {}
    for batch in _batches(output, data):
        for name, table in tables_of.items():
            if name in packed:
                values = batch[IDS][:, packed.index(name)]
            else:
                values = batch[name].flat_values
            counted[table].append(np.unique(values.numpy(), return_counts=True))
        for name, value in batch.items():
            if isinstance(value, tf.RaggedTensor):
                longest = int(tf.reduce_max(value.row_lengths()))
                lengths[name] = max(lengths.get(name, 0), longest)
    combine = CountIds()
    totals = {}
    for table, pairs in counted.items():
        total = combine.create_accumulator()
        for pair in pairs:
            total = combine.add_input(total, pair)
        totals[table] = total
    return totals, lengths


def _batches(output: tft.TFTransformOutput, data: Path) -> Iterator[dict[str, Any]]:
    spec = output.transformed_feature_spec()
    files = sorted(str(path) for path in (data / "examples").glob("train-*"))
    for records in tf.data.TFRecordDataset(files).batch(BATCH_SIZE):
        yield tf.io.parse_example(records, spec)
