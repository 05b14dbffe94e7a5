"""The JSON form of tensors, case by case as in TF Serving's own tests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from serving import json_answer, json_tensor
from serving.deadline import NEVER, Deadline
from serving.errors import Code, ServingError


def read(body: Any, deadline: Deadline = NEVER, **dtypes: tf.DType) -> tuple[dict[str, Any], str]:
    """Tensors of a body, for a signature with these inputs."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    infos = {name: TensorInfo(dtype=dtype.as_datatype_enum) for name, dtype in dtypes.items()}
    return json_tensor.tensors(json_tensor.parse_predict(text), infos, deadline)


def read_one(body: Any, dtype: tf.DType) -> np.ndarray[Any, Any]:
    return read(body, x=dtype)[0]["x"]


def error_of(body: Any, code: Code = Code.INVALID_ARGUMENT, **dtypes: tf.DType) -> str:
    with pytest.raises(ServingError) as raised:
        read(body, **(dtypes or {"x": tf.float32}))
    assert raised.value.code == code
    return raised.value.message


def written(form: json_tensor.Format, **outputs: Any) -> Any:
    return json.loads(json_answer.response(outputs, form))


def text(*values: bytes) -> np.ndarray[Any, Any]:
    return np.array(values, object)


@pytest.mark.parametrize(
    ("body", "dtype", "expected"),
    [
        ({"instances": [[1, 2], [3, 4], [5, 6]]}, tf.int32, [[1, 2], [3, 4], [5, 6]]),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, tf.int64, [[1, 2], [3, 4]]),
        ({"instances": [1, 2.0, 5.003]}, tf.float32, [1.0, 2.0, 5.003]),
        ({"instances": [1, 2.0, 0.662]}, tf.float64, [1.0, 2.0, 0.662]),
        ({"instances": [True, False]}, tf.bool, [True, False]),
        ({"instances": [255, 0]}, tf.uint8, [255, 0]),
        ({"instances": [2**64 - 1]}, tf.uint64, [2**64 - 1]),
        ({"instances": [[], []]}, tf.float32, [[], []]),
        ({"inputs": [[[1, 2], [3, 4]]]}, tf.int32, [[[1, 2], [3, 4]]]),
        ({"inputs": {"x": [[1], [2]]}}, tf.int32, [[1], [2]]),
        ({"inputs": {"x": [1], "other": "ignored"}}, tf.int32, [1]),
        ({"inputs": 5}, tf.int32, 5),
        ({"inputs": []}, tf.int32, []),
        ({"inputs": [2**24 - 1]}, tf.float32, [2**24 - 1]),
    ],
)
def test_numbers(body: Any, dtype: tf.DType, expected: Any) -> None:
    array = read_one(body, dtype)
    assert array.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(array, np.array(expected, dtype.as_numpy_dtype))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": ["añb", ""]}, text("añb".encode(), b"")),
        ({"instances": [{"b64": "aGVsbG8="}, {"b64": "/wA="}]}, text(b"hello", b"\xff\0")),
        ({"instances": [{"x": {"b64": "aGVsbG8"}}]}, text(b"hello")),
        ({"instances": [[{"b64": "aGVs\nbG8="}], ["b"]]}, np.array([[b"hello"], [b"b"]], object)),
        ({"inputs": {"b64": "aGVsbG8="}}, np.array(b"hello", object)),
        ({"inputs": {"x": ["a", {"b64": ""}]}}, text(b"a", b"")),
    ],
)
def test_strings(body: Any, expected: Any) -> None:
    array = read_one(body, tf.string)
    assert array.shape == expected.shape
    assert array.tolist() == expected.tolist()


def test_formats_and_signature() -> None:
    assert read({"instances": [1]}, x=tf.int32)[1] == "row"
    assert read({"inputs": [1]}, x=tf.int32)[1] == "columnar"
    assert json_tensor.parse_predict(b'{"signature_name": "s"}').signature == "s"
    assert json_tensor.parse_predict(b"{}").signature == ""


def test_several_inputs() -> None:
    dtypes = {"i": tf.int32, "s": tf.string, "f": tf.float32}
    rows = [{"i": [1, 2], "s": "a", "f": 1}, {"f": 0.5, "s": {"b64": "Yg=="}, "i": [3, 4]}]
    columns = {"i": [[1, 2], [3, 4]], "s": ["a", "b"], "f": [1, 0.5]}
    for body in ({"instances": rows}, {"inputs": columns}):
        tensors, _ = read(body, **dtypes)
        assert tensors.keys() == dtypes.keys()
        assert tensors["i"].tolist() == [[1, 2], [3, 4]]
        assert tensors["s"].tolist() == [b"a", b"b"]
        assert tensors["f"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_numbers_that_json_lacks_are_read(dtype: tf.DType) -> None:
    array = read_one(b'{"instances": [NaN, Infinity, -Infinity, 1]}', dtype)
    np.testing.assert_array_equal(array, [np.nan, np.inf, -np.inf, 1])
    array = read_one(b'\xef\xbb\xbf{"instances": [Inf, -Inf, -NaN, Infinity, 1]}', dtype)
    np.testing.assert_array_equal(array, [np.inf, -np.inf, np.nan, np.inf, 1])


def test_texts_keep_what_looks_like_a_number() -> None:
    texts = ["Inf -NaN", '"Inf', "\\", 'Inf\\"-NaN', ""]
    body = f'{{"inputs": {{"s": {json.dumps(texts)}, "x": [-NaN, Inf]}}}}'.encode()
    tensors, _ = read(body, s=tf.string, x=tf.float32)
    assert [value.decode() for value in tensors["s"]] == texts


@pytest.mark.parametrize("name", ["Infi", "Infinit", "inf", "nan", "--NaN", "+Inf", "NaN1", "1Inf"])
def test_what_is_no_number_in_tf_serving_either(name: str) -> None:
    assert "JSON Parse error" in error_of(f'{{"inputs": [{name}, NaN, Inf]}}'.encode())


@pytest.mark.parametrize(
    ("body", "dtype", "message"),
    [
        ({"inputs": [1.0]}, tf.int32, "JSON Value: 1.0 Type: Number is not of expected type: int"),
        ({"inputs": [2**31]}, tf.int32, "not of expected type"),
        ({"inputs": [-129]}, tf.int8, "not of expected type"),
        ({"inputs": [-1]}, tf.uint8, "not of expected type"),
        ({"inputs": [2**63]}, tf.int64, "not of expected type"),
        ({"inputs": [2**64]}, tf.uint64, "not of expected type"),
        (b'{"inputs": [NaN]}', tf.int32, "not of expected type"),
        ({"inputs": [True]}, tf.int32, "Type: True is not of expected type"),
        ({"inputs": [False]}, tf.float32, "Type: False is not of expected type: float"),
        ({"inputs": [1]}, tf.bool, "not of expected type: bool"),
        ({"inputs": ["1"]}, tf.float32, "Type: String is not of expected type: float"),
        ({"inputs": [1]}, tf.string, "not of expected type: string"),
        ({"inputs": [{"b64": "aGk="}]}, tf.int32, "Type: Object is not of expected type"),
        ({"inputs": [None]}, tf.float32, "Type: Null is not of expected type: float"),
        ({"inputs": None}, tf.string, "Type: Null is not of expected type: string"),
        ({"inputs": [16777217]}, tf.float32, "to float without loss of precision"),
        ({"inputs": [9007199254740993]}, tf.float64, "to double without loss of precision"),
        ({"inputs": [1e39]}, tf.float32, "1e+39 to float without loss of precision"),
        (b'{"inputs": [1e999]}', tf.float64, "JSON Parse error"),
        ({"inputs": [{"b64": "aGk=", "x": 1}]}, tf.string, "not formatted correctly for base64"),
        ({"inputs": [{"b64": 5}]}, tf.string, "not formatted correctly for base64"),
        ({"inputs": {"b64": "*"}}, tf.string, "Unable to base64 decode"),
        ({"inputs": {"b64": "é"}}, tf.string, "Unable to base64 decode"),
        (b'{"inputs": ["\\ud800"]}', tf.string, "JSON Parse error"),
    ],
)
def test_values_of_the_wrong_type(body: Any, dtype: tf.DType, message: str) -> None:
    assert message in error_of(body, x=dtype)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, "Expecting tensor size: 2 but got: 3"),
        ({"instances": [[1, 2], [3, 4], [[5, 6]]]}, "Expecting shape [2] but got: [1,2]"),
        ({"instances": [1, [1]]}, "Expecting shape [] but got: [1]"),
        ({"instances": [[[1], [2, 3]]]}, "Encountered list at unexpected size: 2 at level: 1"),
        ({"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1"),
        (
            {"inputs": [[1], 2]},
            "2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ({"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"instances": [[1], ["a"]]}, "Failed to process element: 1 of 'instances' list"),
        ({"instances": [{"x": 1}, {"x": "a"}]}, "Failed to process element: 1 key: x of"),
    ],
)
def test_uneven_lists(body: Any, message: str) -> None:
    assert message in error_of(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error"),
        (b'{"inputs": [1]} x', "JSON Parse error"),
        (b'{"inputs": ["\xff"]}', "JSON Parse error"),
        (b'{"inputs": [01]}', "JSON Parse error"),
        ([1, 2], "Is not object"),
        ({"signature_name": 5, "inputs": [1]}, "'signature_name' key must be a string value"),
        ({"signature_name": None, "inputs": [1]}, "'signature_name' key must be a string value"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, "Not formatted correctly expecting only one of"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": {"x": 1}}, "Excepting 'instances' to be an list/array"),
        ({"instances": "abc"}, "Excepting 'instances' to be an list/array"),
        ({"instances": [{"x": 1}, 2]}, "Expecting object but got list at item 1"),
        ({"instances": [1, {"x": 2}]}, "Expecting value/list but got object at item 1"),
        ({"instances": [{"z": 1}]}, "JSON object: does not have named input: z"),
        ({"instances": [{}]}, "keys must be equal to: x"),
        ({"inputs": {"z": [1]}}, "Missing named input: x in 'inputs' object"),
    ],
)
def test_malformed_bodies(body: Any, message: str) -> None:
    assert message in error_of(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [1]}, "instances is a plain list"),
        ({"instances": [{"b64": "aGk="}]}, "instances is a plain list"),
        ({"inputs": [1]}, "inputs is a plain value/list"),
        ({"inputs": {"b64": "aGk="}}, "inputs is a plain value/list"),
        ({"inputs": {"x": [1]}}, "Missing named input: s"),
        ({"instances": [{"x": 1}]}, "keys must be equal to: s,x"),
        ({"instances": [{"x": 1, "s": "a"}, {"x": 1}]}, "Failed to process element: 1"),
        ({"instances": [{"x": 1, "s": "a", "z": 1}]}, "does not have named input: z"),
    ],
)
def test_malformed_bodies_of_several_inputs(body: Any, message: str) -> None:
    assert message in error_of(body, x=tf.float32, s=tf.string)


def test_unsupported_dtype() -> None:
    message = error_of({"inputs": [1]}, Code.UNIMPLEMENTED, x=tf.complex64)
    assert message == "Conversion of JSON Value: 1 to type: complex64"


def test_signature_without_inputs() -> None:
    body = {"signature_name": "s", "inputs": [1]}
    with pytest.raises(ServingError, match="Failed to get input map for signature: s"):
        json_tensor.tensors(json_tensor.parse_predict(json.dumps(body).encode()), {})


@pytest.mark.parametrize("depth", [62, 63])
def test_deep_tensors(depth: int) -> None:
    nested = json.loads("[" * depth + "1.5" + "]" * depth)
    assert read_one({"instances": [nested, nested]}, tf.float32).shape == (2,) + (1,) * depth


@pytest.mark.parametrize("depth", [64, 300, 1_000, 100_000])
@pytest.mark.parametrize(
    "form", ['{"inputs": %s}', '{"instances": [%s]}', "%s", '{"inputs": %s, "instances": 1}']
)
def test_too_deep(depth: int, form: str) -> None:
    assert error_of((form % ("[" * depth + "1" + "]" * depth)).encode())


def test_errors_do_not_repeat_a_large_body() -> None:
    body = {"inputs": ["x" * 10_000] * 100, "instances": []}
    assert len(error_of(body)) < 1_000


@pytest.mark.parametrize(
    ("array", "rows", "columns"),
    [
        (np.array([[1, 2], [3, 4]], np.int32), [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1], [2**64 - 1]),
        (np.array([True, False]), [True, False], [True, False]),
        (np.array([0.5], np.float16), [0.5], [0.5]),
        (np.zeros((0, 2), np.float32), [], []),
        (text("añb".encode(), b""), ["añb", ""], ["añb", ""]),
    ],
)
def test_one_output(array: Any, rows: Any, columns: Any) -> None:
    assert written("row", y=array) == {"predictions": rows}
    assert written("columnar", y=array) == {"outputs": columns}


def test_several_outputs() -> None:
    outputs = {"i": np.array([[1], [2]]), "s": text(b"a", b"b"), "s_bytes": text(b"hi", b"\xff")}
    assert written("row", **outputs) == {
        "predictions": [
            {"i": [1], "s": "a", "s_bytes": {"b64": "aGk="}},
            {"i": [2], "s": "b", "s_bytes": {"b64": "/w=="}},
        ]
    }
    assert written("columnar", **outputs) == {
        "outputs": {
            "i": [[1], [2]],
            "s": ["a", "b"],
            "s_bytes": [{"b64": "aGk="}, {"b64": "/w=="}],
        }
    }


def test_only_strings_are_bytes() -> None:
    assert written("row", n_bytes=np.array([1])) == {"predictions": [1]}


def test_scalar_outputs() -> None:
    assert written("columnar", y=np.array(3, np.int32)) == {"outputs": 3}
    assert written("columnar", y=np.array(b"a", object)) == {"outputs": "a"}
    with pytest.raises(ServingError, match="Tensor name: y has no shape information"):
        written("row", y=np.array(3, np.int32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_that_json_lacks_are_written(dtype: Any) -> None:
    body = json_answer.response({"y": np.array([np.nan, np.inf, -np.inf, 3], dtype)}, "row")
    assert body == b'{"predictions":[NaN,Infinity,-Infinity,3.0]}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        (
            {"y": np.array([1j], np.complex64)},
            "Failed to write JSON value for tensor type: complex64",
        ),
        ({"y": text(b"\xff")}, "Tensor name: y is not UTF-8"),
        (
            {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(2)},
            "Tensor name: b has inconsistent batch size: 3 expecting batch size: 2",
        ),
    ],
)
def test_outputs_that_cannot_be_written(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ServingError, match=message) as raised:
        json_answer.response(outputs, "row")
    assert raised.value.code == Code.INVALID_ARGUMENT


NUMBERS = [tf.float32, tf.float64, tf.bool, tf.int8, tf.uint8, tf.int16, tf.int32, tf.int64]
NUMBERS += [tf.uint32, tf.uint64]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)

ANY_SPEED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@ANY_SPEED
@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype.as_numpy_dtype, SHAPES)))
@example(np.array([np.finfo(np.float32).max, np.finfo(np.float32).tiny, -0.0], np.float32))
@example(np.array([np.finfo(np.float64).max]))
@example(np.array([2**63 - 1, -(2**63)]))
def test_every_number_survives_a_round_trip(array: Any) -> None:
    array = np.asarray(array)
    body = json_answer.response({"y": array}, "columnar").replace(b"outputs", b"inputs", 1)
    again = read_one(body, tf.dtypes.as_dtype(array.dtype))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array, strict=True)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(again), np.signbit(array) & ~np.isnan(array))


@ANY_SPEED
@given(
    arrays.arrays(object, SHAPES, elements=st.text(max_size=5)), st.sampled_from(["y", "y_bytes"])
)
def test_every_string_survives_a_round_trip(array: Any, name: str) -> None:
    values = np.vectorize(str.encode, [object])(array)
    body = json_answer.response({name: values}, "columnar").replace(b"outputs", b"inputs", 1)
    again = read_one(body, tf.string)
    assert again.shape == values.shape
    assert again.tolist() == values.tolist()


@ANY_SPEED
@given(st.lists(st.binary(), min_size=1))
def test_all_bytes_survive_a_round_trip(values: list[bytes]) -> None:
    body = json_answer.response({"y_bytes": text(*values)}, "columnar")
    assert read_one(body.replace(b"outputs", b"inputs", 1), tf.string).tolist() == values


@ANY_SPEED
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["x", "b64", "z"]) | st.text(), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(["instances", "inputs", "signature_name"]),
    st.sampled_from([tf.float32, tf.int32, tf.string, tf.bool]),
)
def test_any_json_is_read_or_refused(value: Any, key: str, dtype: tf.DType) -> None:
    for body in ({key: value}, {key: [value, value]}, value):
        for dtypes in ({"x": dtype}, {"x": dtype, "z": tf.string}):
            try:
                tensors, _ = read(body, **dtypes)
            except ServingError as error:
                assert error.code == Code.INVALID_ARGUMENT
            else:
                assert tensors.keys() == dtypes.keys()
