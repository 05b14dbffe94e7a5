"""New versions in a model's folder, broken ones, those that go, and warm-up requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.serving.conformance.conftest import Added
from tests.serving.conformance.models import save_half_plus_two
from tests.serving.conformance.test_inference import example, given
from tests.serving.process import until
from tests.serving.saved_models import logged, predict_request, write_warm_up


def test_a_new_version_takes_over_without_a_gap(added: Added) -> None:
    answers, stop = [added.offset()], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(added.offset())  # fails unless a version answers

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        added.add(2)
        until(lambda: answers[-1] == 2)
        until(lambda: added.states() == {2: "AVAILABLE", 1: "END"})
    finally:
        stop.set()
        asking.join()
    assert answers == sorted(answers)
    assert set(answers) == {1.0, 2.0}
    path, error = f"/v1/models/{added.name}/versions/1", f"Specific({added.name}, 1)"
    reply = added.folder.server.predict({"instances": [0]}, path)
    assert reply == (404, {"error": f"Servable not found for request: {error}"})


def test_a_version_that_goes_brings_the_one_before_back(added: Added) -> None:
    added.add(2)
    until(lambda: added.offset() == 2)
    (added.path / "2").rename(added.path / "gone")
    until(lambda: added.states() == {2: "END", 1: "AVAILABLE"})
    assert added.offset() == 1


def test_the_last_version_goes(added: Added) -> None:
    (added.path / "1").rename(added.path / "gone")
    until(lambda: added.states() == {1: "END"})
    path, error = f"/v1/models/{added.name}", f"Latest({added.name})"
    reply = added.folder.server.predict({"instances": [0]}, path)
    assert reply == (404, {"error": f"Servable not found for request: {error}"})
    (added.path / "gone").rename(added.path / "1")
    until(lambda: added.states() == {1: "AVAILABLE"})
    assert added.offset() == 1


def test_only_numbers_are_versions(added: Added) -> None:
    for name in ("next", "3.tmp", "-3", "1e3"):
        added.copy(3).rename(added.path / name)
    added.add(2)
    until(lambda: added.states() == {2: "AVAILABLE", 1: "END"})
    assert added.offset() == 2


def broken_protobuf(directory: Any) -> None:
    (directory / "saved_model.pb").write_bytes(b"no protobuf")


def without_variables(directory: Any) -> None:
    for path in (directory / "variables").iterdir():
        path.unlink()


def other_warm_up(directory: Any) -> None:
    write_warm_up(directory, [logged(predict_request({"no": 1.0}))])


@pytest.mark.parametrize("damage", [broken_protobuf, without_variables, other_warm_up])
def test_a_broken_version_leaves_the_old_one_serving(
    added: Added, damage: Callable[[Any], None]
) -> None:
    copy = added.copy(2)
    damage(copy)
    copy.rename(added.path / "2")
    added.failed(2)
    assert added.states()[1] == "AVAILABLE"
    assert added.offset() == 1
    added.add(3)
    until(lambda: added.offset() == 3)


@pytest.mark.embedded  # which tries again when files change, and not after a minute
def test_the_status_says_what_is_wrong(added: Added) -> None:
    copy = added.copy(2)
    other_warm_up(copy)
    copy.rename(added.path / "2")
    added.failed(2)
    _, body = added.folder.server.call("GET", f"/v1/models/{added.name}/versions/2")
    (status,) = body["model_version_status"]
    assert status["status"]["error_code"] == "INVALID_ARGUMENT"
    assert "Missing but required: {x}" in status["status"]["error_message"]


def log_of(kind: str, signature: str, **more: Any) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, kind).request
    request.input.CopyFrom(given(example(x=2)))
    if kind == "multi_inference_log":
        request.tasks.add(model_spec={"name": "any", "signature_name": signature}, **more)
    else:
        request.model_spec.name, request.model_spec.signature_name = "any", signature
    return log


CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
LOGS = [
    log_of("classify_log", "classify_x_to_y"),
    log_of("regress_log", "regress_x_to_y"),
    log_of("multi_inference_log", "regress_x_to_y", method_name=REGRESS),
]


def warm(added: Added, records: list[bytes]) -> None:
    """Adds version 2, with signatures for all methods and such warm-up records."""
    hidden = added.path / "new"
    save_half_plus_two(hidden)
    write_warm_up(hidden, records)
    hidden.rename(added.path / "2")


def test_warm_up_by_all_methods(added: Added) -> None:
    predict = logged(predict_request({"x": tf.constant([[1.0]]).numpy()}, model="any"))
    warm(added, [predict, *(log.SerializeToString() for log in LOGS)])
    until(lambda: added.states() == {2: "AVAILABLE", 1: "END"})


@pytest.mark.parametrize(
    "record",
    [
        log_of("classify_log", "regress_x_to_y"),
        log_of("regress_log", "no"),
        log_of("multi_inference_log", "regress_x_to_y", method_name=CLASSIFY),
        prediction_log_pb2.PredictionLog(session_run_log={}),
        prediction_log_pb2.PredictionLog(),
    ],
    ids=["classify", "regress", "multi", "session", "empty"],
)
def test_warm_up_that_cannot_be_answered(added: Added, record: Any) -> None:
    warm(added, [LOGS[0].SerializeToString(), record.SerializeToString()])
    added.failed(2)
    assert added.offset() == 1


@pytest.mark.parametrize(("count", "loads"), [(1_000, True), (1_001, False)])
def test_the_number_of_warm_up_records(added: Added, count: int, loads: bool) -> None:
    warm(added, [LOGS[1].SerializeToString()] * count)
    if loads:
        until(lambda: added.states() == {2: "AVAILABLE", 1: "END"})
    else:
        added.failed(2)
        assert added.offset() == 1
