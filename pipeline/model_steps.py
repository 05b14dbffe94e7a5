"""The steps `train`, `evaluate`, `bless` and `push`: from a data set to a served model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.step import MODEL_CODE, Step
from pipeline.transforming import Transform
from tfrec.export import newest_version
from tfrec.strict import UserError, nearest

EVALUATION = "evaluation.json"
BLESSED, NOT_BLESSED = "BLESSED", "NOT_BLESSED"  # the names of TFX's files
PUSHED = "PUSHED"
EXTRA = "assets.extra"


class Train(Step):
    """Trains a model; a run that was killed goes on. Leaves a run directory."""

    name = "train"
    needs = (Transform.name,)
    code = MODEL_CODE
    resumes = True

    def settings(self) -> Any:
        if self.declaration.train is None:
            raise UserError("'train' is missing in the declaration: the training configuration")
        if "data" in self.declaration.train:
            raise UserError("train.data: it is the output of the step transform; leave it out")
        return self.declaration.train

    def make(self, place: Path) -> dict[str, Any]:
        from tfrec.train import train

        values = {**self.settings(), "data": str(self.input(Transform.name))}
        if isinstance(values.get("model"), str):
            values["model"] = {"id": values["model"]}
        metrics = train(values, place, "train")
        best = metrics["best"]
        return {"model": values["model"]["id"], "epoch": best and best["epoch"]}

    def told(self, counts: dict[str, Any]) -> list[str]:
        return [f"{counts['model']}, best at epoch {counts['epoch']:.2f}; {self.output}"]


class Evaluate(Step):
    """Measures the model and the baselines on the last split. Leaves `evaluation.json`."""

    name = "evaluate"
    needs = (Transform.name, Train.name)
    code = MODEL_CODE

    def settings(self) -> Any:
        return self.declaration.given_splits[-1]

    def make(self, place: Path) -> dict[str, Any]:
        from tfrec.evaluation import evaluator
        from tfrec.runs import Run

        run = Run.load(self.input(Train.name))
        measuring = evaluator(run.config, run.features, self.settings())
        compared = measuring.compare(run.config.model.id, run.best_model())
        found = {"model": run.config.model.id, "split": self.settings(), "metrics": compared}
        (place / EVALUATION).write_text(json.dumps(found, indent=1) + "\n")
        return found

    def told(self, counts: dict[str, Any]) -> list[str]:
        from tfrec.report import table

        return [f"on {counts['split']}", *table(counts["metrics"]).splitlines()]


class Bless(Step):
    """Holds the model against what it has to reach. Leaves `BLESSED`, or `NOT_BLESSED`."""

    name = "bless"
    needs = (Evaluate.name,)

    def settings(self) -> Any:
        if self.declaration.bless is None:
            raise UserError("'bless' is missing in the declaration: what the model has to reach")
        return [self.declaration.bless.model_dump(), self._pushed()]

    def _pushed(self) -> Any:
        """Figures of the model that was pushed last."""
        newest = newest_version(Path(self.declaration.push)) if self.declaration.push else None
        path = newest / EXTRA / EVALUATION if newest else None
        return json.loads(path.read_text()) if path and path.is_file() else None

    def make(self, place: Path) -> dict[str, Any]:
        rule = self.declaration.bless
        assert rule
        value = self._value(json.loads((self.input(Evaluate.name) / EVALUATION).read_text()))
        sign = 1 if rule.at_most is None else -1
        threshold = rule.at_least if rule.at_most is None else rule.at_most
        assert threshold is not None
        reasons = []
        if value is None or sign * value < sign * threshold:
            word = "least" if sign > 0 else "most"
            shown = "none" if value is None else f"{value:.4f}"
            reasons.append(f"{rule.metric} is {shown}, and has to be at {word} {threshold}")
        pushed = self._pushed()
        if pushed and rule.worse_by is not None and value is not None:
            before = self._value(pushed)
            if before is not None and sign * (value - before) < -rule.worse_by:
                reasons.append(
                    f"{rule.metric} is {value:.4f}, and {before:.4f} of the model pushed last"
                )
        (place / (NOT_BLESSED if reasons else BLESSED)).write_text("\n".join(reasons))
        return {"metric": rule.metric, "value": value, "reasons": reasons}

    def _value(self, found: dict[str, Any]) -> float | None:
        """The metric that the rule names."""
        rule = self.declaration.bless
        assert rule
        tasks = found["metrics"][found["model"]]
        task = rule.task or next(iter(tasks))
        if task not in tasks:
            raise UserError(f"bless.task: the model has no {task!r}{nearest(task, tasks)}")
        if rule.metric not in tasks[task]:
            near = nearest(rule.metric, tasks[task])
            raise UserError(f"bless.metric: no metric {rule.metric!r} of {task}{near}")
        return tasks[task][rule.metric]

    def told(self, counts: dict[str, Any]) -> list[str]:
        if counts["reasons"]:
            return [f"not blessed: {reason}" for reason in counts["reasons"]]
        return [f"blessed, with {counts['metric']} {counts['value']:.4f}"]


class Push(Step):
    """Puts a blessed model where TF Serving looks for the next version. Leaves `PUSHED`.

    `serving.push` does it, which needs no more than training does.
    """

    name = "push"
    needs = (Train.name, Evaluate.name, Bless.name)

    def settings(self) -> Any:
        if self.declaration.push is None:
            raise UserError("'push' is missing in the declaration: the directory to push to")
        return str(Path(self.declaration.push).resolve())

    def make(self, place: Path) -> dict[str, Any]:
        from serving.push import PushError, push

        blessing = self.input(Bless.name)
        if not (blessing / BLESSED).exists():
            why = (blessing / NOT_BLESSED).read_text().splitlines()
            raise UserError(f"not pushed, since it is not blessed: {'; '.join(why)}")
        exported, served = self.input(Train.name) / "export", Path(self.settings())
        try:
            pushed = push(exported, served, extra=[self.input(Evaluate.name) / EVALUATION])
        except PushError as error:
            raise UserError(error.message) from None
        (place / PUSHED).write_text(f"{pushed.version}\n")
        return {"version": str(pushed.version)}

    def told(self, counts: dict[str, Any]) -> list[str]:
        return [counts["version"]]
