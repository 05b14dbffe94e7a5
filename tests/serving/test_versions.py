"""Versions of a model, and their warm-up; the last test in a process of its own."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import Code, ServingError
from serving.model import Model, Policy, Retries
from serving.models import Models, single
from serving.servable import Loading, Servable
from tests.serving.process import Server, until
from tests.serving.saved_models import logged, predict_request, write_warm_up

AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    return path


def answer(model: Model, version: int | None = None) -> tuple[int, float]:
    """The version that answers, and the offset of its model."""
    number, servable = model.get(version)
    return number, float(servable.run("serving_default", {"x": np.zeros(1, np.float32)})["y"][0])


def states(model: Model) -> dict[int, int]:
    return {version: status.state for version, status in model.statuses.items()}


def half_copied(source: Path, target: Path) -> Path:
    """Without its variables, which a copy may bring last."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("variables.data*"))
    return target


def finish_copy(source: Path, target: Path) -> None:
    for path in (source / "variables").glob("variables.data*"):
        shutil.copy(path, target / "variables")


def test_the_newest_version_serves_and_the_old_one_ends(halves: Path, base: Path) -> None:
    model = Model("m", base)
    shutil.copytree(halves / "two", base / "9")
    model.poll()
    assert answer(model) == (9, 2.0)
    shutil.copytree(halves / "three", base / "10")
    model.poll()
    assert answer(model) == answer(model, 10) == (10, 3.0)
    assert states(model) == {9: END, 10: AVAILABLE}
    assert all(status.code == Code.OK for status in model.statuses.values())
    with pytest.raises(ServingError, match=r"Specific\(m, 9\)"):
        model.get(9)
    model.poll()
    assert states(model) == {9: END, 10: AVAILABLE}


def test_only_the_newest_version_is_loaded(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    shutil.copytree(halves / "three", base / "2")
    model = Model("m", base)
    model.poll()
    assert states(model) == {2: AVAILABLE}


def test_going_back_to_an_older_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    shutil.copytree(halves / "three", base / "2")
    model.poll()
    shutil.rmtree(base / "2")
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE, 2: END}


def test_a_broken_version_leaves_the_old_one_serving(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    broken = base / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no protobuf")
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE, 2: END}
    assert model.statuses[2].code == Code.UNKNOWN
    assert "Error parsing message" in model.statuses[2].message
    with pytest.raises(ServingError, match=r"Specific\(m, 2\)"):
        model.get(2)


def test_a_broken_version_is_not_tried_at_every_look(
    halves: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (base / "1").mkdir()
    model = Model("m", base)
    with caplog.at_level(logging.ERROR, "serving"):
        for _ in range(3):
            model.poll()
        assert len(caplog.records) == 1
        half_copied(halves / "two", base / "2")
        for _ in range(3):
            model.poll()
        assert len(caplog.records) == 2
    assert states(model) == {1: END, 2: END}
    assert model.statuses[2].message


def test_a_half_copied_version_is_served_once_it_is_whole(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    (base / "2").mkdir()
    model.poll()
    assert answer(model) == (1, 2.0)
    shutil.copytree(halves / "three", base / "2", dirs_exist_ok=True)
    (data,) = (base / "2").glob("variables/variables.data*")
    whole = data.read_bytes()
    data.write_bytes(whole[:1])
    model.poll()
    assert states(model) == {1: AVAILABLE, 2: END}
    data.write_bytes(whole)
    model.poll()
    assert answer(model) == (2, 3.0)
    assert states(model) == {1: END, 2: AVAILABLE}
    assert model.statuses[2].message == ""


def test_a_version_that_was_repaired_in_place(halves: Path, base: Path) -> None:
    """Same files and sizes, but written anew."""
    directory = shutil.copytree(halves / "two", base / "1")
    (data,) = directory.glob("variables/variables.data*")
    whole = data.read_bytes()
    data.write_bytes(bytes(len(whole)))
    index = directory / "variables" / "variables.index"
    good = index.read_bytes()
    index.write_bytes(bytes(len(good)))
    model = Model("m", base)
    model.poll()
    assert states(model) == {1: END}
    data.write_bytes(whole)
    index.write_bytes(good)
    os.utime(index, ns=(0, 10**18))
    model.poll()
    assert answer(model) == (1, 2.0)


def test_what_is_no_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    for name in ("new", "2.tmp", ".3.x", "-4", "²", "٣", "1e3", str(2**63)):
        shutil.copytree(halves / "three", base / name)
    (base / "5").write_text("a file")
    model = Model("m", base)
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE}


def test_the_largest_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / str(2**63 - 1))
    model = Model("m", base)
    model.poll()
    assert answer(model) == (2**63 - 1, 2.0)


def test_without_versions(halves: Path, base: Path) -> None:
    models = Models()
    models.apply(single("m", base), patient=True)
    assert not models.ready
    with pytest.raises(ServingError, match=r"Latest\(m\)") as raised:
        models.get(ModelSpec(name="m"))
    assert raised.value.code == Code.NOT_FOUND
    with pytest.raises(ServingError, match="Could not find any versions of model m"):
        models.statuses(ModelSpec(name="m"))
    shutil.copytree(halves / "two", base / "1")
    models.poll()
    assert models.get(ModelSpec(name="m"))[0] == 1
    assert models.ready
    assert list(models.statuses(ModelSpec(name="m"))) == [1]


def test_a_base_path_that_went_away(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    shutil.rmtree(base)
    model.poll()
    assert answer(model) == (1, 2.0)


def test_versions_that_are_no_longer_wanted_end(halves: Path, base: Path) -> None:
    """Though there is none to take over: by a policy, or since their folders went."""
    shutil.copytree(halves / "two", base / "1")
    model = Model("m", base)
    model.poll()
    model.configure(base, Policy(specific={"versions": [9]}))
    model.poll()
    assert states(model) == {1: END}
    with pytest.raises(ServingError, match=r"Latest\(m\)"):
        model.get()
    model.configure(base, Policy())
    model.poll()
    assert answer(model) == (1, 2.0)
    (base / "1").rename(base / "gone")
    model.poll()
    assert states(model) == {1: END}
    (base / "gone").rename(base / "1")
    model.poll()
    assert answer(model) == (1, 2.0)


def test_another_base_path_takes_over_once_it_has_a_version(halves: Path, base: Path) -> None:
    shutil.copytree(halves / "two", base / "1")
    models, spec, other = Models(), ModelSpec(name="m"), base / "other"
    models.apply(single("m", base))

    def serves(offset: float) -> bool:
        number, servable = models.get(spec)
        assert models.statuses(spec)[number].state == AVAILABLE
        output = servable.run("serving_default", {"x": np.zeros(1, np.float32)})
        return output["y"].tolist() == [offset]

    with pytest.raises(ServingError, match=f"name: m, no version is in {other}") as raised:
        models.apply(single("m", other))
    assert raised.value.code == Code.UNKNOWN
    assert serves(2.0)
    other.mkdir()
    models.poll()
    assert serves(2.0)
    (other / "1").mkdir()
    models.poll()
    assert serves(2.0)
    shutil.copytree(halves / "three", other / "1", dirs_exist_ok=True)
    models.poll()
    assert serves(3.0)
    models.apply(single("m", base))
    assert serves(2.0)


def test_models_that_cannot_be_loaded_take_no_requests_from_others(
    halves: Path, base: Path
) -> None:
    shutil.copytree(halves / "two", base / "good" / "1")
    models, config = Models(), ModelServerConfig()
    for name in ("good", "bad"):
        (base / name).mkdir(exist_ok=True)
        config.MergeFrom(single(name, base / name))
    models.apply(config, patient=True)
    assert not models.ready  # a server that has not begun is not all there
    models.apply(single("good", base / "good"))
    assert models.ready
    with pytest.raises(ServingError, match="name: bad, no version is in"):
        models.apply(config)
    assert models.ready
    shutil.rmtree(base / "good" / "1")
    models.poll()
    assert not models.ready


def test_the_status_tells_of_the_first_load(halves: Path, base: Path) -> None:
    config, seen = ModelServerConfig(), []
    for name in ("a", "b"):
        shutil.copytree(halves / "two", base / name / "1")
        config.MergeFrom(single(name, base / name))

    def load(directory: Path) -> Servable:
        seen.append([models.statuses(ModelSpec(name=name))[1].state for name in ("a", "b")])
        return Servable(directory)

    models = Models(load)
    models.apply(config)
    states = ModelVersionStatus
    assert seen == [[states.LOADING, states.START], [states.AVAILABLE, states.LOADING]]


@pytest.mark.parametrize(("times", "tries"), [(0, 1), (2, 3)])
def test_a_load_that_fails_is_tried_again(base: Path, times: int, tries: int) -> None:
    (base / "1").mkdir()
    tried = []

    def load(directory: Path) -> Servable:
        tried.append(directory)
        return Servable(directory)

    model = Model("m", base, load=load, retries=Retries(times, -1.0))
    for _ in range(tries + 2):
        model.poll(look=False)
        model.poll()
    assert len(tried) == tries
    (base / "1" / "file").touch()
    for _ in range(tries + 2):
        model.poll()
    assert len(tried) == 2 * tries
    waiting = Model("m", base, load=load, retries=Retries(1, 3600))
    for _ in range(3):
        waiting.poll()
    assert len(tried) == 2 * tries + 1


def test_statuses_are_newest_first(halves: Path, base: Path) -> None:
    models = Models()
    for version in ("2", "10"):
        shutil.copytree(halves / "two", base / version)
        models.apply(single("m", base))
    assert list(models.statuses(ModelSpec(name="m"))) == [10, 2]
    assert list(models.statuses(ModelSpec(name="m", version={"value": 2}))) == [2]


def with_warm_up(halves: Path, base: Path, *records: bytes) -> Model:
    write_warm_up(shutil.copytree(halves / "two", base / "1"), records)
    model = Model("m", base)
    model.poll()
    return model


GOOD = logged(predict_request({"x": np.zeros(3, np.float32)}))


def test_warm_up_is_replayed(halves: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = predict_request({"x": np.zeros(1, np.float32)}, "serving_default", "any")
    with caplog.at_level(logging.INFO, "serving"):
        model = with_warm_up(halves, base, GOOD, logged(named))
    assert answer(model) == (1, 2.0)
    assert "warmed up with 2 requests" in caplog.text


@pytest.mark.parametrize(
    ("record", "code", "error"),
    [
        (b"\xff\xff", Code.UNKNOWN, "Error parsing message"),
        (b"", Code.UNIMPLEMENTED, "Unsupported log_type for warmup: None"),
        (
            prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString(),
            Code.UNIMPLEMENTED,
            "Unsupported log_type for warmup: session_run_log",
        ),
        (
            prediction_log_pb2.PredictionLog(regress_log={}).SerializeToString(),
            Code.FAILED_PRECONDITION,
            "No regression inputs found in SignatureDef",
        ),
        (logged(predict_request({})), Code.INVALID_ARGUMENT, "Missing but required: {x}"),
        (logged(predict_request({"x": np.zeros(1)})), Code.INVALID_ARGUMENT, "float64 is provided"),
        (
            logged(predict_request({"x": np.zeros((1, 1), np.float32)})),
            Code.INVALID_ARGUMENT,
            "to have shape",
        ),
        (
            logged(predict_request({"x": np.zeros(1, np.float32)}, "no")),
            Code.FAILED_PRECONDITION,
            'Serving signature key "no" not found.',
        ),
    ],
    ids=["no protobuf", "empty", "session", "regress", "no input", "dtype", "shape", "signature"],
)
def test_a_bad_record_fails_the_load(
    halves: Path, base: Path, record: bytes, code: Code, error: str
) -> None:
    model = with_warm_up(halves, base, GOOD, record)
    assert states(model) == {1: END}
    assert model.statuses[1].code == code
    assert error in model.statuses[1].message
    Servable(base / "1", Loading(warm_up=False))


def test_a_warm_up_file_of_another_kind_fails_the_load(halves: Path, base: Path) -> None:
    model = with_warm_up(halves, base)
    assert answer(model) == (1, 2.0)
    directory = shutil.copytree(base / "1", base / "2")
    (directory / "assets.extra" / "tf_serving_warmup_requests").write_text("these are no records")
    model.poll()
    assert answer(model) == (1, 2.0)
    assert states(model) == {1: AVAILABLE, 2: END}
    assert model.statuses[2].code == Code.DATA_LOSS
    assert model.statuses[2].message == "corrupted record at 0 (Is this even a TFRecord file?)"


@pytest.mark.parametrize(("count", "state"), [(1_000, AVAILABLE), (1_001, END)])
def test_the_number_of_warm_up_records(halves: Path, base: Path, count: int, state: int) -> None:
    assert states(with_warm_up(halves, base, *[GOOD] * count)) == {1: state}


def test_a_model_without_the_serving_tag(base: Path) -> None:
    builder = tf.compat.v1.saved_model.Builder(str(base / "1"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", [])
        session.run(tf.compat.v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["train"])
    builder.save()
    model = Model("m", base)
    model.poll()
    assert states(model) == {1: END}
    assert "serve" in model.statuses[1].message
    Servable(base / "1", Loading(tags=("train",)))


def test_a_server_follows_its_base_path_until_sigint(
    halves: Path, base: Path, start: Callable[..., Server]
) -> None:
    server = start(base)
    server.wait_for("serving model")
    assert server.call("GET", "/v1/models/model")[0] == 404
    assert server.predict({"instances": [0]})[0] == 404

    def serves(offset: float) -> bool:
        return server.predict({"instances": [0]}) == (200, {"predictions": [offset]})

    shutil.copytree(halves / "two", base / "1")
    until(lambda: serves(2.0))

    def state(number: int) -> tuple[str, str, str]:
        _, body = server.call("GET", f"/v1/models/model/versions/{number}")
        status = body["model_version_status"][0]
        return status["state"], status["status"]["error_code"], status["status"]["error_message"]

    half_copied(halves / "three", base / "2")
    server.wait_for("version 2 failed to load")
    until(lambda: state(2)[0] == "END" and "variables.data" in state(2)[2])
    assert state(2)[1] != "OK"
    assert serves(2.0)
    finish_copy(halves / "three", base / "2")
    until(lambda: serves(3.0))
    until(lambda: state(1) == ("END", "OK", ""))
    assert state(2) == ("AVAILABLE", "OK", "")
    assert server.predict({"instances": [0]}, "/v1/models/model/versions/1")[0] == 404
    assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.log.read_text()


def labelled(base: Path, **labels: int) -> ModelServerConfig:
    config = single("m", base)
    for label, version in labels.items():
        config.model_config_list.config[0].version_labels[label] = version
    return config


@pytest.mark.parametrize("early", [False, True])
def test_labels_need_loaded_versions(halves: Path, base: Path, early: bool) -> None:
    shutil.copytree(halves / "two", base / "1")
    models = Models(early_labels=early)
    if early:
        models.apply(labelled(base, stable=1))
    else:
        with pytest.raises(ServingError, match="assign label to version 1 of model m") as raised:
            models.apply(labelled(base, stable=1))
        assert raised.value.code == Code.FAILED_PRECONDITION
        assert not models.known("m")
        models.apply(single("m", base))
        models.apply(labelled(base, stable=1))
    shutil.copytree(halves / "three", base / "2")
    with pytest.raises(ServingError, match="assign label to version 2 of model m"):
        models.apply(labelled(base, stable=2))
    spec = ModelSpec(name="m", version_label="stable")
    assert models.get(spec)[0] == 1
    models.poll()
    models.apply(labelled(base, stable=2))
    assert models.get(spec)[0] == 2
