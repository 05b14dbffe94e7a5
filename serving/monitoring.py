"""Metrics under TF Serving's names, as text for Prometheus.

The names are why this is no client library's: those append `_total` to counters.
"""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections.abc import Iterator

from serving.errors import Code

_PREFIX = ":tensorflow:serving:"


class Counter:
    """Counts by labels.

    Args:
        name: after TF Serving's prefix.
        labels: their names.
    """

    def __init__(self, name: str, *labels: str) -> None:
        self.name, self.labels = _PREFIX + name, labels
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, count: int = 1) -> None:
        """Adds to the count of such labels."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + count

    def lines(self) -> Iterator[str]:
        """As text."""
        yield f"# TYPE {self.name} counter"
        for values, count in sorted(self._counts.items()):
            yield f"{self.name}{{{_labelled(self.labels, values)}}} {count}"


class Histogram:
    """Counts by labels and powers.

    Args:
        name: after TF Serving's prefix.
        labels: their names.
        scale, growth: of the buckets' upper bounds scale · growthⁱ.
        buckets: how many, the last of which has no bound; by default TF Serving's for times.
    """

    def __init__(
        self, name: str, *labels: str, scale: float = 10.0, growth: float = 1.8, buckets: int = 33
    ) -> None:
        self.name, self.labels = _PREFIX + name, labels
        self.bounds = [scale * growth**index for index in range(buckets - 1)]
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, value: float) -> None:
        """Adds a value with such labels."""
        with self._lock:
            counts = self._counts.setdefault(values, [0] * (len(self.bounds) + 1))
            counts[bisect.bisect_left(self.bounds, value)] += 1
            self._sums[values] = self._sums.get(values, 0.0) + value

    def lines(self) -> Iterator[str]:
        """As text."""
        yield f"# TYPE {self.name} histogram"
        for values, counts in sorted(self._counts.items()):
            labels = _labelled(self.labels, values)
            so_far = itertools.accumulate(counts)
            for bound, count in zip([*self.bounds, math.inf], so_far, strict=True):
                le = "+Inf" if math.isinf(bound) else f"{bound:g}"
                yield f'{self.name}_bucket{{{labels},le="{le}"}} {count}'
            yield f"{self.name}_sum{{{labels}}} {self._sums[values]:g}"
            yield f"{self.name}_count{{{labels}}} {sum(counts)}"


class Metrics:
    """What a server counts, times in microseconds."""

    def __init__(self) -> None:
        self._requests = Counter("request_count", "model_name", "status")
        self._latency = Histogram("request_latency", "model_name", "API", "entrypoint")
        self._runtime = Histogram("runtime_latency", "model_name", "API", "runtime")
        self._examples = Histogram("request_example_counts", "model", scale=1, growth=2, buckets=15)
        self._all_examples = Counter("request_example_count_total", "model")

    def answered(self, model: str, api: str, entrypoint: str, code: Code, seconds: float) -> None:
        """A request was answered.

        Args:
            model: its name.
            api: what was asked, such as Predict.
            entrypoint: GRPC or REST.
            code: of the answer.
            seconds: that it took.
        """
        self._requests.add(model, code.name)
        if code == Code.OK:
            self._latency.add(model, api, entrypoint, value=seconds * 1e6)

    def ran(self, model: str, seconds: float) -> None:
        """A signature was run, the waiting for its turn included."""
        self._runtime.add(model, "Predict", "TF1", value=seconds * 1e6)

    def examples(self, model: str, count: int) -> None:
        """A request came with so many examples."""
        self._examples.add(model, value=count)
        self._all_examples.add(model, count=count)

    def text(self) -> str:
        """All of them, for Prometheus."""
        metrics = (self._requests, self._latency, self._runtime, self._examples, self._all_examples)
        return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def _labelled(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
