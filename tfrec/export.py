"""`python -m tfrec.export`: a SavedModel with the preprocessing inside, for TF Serving.

Signatures, without labels; the first two give the served value of every task by name:

- `serving_default`: `examples`, serialized tf.Examples (batch,) of raw columns;
- `predict`: raw columns by name, (batch,), or (batch, events) for a history's, padded with "";
- `explain`, of models with attention: the columns of `predict` → the attention weights.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfrec.cli import command, quiet_import
from tfrec.features import Features
from tfrec.strict import UserError

if TYPE_CHECKING:
    from tfrec.models.base import Model
    from tfrec.runs import Run

WARM_UP_FILE = "tf_serving_warmup_requests"
WARM_UP_BATCHES = (1, 8, 64)


def export(run: Run, model: Model) -> Path:
    """Writes the next version of a run's export; it appears whole or not at all.

    Args:
        run: whose export directory it goes to.
        model: with the weights to export.

    Returns:
        The version's directory, `<run>/export/<version>`.

    Raises:
        UserError: the run's data set is no longer there, or no longer the same, or the export
            cannot be written.
    """
    import tensorflow as tf

    from tfrec.checkpoints import writing

    data = Path(run.config.data)
    run.features.check_same_ids(Features.load(data), str(data))
    for part in ("transform", "sample.tfrecord"):
        if not (data / part).exists():
            raise UserError(
                f"data set {data} has no {part}, which every export needs; make it again"
            )
    base = run.export_directory
    base.mkdir(parents=True, exist_ok=True)
    version = 1 + max((int(p.name) for p in base.iterdir() if p.name.isdigit()), default=0)
    place = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=base))
    place.chmod(0o755)
    try:
        servable, signatures = _servable(run, model, str(data / "transform" / "transform_fn"))
        logs = list(_warm_up(run, str(data / "sample.tfrecord")))
        with writing(f"export {base / str(version)}"):
            tf.saved_model.save(servable, str(place), signatures=signatures)
            extra = place / "assets.extra"
            extra.mkdir()
            with tf.io.TFRecordWriter(str(extra / WARM_UP_FILE)) as writer:
                for log in logs:
                    writer.write(log)
            run.features.save(extra)
            place.rename(base / str(version))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return base / str(version)


def _servable(run: Run, model: Model, transform_directory: str) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    from tfrec.models.base import Model
    from tfrec.serving_inputs import from_columns, from_examples, signature_columns

    features = run.features

    class Servable(tf.Module):
        """The functions of the export, and what they need: tables, vocabularies, weights."""

        def __init__(self) -> None:
            super().__init__()
            try:
                self.transform = tf.saved_model.load(transform_directory)
            except Exception as error:  # every kind of damage has one of its own
                reason = (str(error).splitlines() or ["damaged"])[0]
                raise UserError(
                    f"{transform_directory} cannot be loaded ({reason}); make the data set again"
                ) from None
            self.weights = model.variables  # not the Keras object: serving needs no Keras

    servable = Servable()

    def inputs_of(raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        from tfrec.data import pad

        return pad(features, servable.transform.transform_fn(raw))

    def scores(raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        return model.served(model(inputs_of(raw), training=False))

    @tf.function(autograph=False)
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(from_examples(features, examples))

    @tf.function(autograph=False)
    def predict(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(from_columns(features, columns))

    @tf.function(autograph=False)
    def explain(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
        return model.explain(inputs_of(from_columns(features, columns)))

    signatures = {
        "serving_default": serving_default.get_concrete_function(
            examples=tf.TensorSpec([None], tf.string, "examples")
        ),
        "predict": predict.get_concrete_function(**signature_columns(features)),
    }
    if type(model).explain is not Model.explain:
        signatures["explain"] = explain.get_concrete_function(**signature_columns(features))
    return servable, signatures


def _warm_up(run: Run, sample: str) -> Iterator[bytes]:
    """Serialized PredictionLogs: requests that both signatures answer at load time."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from tfrec.serving_inputs import columns_of_examples

    examples = [record.numpy() for record in tf.data.TFRecordDataset(sample)]
    for size in WARM_UP_BATCHES:
        batch = (examples * size)[:size]
        inputs = {"examples": tf.make_tensor_proto(batch)}
        named = columns_of_examples(run.features, batch)
        requests = {"serving_default": inputs}
        requests["predict"] = {name: tf.make_tensor_proto(v) for name, v in named.items()}
        for signature, tensors in requests.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = run.config.model.id
            request.model_spec.signature_name = signature
            for name, tensor in tensors.items():
                request.inputs[name].CopyFrom(tensor)
            yield log.SerializeToString()


@click.command()
@click.option("--run", "directory", required=True, type=Path, help="Run directory.")
@command
def main(directory: Path) -> None:
    """Export a run's best weights as the next version under its export directory."""
    with quiet_import():
        import tensorflow  # noqa: F401

        from tfrec.runs import Run

    run = Run.load(directory)
    click.echo(f"exported {os.fspath(export(run, run.best_model()))}")


if __name__ == "__main__":
    main()
