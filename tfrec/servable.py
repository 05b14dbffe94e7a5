"""The functions of an export, as graphs over raw columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfrec import catalogue
from tfrec.data import load_transform, pad
from tfrec.models.base import Model
from tfrec.models.retrieval.base import RetrievalModel
from tfrec.ranking import CandidateRanker, ranks
from tfrec.recommending import Retriever, recommend_request, recommending
from tfrec.serving_inputs import (
    columns_of_examples,
    from_columns,
    from_examples,
    signature_columns,
)

if TYPE_CHECKING:
    from tfrec.runs import Run

WARM_UP_BATCHES = (1, 8, 64)


class Servable(tf.Module):
    """What a SavedModel needs: the transform, and the weights.

    Not the Keras object: serving needs no Keras.

    Args:
        transform: of the data set, loaded.
        model: with its weights.
    """

    def __init__(self, transform: Any, model: Model) -> None:
        super().__init__()
        self.transform = transform
        self.weights = model.variables
        self.serves_odds = tf.Variable(model.serves_odds, trainable=False)  # told to evaluation


def servable(run: Run, model: Model, place: Path) -> tuple[Servable, dict[str, Any]]:
    """What `tf.saved_model.save` takes: an object, and its signatures.

    Args:
        run: of the model.
        model: with the weights to serve.
        place: a directory for files that saving copies.
    """
    features, data = run.features, Path(run.config.data)
    root = Servable(load_transform(data), model)

    def inputs_of(raw: dict[str, Any]) -> dict[str, tf.Tensor]:
        return pad(features, root.transform.transform_fn(raw))

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
    if isinstance(model, RetrievalModel):
        items = catalogue.load(data, features)
        root.retriever = Retriever(features, model, root.transform, items, place)
        signatures |= recommending(root.retriever, model)
    elif ranks(features, data):
        root.ranker = CandidateRanker(features, model, root.transform, data, place)
        signatures["rank"] = root.ranker.rank
    return root, signatures


def warm_up(run: Run, root: Servable, signatures: Mapping[str, Any]) -> Iterator[bytes]:
    """Serialized PredictionLogs: requests that a server answers while it loads the model.

    Args:
        run: whose data set has samples of raw examples.
        root, signatures: of the model; every signature is asked.
    """
    for size in WARM_UP_BATCHES:
        examples = samples(run, size)
        named = columns_of_examples(run.features, examples)
        requests: dict[str, dict[str, Any]] = {"serving_default": {"examples": examples}}
        if "recommend" in signatures:
            requests["recommend"] = recommend_request(run.features, named)
        if "rank" in signatures:
            requests["rank"] = root.ranker.request(named)
        for name, function in signatures.items():
            columns = function.structured_input_signature[1]  # of all others, some of `predict`'s
            request = requests.get(name) or {column: named[column] for column in columns}
            yield prediction_log(run.config.model.id, name, function, request)


def samples(run: Run, size: int) -> list[bytes]:
    """So many serialized tf.Examples of raw columns, of the run's data set."""
    path = Path(run.config.data) / "sample.tfrecord"
    examples = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    return (examples * size)[:size]


def prediction_log(name: str, signature: str, function: Any, inputs: dict[str, Any]) -> bytes:
    """A request and its answer, as warm-up files hold them.

    Servers only ask; `serving.push` holds the saved model's answer against the recorded one.

    Args:
        name: of the model.
        signature: that is asked.
        function: what the signature does, concrete.
        inputs: arrays by name.
    """
    log = prediction_log_pb2.PredictionLog()
    request, response = log.predict_log.request, log.predict_log.response
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    tensors = {key: tf.constant(values) for key, values in inputs.items()}
    for key, tensor in tensors.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(tensor))
    for key, tensor in function(**tensors).items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(tensor))
    return log.SerializeToString()
