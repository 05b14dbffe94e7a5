"""The page for Prometheus: names, labels and counts."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis import regression_pb2

from tests.serving.conformance.test_inference import example, given, request
from tests.serving.process import Address

PAGE = "/monitoring/prometheus/metrics"
PREFIX = ":tensorflow:serving:"
LINE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
MODEL = "half_plus_two"


def values(server: Address) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Value of each name with its labels."""
    status, text = server.page(PAGE)
    assert status == 200
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    matches = [LINE.fullmatch(line) for line in lines]
    return {
        (found["name"], frozenset(LABEL.findall(found["labels"]))): float(found["value"])
        for found in matches
        if found
    }


class Counts:
    """What is counted from here on."""

    def __init__(self, server: Address) -> None:
        self.server, self.before = server, values(server)

    def more(self, name: str, **labels: str) -> float:
        key = (PREFIX + name, frozenset(labels.items()))
        return values(self.server).get(key, 0) - self.before.get(key, 0)


def predict(server: Address, count: int) -> None:
    for _ in range(count):
        assert server.predict({"instances": [[1]]}, f"/v1/models/{MODEL}")[0] == 200


def test_requests_by_status(server: Address) -> None:
    counts = Counts(server)
    predict(server, 3)
    assert server.predict({"instances": []}, f"/v1/models/{MODEL}")[0] == 400
    assert server.predict({"instances": [1]}, f"/v1/models/{MODEL}/versions/9")[0] == 404
    assert counts.more("request_count", model_name=MODEL, status="OK") == 3
    assert counts.more("request_count", model_name=MODEL, status="INVALID_ARGUMENT") == 1
    assert counts.more("request_count", model_name=MODEL, status="NOT_FOUND") == 1


@pytest.mark.parametrize(("entrypoint", "api"), [("REST", "regress"), ("GRPC", "Regress")])
def test_times_are_of_both_apis(server: Address, entrypoint: str, api: str) -> None:
    counts = Counts(server)
    if entrypoint == "REST":
        body = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}, {"x": 3.0}]}
        assert server.call("POST", f"/v1/models/{MODEL}:regress", body)[0] == 200
    else:
        asked = request(
            regression_pb2.RegressionRequest,
            "regress_x_to_y",
            given(example(x=2), example(x=3)),
        )
        server.predictions.Regress(asked)
    labels = {"model_name": MODEL, "API": api, "entrypoint": entrypoint}
    assert counts.more("request_latency_count", **labels) == 1
    assert counts.more("request_latency_sum", **labels) > 0
    assert counts.more("request_latency_bucket", **labels, le="+Inf") == 1
    assert counts.more("request_example_counts_count", model=MODEL) == 1
    assert counts.more("request_example_counts_sum", model=MODEL) == 2
    assert counts.more("request_example_count_total", model=MODEL) == 2


def test_the_time_of_runs(server: Address) -> None:
    counts = Counts(server)
    predict(server, 2)
    labels = {"model_name": MODEL, "API": "Predict", "runtime": "TF1"}
    assert counts.more("runtime_latency_count", **labels) == 2


@pytest.mark.parametrize(
    ("name", "kind"), [("request_count", "counter"), ("request_latency", "histogram")]
)
def test_types(server: Address, name: str, kind: str) -> None:
    predict(server, 1)
    assert f"# TYPE {PREFIX}{name} {kind}" in server.page(PAGE)[1].splitlines()


def test_buckets_grow_from_ten_microseconds(server: Address) -> None:
    predict(server, 1)
    bounds = [
        float(dict(labels)["le"])
        for name, labels in values(server)
        if name == PREFIX + "request_latency_bucket"
        and {("model_name", MODEL), ("API", "predict")} <= labels
    ]
    assert sorted(bounds)[:3] == pytest.approx([10, 18, 32.4])
    assert len(bounds) == 33


@pytest.mark.embedded  # TF Serving counts them, and so keeps whatever names it is asked for
def test_names_of_no_model_are_not_kept(server: Address) -> None:
    assert server.predict({"instances": [1]}, "/v1/models/no-such-model")[0] == 404
    status: Any = server.page(PAGE)
    assert "no-such-model" not in status[1]
    with pytest.raises(grpc.RpcError):
        asked = request(regression_pb2.RegressionRequest, "", given(example(x=2)), name="none")
        server.predictions.Regress(asked)
    assert '"none"' not in server.page(PAGE)[1]
