"""Small SavedModels, and the files around them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2


class Half(tf.Module):
    """y = x / 2 + offset."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def half(self, x: Any) -> Any:
        return {"y": x / 2 + self.offset}


class Everything(Half):
    """One signature for each thing that a request can meet."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, "pair"),
            tf.TensorSpec([None], tf.string, "name"),
        ]
    )
    def two(self, pair: Any, name: Any) -> Any:
        return {"total": tf.reduce_sum(pair, 1), "greeting": tf.strings.join(["hello ", name])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def below_ten(self, x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, "x is not below ten")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "name")])
    def binary(self, name: Any) -> Any:
        return {"copy_bytes": tf.identity(name), "copy": tf.identity(name)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "name")])
    def read(self, name: Any) -> Any:
        return {"content": tf.io.read_file(name)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def opaque(self, x: Any) -> Any:
        scalar = tf.constant([], tf.int32)
        return {"y": tf.raw_ops.TensorListFromTensor(tensor=x, element_shape=scalar)}

    @tf.function(input_signature=[])
    def constant(self) -> Any:
        return {"y": self.offset + 0.0}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float64, "seconds")])
    def spin(self, seconds: Any) -> Any:
        """Ends after so long, and touches nothing."""
        end = tf.timestamp() + seconds
        turns = tf.while_loop(
            lambda turns: tf.timestamp() < end, lambda turns: turns + 1, [tf.constant(0, tf.int64)]
        )
        return {"spun": turns[0] > 0}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "directory")])
    def wait(self, directory: Any) -> Any:
        """Says in a file that it has begun, and ends when it finds another."""
        begun = tf.io.write_file(tf.strings.join([directory, "/begun"]), "")
        with tf.control_dependencies([begun]):
            last = tf.timestamp() + 30

        def goes_on(turns: Any) -> Any:
            found = tf.io.matching_files(tf.strings.join([directory, "/end"]))
            return (tf.size(found) == 0) & (tf.timestamp() < last)

        turns = tf.while_loop(goes_on, lambda turns: turns + 1, [tf.constant(0, tf.int64)])
        return {"waited": tf.reduce_all(turns[0] >= 0)}


class Shop(tf.Module):
    """Raw columns as the exports of recommenders take them; outputs tell what came."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user"),
            tf.TensorSpec([None], tf.int64, "at"),
            tf.TensorSpec([None], tf.float32, "unit_price"),
            tf.TensorSpec([None, None], tf.string, "liked"),
            tf.TensorSpec([None, None], tf.float32, "liked_price"),
            tf.TensorSpec([None, 2], tf.float32, "place"),
        ]
    )
    def predict(
        self, user: Any, at: Any, unit_price: Any, liked: Any, liked_price: Any, place: Any
    ) -> Any:
        tf.debugging.assert_positive(at, message="at is not above 0")
        real = liked != ""
        price = tf.where(tf.math.is_nan(unit_price), -1.0, unit_price)
        return {
            "score": price + tf.reduce_sum(tf.where(real, liked_price, 0.0), 1) / 10,
            "events": tf.reduce_sum(tf.cast(real, tf.int64), 1),
            "padding": tf.reduce_sum(tf.cast(~real & tf.math.is_nan(liked_price), tf.int32), 1),
            "known": user != "",
            "about": tf.strings.join([user, tf.strings.reduce_join(liked, 1, separator=",")], ":"),
            "vectors": place * [[2.0, 0.1]],
            "names": tf.stack([user, user], 1),
            "raw_bytes": user,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def examples(self, examples: Any) -> Any:
        ragged = {
            name: tf.io.RaggedFeature(dtype)
            for name, dtype in (("liked", tf.string), ("liked_price", tf.float32))
        }
        spec = {
            "user": tf.io.FixedLenFeature([], tf.string, ""),
            "at": tf.io.FixedLenFeature([], tf.int64),
            "unit price": tf.io.FixedLenFeature([], tf.float32, float("nan")),
            "place": tf.io.FixedLenFeature([2], tf.float32, [0.0, 0.0]),
            **ragged,
        }
        raw = tf.io.parse_example(examples, spec)
        raw["unit_price"] = raw.pop("unit price")
        raw["liked"] = raw["liked"].to_tensor()
        raw["liked_price"] = raw["liked_price"].to_tensor(float("nan"))
        return self.predict(**raw)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user"),
            tf.TensorSpec([None, None], tf.string, "liked"),
            tf.TensorSpec([None], tf.int32, "k"),
            tf.TensorSpec([None], tf.bool, "exclude_seen"),
            tf.TensorSpec([None, None], tf.string, "exclude"),
        ]
    )
    def recommend(self, user: Any, liked: Any, k: Any, exclude_seen: Any, exclude: Any) -> Any:
        """Items a to e by that order, with scores that fall."""
        items = tf.constant(["a", "b", "c", "d", "e"])
        seen = tf.reduce_any(items == liked[:, :, tf.newaxis], 1) & exclude_seen[:, tf.newaxis]
        unwanted = seen | tf.reduce_any(items == exclude[:, :, tf.newaxis], 1)
        scores = tf.where(unwanted, -1.0, [0.9, 0.8, 0.7, 0.6, 0.5])
        best, places = tf.math.top_k(scores, tf.minimum(tf.reduce_max(k), 5))
        found = (best > 0) & (tf.range(tf.shape(best)[1]) < k[:, tf.newaxis])
        return {
            "items": tf.where(found, tf.gather(items, places), ""),
            "scores": tf.where(found, best, 0.0),
            "retrieval_scores": tf.where(found, best * 2, 0.0),
        }


def save_shop(directory: Path) -> Path:
    """A SavedModel of `Shop`."""
    model = Shop()
    signatures = {"predict": model.predict, "recommend": model.recommend}
    signatures["serving_default"] = model.examples
    tf.saved_model.save(model, str(directory), signatures)
    return directory


def save_half(directory: Path, offset: float) -> Path:
    """A SavedModel of `Half`."""
    model = Half(offset)
    tf.saved_model.save(model, str(directory), {"serving_default": model.half})
    return directory


def save_everything(directory: Path) -> Path:
    """A SavedModel of `Everything`."""
    model = Everything(2.0)
    names = ("two", "below_ten", "binary", "read", "opaque", "constant", "spin", "wait")
    signatures = {name: getattr(model, name) for name in names}
    signatures["serving_default"] = model.half
    tf.saved_model.save(model, str(directory), signatures)
    return directory


def predict_request(
    inputs: dict[str, Any], signature: str = "", model: str = "model", version: int | None = None
) -> predict_pb2.PredictRequest:
    """A request of arrays, or of TensorProtos as they are."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        ready = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[name].CopyFrom(value if ready else tf.make_tensor_proto(value))
    return request


def write_warm_up(directory: Path, records: Iterable[bytes]) -> None:
    """The file of warm-up requests of a SavedModel."""
    extra = directory / "assets.extra"
    extra.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for record in records:
            writer.write(record)


def logged(request: predict_pb2.PredictRequest, answer: dict[str, Any] | None = None) -> bytes:
    """A record of a warm-up file, with the answer if there is one."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    for name, value in (answer or {}).items():
        log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log.SerializeToString()
