"""Exports load where this project is not, and give what the trained model gives."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.replay import replay
from tests.models.cases import CASES
from tests.support import randomise
from tfrec.data import evaluation_batches
from tfrec.export import export, next_version
from tfrec.features import Column, Features
from tfrec.models.registry import ENTRIES
from tfrec.runs import Run, resolve
from tfrec.servable import servable as make_servable
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
count = len(requests["examples"])
requests |= {"k": [5] * count, "exclude_seen": [True] * count, "exclude": [[b""]] * count}
requests["candidates"] = [[b"p1", b"p2"]] * count
answers = {}
for export in sys.argv[1:]:
    model = tf.saved_model.load(export)
    for signature, function in model.signatures.items():
        types = function.structured_input_signature[1]
        inputs = {k: tf.constant(list(requests[k]), spec.dtype) for k, spec in types.items()}
        for name, values in function(**inputs).items():
            array = values.numpy()
            array = array.astype(bytes) if array.dtype == object else array
            answers[f"{export}:{signature}:{name}"] = array
np.savez("answers.npz", **answers)
others = {"tf_keras", "tensorflow_transform", "tensorflow_recommenders", "tfx_bsl"}
assert not others & set(sys.modules), others & set(sys.modules)
"""


def sample(shop: Path) -> list[bytes]:
    return [r.numpy() for r in tf.data.TFRecordDataset(str(shop / "sample.tfrecord"))]


def key_of(example: bytes) -> tuple[bytes, bytes]:
    feature = tf.train.Example.FromString(example).features.feature
    return feature["customer"].bytes_list.value[0], feature["product"].bytes_list.value[0]


LABELS = {"esmm": ["opened", "bought"]}  # others have the first of the data set's, or all
_TASKS = ["bought", "stars", "opened"]
SERVED = {
    **dict.fromkeys(("shared_bottom", "moe", "mmoe", "ple"), _TASKS),
    "esmm": ["pCTR", "pCVR", "pCTCVR"],
    **{entry.id: ["score"] for entry in ENTRIES if entry.scores_items},
}
WHOLE = ("lr", "din", "dien")  # exported as a user does it


@dataclasses.dataclass(frozen=True)
class Exports:
    """Runs of every model, with random weights.

    Attributes:
        runs: and their models, by id.
        together: one SavedModel with the signatures of all, `<id>.<signature>`: many exports take
            minutes.
    """

    runs: dict[str, tuple[Run, Any]]
    together: Path

    def __getitem__(self, model: str) -> tuple[Run, Any]:
        return self.runs[model]


@pytest.fixture(scope="module")
def exports(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    base = tmp_path_factory.mktemp("runs")
    runs, root, signatures = {}, tf.Module(), {}
    root.servables = []
    load = functools.cache(tf.saved_model.load)  # the preprocessing is the same for all
    for entry in ENTRIES:
        hyperparameters = CASES[entry.id].hyperparameters
        values = {"data": str(shop), "model": {"id": entry.id, **hyperparameters}}
        values["labels"] = LABELS.get(entry.id)
        config, features = resolve(values, "test")
        run = Run(base / entry.id, config, features)
        run.start(overwrite=False)
        model = run.build_model()
        randomise(model)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tf.saved_model, "load", load)
            patch.setattr("tfrec.servable.ranks", lambda *_: False)  # whole exports have it
            servable, own = make_servable(run, model, base)
        root.servables.append(servable)
        signatures.update({f"{entry.id}.{name}": function for name, function in own.items()})
        if entry.id in WHOLE:
            assert export(run, model) == run.export_directory / "1"
        runs[entry.id] = run, model
    tf.saved_model.save(root, str(base / "together"), signatures=signatures)
    return Exports(runs, base / "together")


@pytest.fixture(scope="module")
def answers(
    shop: Path, exports: Exports, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What all signatures answer in one fresh process: `<path>:<signature>:<name>`."""
    place = tmp_path_factory.mktemp("fresh")
    examples = sample(shop)
    columns = columns_of_examples(Features.load(shop), examples)
    np.savez(place / "requests.npz", examples=np.array(examples, object), **columns)
    paths = [str(exports.together)]
    paths += [str(exports[model][0].export_directory / "1") for model in WHOLE]
    command = [sys.executable, "-c", FRESH, *paths]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(place / "answers.npz"))


def rows_of(split: str, shop: Path, features: Features) -> Iterator[tuple[Any, list[Any]]]:
    """Transformed rows of a split, and what tells them apart."""
    for inputs, _, _, keys in evaluation_batches(shop, features, split, 64):
        yield inputs, list(zip(keys["user"].numpy(), keys["item"].numpy(), strict=True))


@pytest.mark.parametrize("model", [entry.id for entry in ENTRIES])
@pytest.mark.parametrize("signature", ["serving_default", "predict"])
def test_fresh_process_answers_as_the_keras_model(
    model: str, signature: str, shop: Path, exports: Exports, answers: Any
) -> None:
    """From raw rows there, from the pipeline's transformed rows here: there is no skew."""
    run, built = exports[model]
    expected: dict[str, dict[Any, Any]] = {name: {} for name in SERVED.get(model, ["bought"])}
    for inputs, rows in rows_of("test", shop, run.features):
        for name, served in built.served(built(inputs, training=False)).items():
            expected[name].update(zip(rows, served.numpy(), strict=True))
    examples = sample(shop)
    prefix = f"{exports.together}:{model}.{signature}:"
    assert {key for key in answers if key.startswith(prefix)} == {prefix + n for n in expected}
    for name, by_row in expected.items():
        assert len(by_row) == len(examples) == run.features.counts["test"]
        wanted = [by_row[key_of(example)] for example in examples]
        assert np.ptp(wanted) > 0.01
        np.testing.assert_allclose(answers[prefix + name], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", WHOLE)
def test_whole_exports_have_these_signatures(model: str, exports: Exports, answers: Any) -> None:
    run, _ = exports[model]
    whole, own = f"{run.export_directory / '1'}:", f"{exports.together}:{model}."
    found = {k.removeprefix(whole): v for k, v in answers.items() if k.startswith(whole)}
    expected = {k.removeprefix(own): v for k, v in answers.items() if k.startswith(own)}
    assert expected.keys() >= {"serving_default:bought", "predict:bought"}
    assert found.keys() == {*expected, "rank:bought"}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


ATTENTION = {
    "afm": "attention",
    **dict.fromkeys(
        ("din", "dien", "bst", "transformer_joint", "sasrec", "bert4rec"), "attention_bought_before"
    ),
}


def test_only_models_with_attention_have_the_signature_that_explains(
    exports: Exports, answers: Any
) -> None:
    keys = [key.removeprefix(f"{exports.together}:").split(":") for key in answers]
    explained = {k[0].split(".")[0]: k[1] for k in keys if k[0].endswith(".explain")}
    assert explained == ATTENTION


@pytest.mark.parametrize("model", ATTENTION)
def test_fresh_process_explains_as_the_keras_model(
    model: str, shop: Path, exports: Exports, answers: Any
) -> None:
    run, built = exports[model]
    name, expected = ATTENTION[model], {}
    for inputs, rows in rows_of("test", shop, run.features):
        expected.update(zip(rows, built.explain(inputs)[name].numpy(), strict=True))
    got = answers[f"{exports.together}:{model}.explain:{name}"]
    wanted = [expected[key_of(example)] for example in sample(shop)]
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    if model not in ("din", "bst", "bert4rec"):  # no softmax, or one over more than the events
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("model", ["din", "dien"])
def test_padding_has_no_weight_in_what_explains(model: str, exports: Exports) -> None:
    run, _ = exports[model]
    explain = tf.saved_model.load(str(run.export_directory / "1")).signatures["explain"]
    weights = explain(
        customer=tf.constant(["c1"]),
        product=tf.constant(["p2"]),
        colours=tf.constant(["red|blue"]),
        unit_price=tf.constant([9.5]),
        at=tf.constant([1_600_000_000], tf.int64),
        bought_before_product=tf.constant([["p1", "p2", "", ""]]),
        bought_before_colours=tf.constant([["red", "blue", "", ""]]),
    )["attention_bought_before"].numpy()[0]
    assert (weights[:2] != 0).all()
    assert len(weights) > 2
    assert (weights[2:] == 0).all()


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


def test_warm_up_requests_are_answered_as_recorded(exports: Exports) -> None:
    run, _ = exports["din"]
    found, unrecorded = replay(run.export_directory / "1")
    assert found == dict.fromkeys(("serving_default", "predict", "explain", "rank"), 3)
    assert unrecorded == 0


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


def test_what_an_export_left_that_was_killed_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Unless it is still at work, or on another machine, of which nothing can be told."""
    script = (
        "import pathlib, sys; from tfrec.export import next_version\n"
        "with next_version(pathlib.Path(sys.argv[1])) as (place, version):\n"
        "    (place / 'half').write_text('')\n"
        "    print(place, flush=True); sys.stdin.read()"
    )
    others = [".1.elsewhere.abcd1234", f".1.{socket.gethostname()}", ".notes", "1"]
    for name in others:
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout
        left = Path(killed.stdout.readline().decode().strip())
        with next_version(tmp_path):
            assert (left / "half").exists()
        killed.kill()
    assert left.exists()
    with next_version(tmp_path) as (place, _), next_version(tmp_path):
        assert place.exists()
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "2", "3"])
