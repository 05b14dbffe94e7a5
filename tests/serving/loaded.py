"""What is asked of a model in the tests' own process."""

from __future__ import annotations

import numpy as np

from serving.model import Model


def answer(model: Model, version: int | None = None) -> tuple[int, float]:
    """The version that answers, and the offset of its model."""
    number, servable = model.get(version)
    return number, float(servable.run("serving_default", {"x": np.zeros(1, np.float32)})["y"][0])


def states(model: Model) -> dict[int, int]:
    return {version: status.state for version, status in model.statuses.items()}
