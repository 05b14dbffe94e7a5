"""Exports load where this project is not, and give what the trained model gives."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.models.cases import CASES
from tests.support import randomise
from tfrec.data import evaluation_batches
from tfrec.export import export
from tfrec.features import Column, Features
from tfrec.models.registry import ENTRIES
from tfrec.runs import Run, resolve
from tfrec.serving_inputs import columns_of_examples, request_name, signature_columns
from tfrec.strict import UserError

# Runs with nothing but TensorFlow and NumPy: the project cannot be imported, the rest is not.
FRESH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tfrec", "pipeline", "serving"}:
            raise ImportError(name + " is not to be imported")

sys.meta_path.insert(0, Block())
import numpy as np
import tensorflow as tf

requests = dict(np.load("requests.npz", allow_pickle=True))
examples = tf.constant(list(requests.pop("examples")))
answers = {}
for export in sys.argv[1:]:
    model = tf.saved_model.load(export)
    types = model.signatures["predict"].structured_input_signature[1]
    columns = {k: tf.constant(v.tolist(), types[k].dtype) for k, v in requests.items()}
    requests_by_signature = {"serving_default": {"examples": examples}, "predict": columns}
    for signature, inputs in requests_by_signature.items():
        for task, values in model.signatures[signature](**inputs).items():
            answers[f"{export}:{signature}:{task}"] = values.numpy()
np.savez("answers.npz", **answers)
others = {"tf_keras", "tensorflow_transform", "tensorflow_recommenders", "tfx_bsl"}
assert not others & set(sys.modules), others & set(sys.modules)
"""


def sample(shop: Path) -> list[bytes]:
    return [r.numpy() for r in tf.data.TFRecordDataset(str(shop / "sample.tfrecord"))]


def key_of(example: bytes) -> tuple[bytes, bytes]:
    feature = tf.train.Example.FromString(example).features.feature
    return feature["customer"].bytes_list.value[0], feature["product"].bytes_list.value[0]


@pytest.fixture(scope="module")
def exports(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Any]]:
    """A run of every model, with random weights, exported."""
    base = tmp_path_factory.mktemp("runs")
    made = {}
    for entry in ENTRIES:
        hyperparameters = CASES[entry.id].hyperparameters
        values = {"data": str(shop), "model": {"id": entry.id, **hyperparameters}}
        config, features = resolve(values, "test")
        run = Run(base / entry.id, config, features)
        run.start(overwrite=False)
        model = run.build_model()
        randomise(model)
        assert export(run, model) == run.export_directory / "1"
        made[entry.id] = run, model
    return made


@pytest.fixture(scope="module")
def answers(
    shop: Path, exports: dict[str, tuple[Run, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What all exports answer in one fresh process."""
    place = tmp_path_factory.mktemp("fresh")
    examples = sample(shop)
    columns = columns_of_examples(Features.load(shop), examples)
    np.savez(place / "requests.npz", examples=np.array(examples, object), **columns)
    paths = [str(run.export_directory / "1") for run, _ in exports.values()]
    command = [sys.executable, "-c", FRESH, *paths]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(place / "answers.npz"))


@pytest.mark.parametrize("model", [entry.id for entry in ENTRIES])
@pytest.mark.parametrize("signature", ["serving_default", "predict"])
def test_fresh_process_answers_as_the_keras_model(
    model: str, signature: str, shop: Path, exports: Any, answers: Any
) -> None:
    """From raw rows there, from the pipeline's transformed rows here: there is no skew."""
    run, built = exports[model]
    expected = {}
    for inputs, _, _, keys in evaluation_batches(shop, run.features, "test", 64):
        served = built.probabilities(built(inputs, training=False))["bought"].numpy()
        expected.update(
            zip(zip(keys["user"].numpy(), keys["item"].numpy(), strict=True), served, strict=True)
        )
    examples = sample(shop)
    assert len(expected) == len(examples) == run.features.counts["test"]
    got = answers[f"{run.export_directory / '1'}:{signature}:bought"]
    wanted = [expected[key_of(example)] for example in examples]
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_no_label_is_asked_for(shop: Path, exports: Any) -> None:
    run, _ = exports["lr"]
    loaded = tf.saved_model.load(str(run.export_directory / "1"))
    names = set(loaded.signatures["predict"].structured_input_signature[1])
    assert names == {
        "customer",
        "product",
        "colours",
        "unit_price",
        "at",
        "bought_before_product",
        "bought_before_colours",
    }
    assert not any(
        "rating" in name
        for e in sample(shop)
        for name in tf.train.Example.FromString(e).features.feature
    )


def test_columns_that_requests_could_not_tell_apart_are_refused(shop: Path) -> None:
    features = Features.load(shop)
    two = (Column("unit price", "float32"), Column("unit-price", "float32"))
    assert request_name(Column("2nd", "string")) == "arg_2nd"
    with pytest.raises(UserError, match="'unit_price'"):
        signature_columns(dataclasses.replace(features, columns=two))


def test_warm_up_requests_can_be_answered(exports: Any) -> None:
    run, _ = exports["din"]
    version = run.export_directory / "1"
    loaded = tf.saved_model.load(str(version))
    seen = set()
    path = str(version / "assets.extra" / "tf_serving_warmup_requests")
    for record in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        assert np.isfinite(loaded.signatures[name](**inputs)["bought"]).all()
        seen.add(name)
    assert seen == {"serving_default", "predict"}


def test_histories_of_a_request(shop: Path, exports: Any) -> None:
    """Padding, order and overlong histories mean what they mean in training."""
    run, _ = exports["din"]
    predict = tf.saved_model.load(str(run.export_directory / "1")).signatures["predict"]
    base = {
        "customer": tf.constant(["c1"]),
        "product": tf.constant(["p2"]),
        "colours": tf.constant(["red|blue"]),
        "unit_price": tf.constant([9.5]),
        "at": tf.constant([1_600_000_000], tf.int64),
    }

    def score(products: list[str], colours: list[str]) -> float:
        history = {
            "bought_before_product": tf.constant([products], tf.string),
            "bought_before_colours": tf.constant([colours], tf.string),
        }
        return float(predict(**base, **history)["bought"][0])

    two = score(["p1", "p2"], ["red", "blue"])
    assert score(["p1", "p2", "", ""], ["red", "blue", "", ""]) == pytest.approx(two, abs=1e-6)
    assert score(["", "p1", "p2"], ["", "red", "blue"]) == pytest.approx(two, abs=1e-6)
    assert score(["p1"], ["red"]) != pytest.approx(two, abs=1e-6)
    assert np.isfinite(score([], []))
    for products, colours in ((["p1"], ["red", "blue"]), (["p1", "p2"], ["red"])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="needs one of each"):
            score(products, colours)
    newest = [f"p{i}" for i in range(6)]
    overlong = score(["p30", "p31", *newest], ["black"] * 8)
    assert overlong == pytest.approx(score(newest, ["black"] * 6), abs=1e-6)


def test_a_request_with_a_history_out_of_step_is_refused(exports: Any) -> None:
    run, _ = exports["din"]
    default = tf.saved_model.load(str(run.export_directory / "1")).signatures["serving_default"]
    example = tf.train.Example()
    values = {"customer": b"c1", "product": b"p2", "colours": b"red"}
    for name, value in values.items():
        example.features.feature[name].bytes_list.value.append(value)
    example.features.feature["at"].int64_list.value.append(1_600_000_000)
    assert np.isfinite(default(examples=tf.constant([example.SerializeToString()]))["bought"][0])
    example.features.feature["bought_before_product"].bytes_list.value.extend([b"p1", b"p2"])
    example.features.feature["bought_before_colours"].bytes_list.value.append(b"red")
    with pytest.raises(tf.errors.InvalidArgumentError, match="bought_before_colours"):
        default(examples=tf.constant([example.SerializeToString()]))
    del example.features.feature["customer"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="customer"):
        default(examples=tf.constant([example.SerializeToString()]))


def test_versions_count_up(exports: Any) -> None:
    run, built = exports["lr"]
    assert export(run, built).name == "2"
    assert sorted(p.name for p in run.export_directory.iterdir()) == ["1", "2"]
