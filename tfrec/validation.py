"""What a validation found, and how it is compared, told and logged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Metrics = dict[str, dict[str, float | None]]

# What a better model of a task is judged by, and whether more of it is better: the first that
# exists, since there is no AUC where all labels are equal.
Signed = tuple[tuple[str, float], ...]
Monitored = Mapping[str, Signed]  # by task
# What is told in a line; all is in metrics.json and TensorBoard.
_TOLD = ("auc", "log_loss", "gauc", "calibration", "rmse", "mae", "hr", "recall", "ndcg", "mrr")


@dataclass(frozen=True)
class Validation:
    """Metrics at one point of the training.

    Attributes:
        step: steps done.
        epoch: passes over the data done, as a fraction.
        loss: mean training loss since the last validation.
        metrics: by task.
        losses: means of the parts of the training loss over the steps that tell them, by name: of
            several tasks, and auxiliary.
        gates: mean share of every expert, by gate, on the first validation examples.
    """

    step: int
    epoch: float
    loss: float
    metrics: Metrics
    losses: dict[str, float] = field(default_factory=dict)
    gates: dict[str, list[float]] = field(default_factory=dict)

    def score(self, monitored: Monitored) -> float:
        """What validations are compared by, a mean over the tasks: higher is better.

        Tasks of which no example has the label have no part in it.
        """
        scores = self._scores(monitored).values()
        return sum(scores) / len(scores) if scores else -math.inf

    def judged_by(self, monitored: Monitored) -> str:
        """What its score is, in words."""
        parts = list(self._scores(monitored))
        return f"the mean of {', '.join(parts)}" if len(parts) > 1 else "".join(parts)

    def _scores(self, monitored: Monitored) -> dict[str, float]:
        """By what they are of: of each task the first metric that there is, or none."""
        found = {}
        for task, metrics in monitored.items():
            for name, sign in metrics:
                value = self.metrics.get(task, {}).get(name)
                if value is not None:
                    found[f"{'-' if sign < 0 else ''}{name} of {task}"] = sign * value
                    break
        return found

    def text(self) -> str:
        """All of it, but for the gates, in one line."""
        losses = "".join(f"{name} {value:.4f}  " for name, value in self.losses.items())
        return f"epoch {self.epoch:.2f}  loss {self.loss:.4f}  {losses}{shown(self.metrics)}"

    def scalars(self) -> dict[str, float]:
        """What TensorBoard shows."""
        found = {"train/loss": self.loss}
        found |= {f"train/{name}": mean for name, mean in self.losses.items()}
        for gate, shares in self.gates.items():
            found |= {f"gates/{gate}/{expert}": share for expert, share in enumerate(shares)}
        for task, values in self.metrics.items():
            known = {name: value for name, value in values.items() if value is not None}
            found |= {f"validation/{task}/{name}": value for name, value in known.items()}
        return found


def shown(metrics: Metrics) -> str:
    """The main metrics in one line."""
    return "  ".join(
        f"{task}: "
        + ", ".join(
            f"{name} {value:.4f}"
            for name, value in values.items()
            if value is not None and name.partition("@")[0] in _TOLD
        )
        for task, values in metrics.items()
    )
