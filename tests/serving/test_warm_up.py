"""Warm-up requests, which are replayed when a version is loaded."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.errors import Code
from serving.model import Model
from serving.servable import Loading, Servable
from tests.serving.loaded import answer, states
from tests.serving.saved_models import logged, predict_request, write_warm_up

AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


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
