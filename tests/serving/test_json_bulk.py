"""Large requests and replies in JSON: converted in bulk, to the end or to the deadline."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving import json_answer, json_tensor
from serving.deadline import Deadline
from serving.errors import ServingError
from serving.json_examples import classify_response, parse_examples
from tests.serving.test_json_tensor import read, read_one


@pytest.mark.parametrize(
    ("dtype", "plain", "odd"),
    [
        (tf.float32, 1, odd)
        for odd in (None, True, "a", 2**24, -(2**24), 1e39, [1], {"b64": "aGk="}, {}, 2**63, 1e7)
    ]
    + [(tf.float32, 0.5, odd) for odd in (16777216, 3e9, -0.0, 2**70)]
    + [(tf.float64, 0.5, odd) for odd in (2**53, -(2**53), 2**53 - 1, 1e300, 2**63)]
    + [(tf.int32, 1, odd) for odd in (1.0, True, None, 2**31, 2**31 - 1, -(2**31), 2**70)]
    + [(tf.uint64, 1, odd) for odd in (-1, 2**64 - 1, 2**64, 1e3)]
    + [(tf.bool, True, odd) for odd in (1, None, False, "a")]
    + [(tf.string, "é", odd) for odd in (1, None, "", {"b64": "aGk="}, {"b64": 1}, "\ud800", [])],
)
def test_many_values_are_read_as_each_alone(dtype: tf.DType, plain: Any, odd: Any) -> None:
    """Those that are converted together say of one that is not plain what it says alone."""

    def told(values: Any, key: str) -> Any:
        try:
            return read_one({key: values}, dtype).tolist()
        except ServingError as error:
            return error.message

    many = [plain] * 50
    both, row = told([plain, odd], "inputs"), told([plain, odd], "instances")
    for key, expected in (("inputs", both), ("instances", row)):
        found = told([*many, odd, *many], key)
        if isinstance(expected, str):
            assert found == re.sub("(element:|item) 1 ", r"\1 50 ", expected)
        else:
            assert found == expected[:1] * 50 + expected[1:] + expected[:1] * 50


class Over(Deadline):
    """Ends when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left_looks = looks

    def check(self) -> None:
        self.left_looks -= 1
        if self.left_looks < 0:
            raise TimeoutError


ONES = [1] * 100_000


@pytest.mark.parametrize(
    "work",
    [
        lambda end: read({"instances": ONES}, end, x=tf.float32),
        lambda end: read({"inputs": ONES}, end, x=tf.float32),
        lambda end: read({"inputs": ["a"] * 100_000}, end, x=tf.string),
        lambda end: read({"inputs": [[1]] * 100_000}, end, x=tf.float32),
        lambda end: read({"instances": [[1]] * 50 + [[1, 2]]}, end, x=tf.float32),
        lambda end: read({"instances": [{"x": 1}] * 100_000}, end, x=tf.float32),
        lambda end: read({"inputs": [*([1],) * 99_999, 2]}, end, x=tf.float32),
        lambda end: json_tensor.parse_predict(b'{"inputs":[NaN' + b",1" * 100_000 + b"]}", end),
        lambda end: parse_examples(json.dumps({"examples": [{"x": ONES}]}).encode(), end),
        lambda end: parse_examples(b'{"examples":[' + b"{},{}," * 99 + b'{"x":1}]}', end),
        lambda end: json_answer.response({"y": np.ones(100_000)}, "row", end),
        lambda end: classify_response([[(b"a", 0.5)]] * 100_000, end),
    ],
)
def test_work_ends_at_the_deadline(work: Callable[[Deadline], Any]) -> None:
    with contextlib.suppress(ServingError):
        work(Over(1_000_000))
    for looks in (0, 2):
        with pytest.raises(TimeoutError):
            work(Over(looks))


DIGITS = [
    (np.float32, 0.1, "0.1"),
    (np.float32, 9_000_000, "9e+06"),
    (np.float32, 0.00003, "3e-05"),
    (np.float32, 100_000, "100000.0"),
    (np.float32, 16_777_216, "16777216.0"),
    (np.float32, 123_456_792, "123456792.0"),
    (np.float32, 1 / 3, "0.333333343"),
    (np.float32, -0.0, "-0.0"),
    (np.float32, 1e-45, "1.4013e-45"),
    (np.float32, 3.4028235e38, "3.40282347e+38"),
    (np.float16, 0.1, "0.0999755859"),
    (np.float64, 0.1, "0.1"),
    (np.float64, 1 / 3, "0.33333333333333331"),
    (np.float64, 5e-324, "4.94066e-324"),
    (np.float64, 2.0**53, "9007199254740992.0"),
    (np.float64, 1e300, "1e+300"),
    (np.float64, np.nan, "NaN"),
    (np.float32, np.inf, "Infinity"),
    (np.float64, -np.inf, "-Infinity"),
]


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize(("dtype", "value", "expected"), DIGITS)
def test_floats_have_the_digits_of_tf_serving(
    dtype: Any, value: float, expected: str, count: int
) -> None:
    body = json_answer.response({"y": np.full(count, value, dtype)}, "columnar").decode()
    assert body == '{"outputs":[' + ",".join([expected] * count) + "]}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_floats_are_written_as_each_alone(dtype: Any) -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**63, 20_000).view(np.float64)  # of all sizes
    short = generator.integers(-(10**7), 10**7, 20_000) / 10.0 ** generator.integers(0, 12, 20_000)
    with np.errstate(all="ignore"):
        values = np.concatenate([bits, short, bits[:1_000] * -1e-300]).astype(dtype)
    alone = [text for value in values for text in json_answer.decimals(value[np.newaxis])]
    assert json_answer.decimals(values) == alone
