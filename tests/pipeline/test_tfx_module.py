"""The module's functions, called the way TFX's Transform and Trainer call them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.public.tfxio import TFExampleRecord

from pipeline import tfx_module
from pipeline.ingest import example_schema
from tests.pipeline import shop
from tfrec.evaluation import evaluator
from tfrec.runs import Run
from tfrec.strict import UserError

TRAIN = {
    "model": {"id": "wide_deep", "hidden": [8]}, "labels": ["like"], "batch_size": 64, "epochs": 1,
    "optimizers": {"linear": {"learning_rate": 0.05}},
}  # fmt: skip
SPLITS = {"train": "train", "eval": "validation"}  # TFX's names and ours


def raw_examples(ingested: Path, folder: Path) -> None:
    """TFRecords of raw examples, as ExampleGen makes them of Parquet."""
    for split, ours in SPLITS.items():
        (folder / split).mkdir(parents=True)
        table = pq.read_table(ingested / "examples" / ours)
        options = tf.io.TFRecordOptions("GZIP")
        with tf.io.TFRecordWriter(str(folder / split / "data.gz"), options) as writer:
            for batch in table.combine_chunks().to_batches():
                for example in RecordBatchToExamplesEncoder().encode(batch):
                    writer.write(example)


def schema_of(declaration: Any) -> schema_pb2.Schema:
    """As SchemaGen infers it: types and presence, no shapes, so that all inputs are sparse."""
    schema = schema_pb2.Schema()
    types = {"int64": schema_pb2.INT, "float": schema_pb2.FLOAT, "large_binary": schema_pb2.BYTES}
    for field in example_schema(declaration):
        feature = schema.feature.add(name=field.name, type=types[str(field.type.value_type)])
        feature.value_count.min = 0
        feature.presence.min_fraction = float(field.name in ("user", "item", "time"))
    return schema


@pytest.fixture(scope="module")
def transformed(data_set: Any, tmp_path_factory: Any) -> tuple[Path, Path]:
    """The declaration, and what TFX's Transform leaves of it."""
    folder = tmp_path_factory.mktemp("tfx")
    source = {"format": "csv", "path": str(data_set.directory.parents[1] / "events.csv")}
    declaration = shop.declare(source=source, max_rejected=0.01)
    config = folder / "shop.yaml"
    config.write_text(yaml.safe_dump(declaration.model_dump(mode="json", exclude_unset=True)))
    raw_examples(data_set.directory.parent / "ingest", folder / "raw")
    custom_config = {"declaration": str(config)}

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        return tfx_module.preprocessing_fn(inputs, custom_config=custom_config)

    with (
        beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp")),
    ):
        read = {
            split: TFExampleRecord(
                str(folder / "raw" / split / "*"), schema=schema_of(declaration),
                telemetry_descriptors=["test"],
            )
            for split in SPLITS
        }  # fmt: skip
        data = {
            split: (pipeline | f"read {split}" >> io.BeamSource(), io.TensorAdapterConfig())
            for split, io in read.items()
        }
        function = data["train"] | tft_beam.AnalyzeDataset(preprocessing_fn)
        _ = function | tft_beam.WriteTransformFn(str(folder / "transform_graph"))
        metadata = dataset_metadata.DatasetMetadata(schema_of(declaration))
        _ = metadata | tft_beam.WriteMetadata(str(folder / "transform_graph/metadata"), pipeline)
        for split in SPLITS:
            batches, metadata = (data[split], function) | f"transform {split}" >> (
                tft_beam.TransformDataset(output_record_batches=True)
            )
            encoded = batches | f"encode {split}" >> beam.FlatMap(
                lambda made, meta: RecordBatchToExamplesEncoder(meta.schema).encode(made[0]),
                beam.pvalue.AsSingleton(metadata.deferred_metadata),
            )
            _ = encoded | f"write {split}" >> beam.io.WriteToTFRecord(
                str(folder / "transformed" / split / "data"), file_name_suffix=".gz"
            )
    return config, folder


def arguments(transformed: tuple[Path, Path], place: Path, **custom_config: Any) -> Any:
    config, folder = transformed
    return SimpleNamespace(
        train_files=[str(folder / "transformed" / "train" / "*")],
        eval_files=[str(folder / "transformed" / "eval" / "*")],
        transform_output=str(folder / "transform_graph"),
        serving_model_dir=str(place / "Format-Serving"),
        model_run_dir=str(place / "run"),
        custom_config={"declaration": str(config), **custom_config},
    )


def test_a_model_is_trained_and_served(transformed: Any, data_set: Any, tmp_path: Path) -> None:
    """Of examples with the ids and numbers of the project's own pipeline."""
    fn_args = arguments(transformed, tmp_path, train=TRAIN)
    tfx_module.run_fn(fn_args)
    made = shop.stored(tmp_path / "run" / "data", "train")
    own = data_set.splits["train"]
    assert made.keys() == own.keys()
    for key, example in own.items():
        assert example.keys() == made[key].keys()
        for name, values in example.items():
            np.testing.assert_array_equal(made[key][name], values, err_msg=name)
    run = Run.load(tmp_path / "run" / "run")
    measuring, best = evaluator(run.config, run.features, "validation"), run.best_model()
    expected = {}
    for inputs, _, _, keys in measuring.read():
        pairs = zip(keys["user"].numpy(), keys["item"].numpy(), strict=True)
        expected |= zip(pairs, measuring.scorer(best)(inputs, keys)["like"], strict=True)
    files = tf.data.TFRecordDataset(str(transformed[1] / "raw" / "eval" / "data.gz"), "GZIP")
    raw = [record.numpy() for record in files]
    model = tf.saved_model.load(fn_args.serving_model_dir)
    answer = model.signatures["serving_default"](examples=tf.constant(raw))["like"].numpy()
    for record, value in zip(raw, answer, strict=True):
        fields = tf.train.Example.FromString(record).features.feature
        key = tuple(fields[name].bytes_list.value[0] for name in ("user", "item"))
        assert value == pytest.approx(expected.pop(key), abs=1e-6)
    assert not expected
    assert len(set(answer.tolist())) > len(raw) / 2


def test_what_cannot_be_trained(transformed: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'train' is missing in custom_config"):
        tfx_module.run_fn(arguments(transformed, tmp_path))
    with pytest.raises(UserError, match="mf scores all items"):
        tfx_module.run_fn(arguments(transformed, tmp_path, train={"model": "mf"}))
