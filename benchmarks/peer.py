"""The work of `throughput.py` in another package: torch-rechub or DeepCTR, whichever is installed.

Runs under that environment's Python, which needs neither this project nor its requirements:
`python -m benchmarks.throughput --against /path/to/python`. Examples come from memory, in a plain
loop, with the package's own DeepFM under Adam.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

Step = Callable[[int], Any]


def torch_rechub(work: dict[str, Any], arrays: dict[str, Any]) -> tuple[str, Step]:
    """One step of torch-rechub's DeepFM under Adam."""
    import torch
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.ranking import DeepFM

    size, dim = work["rows"] // work["categories"] + 1, work["dim"]
    sparse = [SparseFeature(f"c{i}", size, dim) for i in range(work["categories"])]
    dense = [DenseFeature(f"n{i}") for i in range(work["numbers"])]
    model = DeepFM(sparse + dense, sparse, {"dims": work["hidden"], "dropout": 0.0})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = torch.nn.BCELoss()
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    labels = given.pop("label:click")

    def step(index: int) -> Any:
        optimizer.zero_grad()
        predicted = model({name: values[index] for name, values in given.items()})
        loss(predicted, labels[index]).backward()
        optimizer.step()

    return f"torch-rechub (PyTorch {torch.__version__.partition('+')[0]})", step


def deepctr(work: dict[str, Any], arrays: dict[str, Any]) -> tuple[str, Step]:
    """One step of DeepCTR's DeepFM under Keras' Adam."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # it knows no newer one
    import deepctr
    from deepctr.feature_column import DenseFeat, SparseFeat
    from deepctr.models import DeepFM

    size, dim = work["rows"] // work["categories"] + 1, work["dim"]
    columns = [SparseFeat(f"c{i}", size, embedding_dim=dim) for i in range(work["categories"])]
    columns += [DenseFeat(f"n{i}", 1) for i in range(work["numbers"])]
    model = DeepFM(columns, columns, dnn_hidden_units=tuple(work["hidden"]))
    model.compile("adam", "binary_crossentropy")
    labels = arrays.pop("label:click")

    def step(index: int) -> Any:
        given = {name: values[index] for name, values in arrays.items()}
        return model.train_on_batch(given, labels[index])

    return f"DeepCTR {deepctr.__version__}", step


def main() -> None:
    """Reads the work as JSON and the place of the arrays; prints one JSON object."""
    work = json.loads(sys.argv[1])
    with np.load(work["arrays"]) as stored:
        arrays = {name: stored[name] for name in stored.files}
    make = torch_rechub if find_spec("torch_rechub") else deepctr
    name, step = make(work, arrays)
    batches = work["batches"]
    for index in range(work["warm_up"]):
        step(index % batches)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < work["seconds"]:
        step(steps % batches)
        steps += 1
    rate = steps * work["batch"] / (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"package": name, "examples_per_second": rate, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main()
