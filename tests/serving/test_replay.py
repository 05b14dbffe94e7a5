"""What a saved model answers, held against what was recorded when it was exported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.errors import ServingError
from serving.replay import DifferentAnswerError, replay
from tests.serving.saved_models import logged, predict_request, write_warm_up

PAIRS = predict_request(
    {"pair": np.array([[1, 2], [3, 4], [5, 6]], np.float32), "name": [b"a", b"b", b"c"]}, "two"
)
TOTAL = np.array([3, 7, 11], np.float32)
GREETING = [b"hello a", b"hello b", b"hello c"]


@pytest.fixture
def model(everything: Path, tmp_path: Path) -> Path:
    return shutil.copytree(everything / "7", tmp_path / "model")


def recorded(model: Path, **answer: Any) -> Path:
    """The model, with one recorded answer."""
    write_warm_up(model, [logged(PAIRS, answer)])
    return model


def test_equal_answers_are_counted_by_signature(model: Path) -> None:
    halves = predict_request({"x": np.array([2, 4], np.float32)})
    half = {"y": np.array([3, 4], np.float32)}
    binary = predict_request({"name": b"\xff\0"}, "binary")
    copies = {"copy": b"\xff\0", "copy_bytes": b"\xff\0"}
    records = [
        logged(halves, half),
        logged(halves, half),
        logged(PAIRS, {"total": TOTAL, "greeting": GREETING}),
        logged(binary, copies),
        logged(halves),
    ]
    write_warm_up(model, records)
    assert replay(model) == ({"serving_default": 2, "two": 1, "binary": 1}, 1)


def test_a_model_without_warm_up_requests(model: Path) -> None:
    assert replay(model) == ({}, 0)


def test_the_last_digits_of_numbers_may_differ(model: Path) -> None:
    replay(recorded(model, total=TOTAL * np.float32(1.0009), greeting=GREETING))
    with pytest.raises(DifferentAnswerError, match="3 of 3 values of output 'total' differ"):
        replay(recorded(model, total=TOTAL * np.float32(1.002), greeting=GREETING))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"total": TOTAL + np.array([0, 1, 2], np.float32), "greeting": GREETING},
            "2 of 3 values of output 'total' differ, the most at row 2: 11 instead of 13, off by 2",
        ),
        (
            {"total": np.where(TOTAL == 7, np.float32(np.nan), TOTAL), "greeting": GREETING},
            "1 of 3 values of output 'total' differ, the most at row 1: 7 instead of nan",
        ),
        (
            {"total": TOTAL, "greeting": [b"hello a", b"hullo b", b"hullo c"]},
            "2 of 3 values of output 'greeting' differ, the first at row 1: b'hello b' instead of "
            "b'hullo b'",
        ),
        (
            {"total": TOTAL[:2], "greeting": GREETING},
            "output 'total' is float32[3] instead of float32[2]",
        ),
        (
            {"total": TOTAL.astype(np.float64), "greeting": GREETING},
            "output 'total' is float32[3] instead of float64[3]",
        ),
        ({"total": TOTAL}, "its outputs are ['greeting', 'total'] instead of ['total']"),
    ],
)
def test_what_differs_is_named(model: Path, answer: dict[str, Any], message: str) -> None:
    with pytest.raises(DifferentAnswerError) as caught:
        replay(recorded(model, **answer))
    start = "signature 'two' does not answer warm-up request 1 as recorded: "
    assert str(caught.value) == start + message


@pytest.mark.parametrize("dtype", [tf.int64, tf.bool, tf.bfloat16])
def test_matrices_of_other_types(tmp_path: Path, dtype: tf.DType) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None], dtype, "x")])
    def same(x: Any) -> Any:
        return {"y": tf.identity(x)}

    tf.saved_model.save(module, str(tmp_path), {"serving_default": same})
    x = tf.cast([[1, 0], [0, 1]], dtype).numpy()
    write_warm_up(tmp_path, [logged(predict_request({"x": x}), {"y": x})])
    assert replay(tmp_path) == ({"serving_default": 1}, 0)
    write_warm_up(tmp_path, [logged(predict_request({"x": x}), {"y": x.copy()[::-1]})])
    with pytest.raises(DifferentAnswerError, match=r"4 of 4 values .* at row 0, place \[0\]: "):
        replay(tmp_path)


def test_a_warm_up_request_that_has_no_answer(model: Path) -> None:
    request = predict_request({"x": np.array([20], np.float32)}, "below_ten")
    write_warm_up(model, [logged(request, {"y": np.array([20], np.float32)})])
    with pytest.raises(ServingError, match="x is not below ten"):
        replay(model)
