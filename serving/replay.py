"""`python -m serving.replay DIRECTORY`: whether a saved model answers as it was recorded to.

`serving.push` runs it, in a process that has seen nothing of what made the model. The last line
that it prints is a JSON object: how many answers were `compared`, by signature, how many requests
are `unrecorded`, having no answer to compare with, and the `problem`, or null.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.errors import from_tensorflow
from serving.inference import DEFAULT_SIGNATURE
from serving.servable import WARM_UP, Servable

# What other instructions of another processor, or another order of a sum, may change.
RELATIVE, ABSOLUTE = 1e-3, 1e-5


class DifferentAnswerError(Exception):
    """A saved model that does not answer as it was recorded to."""


def replay(directory: Path) -> tuple[Counter[str], int]:
    """Loads a model as a server does, and compares its answers to the warm-up requests.

    Args:
        directory: of the SavedModel.

    Returns:
        Answers compared, by signature; requests without a recorded answer.

    Raises:
        DifferentAnswerError: an answer is not the recorded one.
        Exception: it cannot be loaded, or a warm-up request cannot be answered.
    """
    servable = Servable(directory)
    path = directory / WARM_UP
    compared: Counter[str] = Counter()
    unrecorded = 0
    records = tf.data.TFRecordDataset(str(path)) if path.is_file() else ()
    for number, record in enumerate(records, 1):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        if not log.response.outputs:  # or a request of another kind than Predict
            unrecorded += 1
            continue
        signature = log.request.model_spec.signature_name or DEFAULT_SIGNATURE
        answer = servable.run(signature, servable.check(signature, _arrays(log.request.inputs)))
        difference = _difference(answer, _arrays(log.response.outputs))
        if difference:
            raise DifferentAnswerError(
                f"signature {signature!r} does not answer warm-up request {number} as recorded: "
                f"{difference}"
            )
        compared[signature] += 1
    return compared, unrecorded


def _arrays(protos: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tf.make_ndarray(proto) for name, proto in protos.items()}


def _difference(got: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    if got.keys() != recorded.keys():
        return f"its outputs are {sorted(got)} instead of {sorted(recorded)}"
    of_outputs = (_of_output(name, got[name], recorded[name]) for name in sorted(recorded))
    return next((found for found in of_outputs if found), None)


def _of_output(name: str, got: Any, recorded: Any) -> str | None:
    if (got.dtype, got.shape) != (recorded.dtype, recorded.shape):
        return (
            f"output {name!r} is {got.dtype}{list(got.shape)} instead of "
            f"{recorded.dtype}{list(recorded.shape)}"
        )
    if got.dtype.kind in "biuO":  # truth, whole numbers and strings
        differ, gaps = np.asarray(got != recorded), None
    else:
        got, recorded = got.astype(np.float64), recorded.astype(np.float64)  # bfloat16, too
        differ = ~np.isclose(got, recorded, RELATIVE, ABSOLUTE, equal_nan=True)
        gaps = np.where(differ, np.nan_to_num(abs(got - recorded), nan=np.inf), -1)
    if not differ.any():
        return None
    at = np.unravel_index(np.argmax(differ if gaps is None else gaps), differ.shape)
    place = f"row {at[0]}" if at else "the value"
    if len(at) > 1:
        place += f", place {[int(i) for i in at[1:]]}"
    shown = [repr(a[at]) if gaps is None else f"{a[at]:.6g}" for a in (got, recorded)]
    off = f", off by {gaps[at]:.3g}" if gaps is not None and np.isfinite(gaps[at]) else ""
    which = "the first" if gaps is None else "the most"
    return (
        f"{differ.sum()} of {differ.size} values of output {name!r} differ, {which} at {place}: "
        f"{shown[0]} instead of {shown[1]}{off}"
    )


def main() -> None:
    """Prints what `replay` finds of the directory that is the one argument."""
    found: dict[str, Any] = {"compared": {}, "unrecorded": 0, "problem": None}
    try:
        found["compared"], found["unrecorded"] = replay(Path(sys.argv[1]))
    except DifferentAnswerError as error:
        found["problem"] = str(error)
    except Exception as error:  # whatever is wrong with it, the caller has to know
        known = from_tensorflow(error) if isinstance(error, tf.errors.OpError) else error
        line = (str(known).splitlines() or [type(error).__name__])[0]
        found["problem"] = f"it cannot be loaded and warmed up: {line}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
