"""The steps `train`, `evaluate`, `bless` and `push`: from a data set to a served model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pipeline.blessing import (
    EVALUATION,
    Current,
    current_version,
    digest_of_export,
    export_of,
    judge,
)
from pipeline.description import expected_features
from pipeline.ingest import Ingest
from pipeline.step import MODEL_CODE, Step
from pipeline.transforming import Transform
from pipeline.workspace import About, digest_of_files, digest_of_values
from tfrec.aims import METRICS
from tfrec.export import newest_version
from tfrec.figures import Report
from tfrec.strict import UserError, nearest

CURRENT, VERDICTS = "current.json", "verdicts.json"
BLESSED, NOT_BLESSED = "BLESSED", "NOT_BLESSED"  # the names of TFX's files
PUSHED = "PUSHED"


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

    def _values(self) -> dict[str, Any]:
        """The training configuration, as from a file."""
        values = {**self.settings(), "data": str(self.workspace.directory(Transform.name))}
        if isinstance(values.get("model"), str):
            values["model"] = {"id": values["model"]}
        return values

    def check(self) -> None:
        from tfrec.runs import resolve_for

        resolve_for(self._values(), self.name, expected_features(self.declaration))

    def make(self, place: Path) -> dict[str, Any]:
        from tfrec.train import train

        self.input(Transform.name)
        values = self._values()
        metrics = train(values, place, self.name)
        best = metrics["best"]
        return {"model": values["model"]["id"], "epoch": best and best["epoch"]}

    def told(self, counts: dict[str, Any]) -> list[str]:
        return [f"{counts['model']}, best at epoch {counts['epoch']:.2f}; {self.output}"]


class Evaluate(Step):
    """Measures the export and the baselines on the last split. Leaves `evaluation.json`."""

    name = "evaluate"
    needs = (Ingest.name, Transform.name, Train.name)
    code = ("pipeline/model_steps.py", *MODEL_CODE)

    def settings(self) -> Any:
        replicates = self.declaration.evaluate.replicates
        return [self.declaration.given_splits[-1], self.declaration.slices, replicates]

    def check(self) -> None:
        from tfrec.slices import sliceable

        super().check()
        known = sliceable(expected_features(self.declaration))
        for part in self.declaration.slices:
            name = part.partition("=")[0]
            if name not in known:
                raise UserError(f"slices: no feature {name!r}{nearest(name, known)}")

    def sources(self) -> dict[str, str]:
        return {"export": digest_of_export(export_of(self.input(Train.name)))}

    def make(self, place: Path) -> dict[str, Any]:
        from tfrec.runs import Run
        from tfrec.served import ServedEvaluator
        from tfrec.served_top_k import measured_export

        split, slices, replicates = self.settings()
        run = Run.load(self.input(Train.name))
        model = run.config.model.id
        export = export_of(run.directory)
        asked = ServedEvaluator(export, self.input(Transform.name), split)
        report = measured_export(model, asked, slices, replicates)
        measured = f"export/{export.name}"
        report.save(place / EVALUATION)
        return {
            "model": model, "split": split, "measured": measured, "metrics": report.figures()
        }  # fmt: skip

    def told(self, counts: dict[str, Any]) -> list[str]:
        report = Report.load(self.output / EVALUATION)
        lines = [line for line in report.text().splitlines()[1:] if line]
        empty = report.without_examples(self.declaration.slices)
        lines += [f"slice {part}: no example of {report.split} is in it" for part in empty]
        return [f"{counts['measured']} on {report.about}", *lines]


class Bless(Step):
    """Holds the model against rules and the model that is served.

    Leaves `BLESSED`, with the digest of the export, or `NOT_BLESSED`, with the reasons;
    `verdicts.json`; and `current.json`, the figures of the model that is served.
    """

    name = "bless"
    needs = (Ingest.name, Transform.name, Evaluate.name)
    code = ("pipeline/blessing.py", "pipeline/model_steps.py", *MODEL_CODE)

    def settings(self) -> Any:
        rules = self.declaration.bless
        if rules is None:
            raise UserError("'bless' is missing in the declaration: what the model has to reach")
        current = self._current()
        return [[rule.model_dump() for rule in rules], current and current[1]]

    def check(self) -> None:
        super().check()
        for number, rule in enumerate(self.declaration.bless or (), 1):
            if (metric := rule.metric.split("@")[0]) not in METRICS:
                near = nearest(metric, METRICS)
                raise UserError(f"bless rule {number}: no metric {rule.metric!r}{near}")

    @property
    def _export(self) -> str | None:
        """Digest of the export that was measured."""
        about = self.workspace.about(Evaluate.name)
        return about.inputs.get("export") if about else None

    def _current(self) -> tuple[Path, str] | None:
        """The served version that the model is compared with, and its digest."""
        if not any(rule.worse_by is not None for rule in self.declaration.bless or ()):
            return None
        if self.declaration.push is None:
            raise UserError(
                "bless: worse_by compares with the model that is served, and 'push', its "
                "directory, is missing in the declaration"
            )
        return current_version(Path(self.declaration.push), self._export)

    def make(self, place: Path) -> dict[str, Any]:
        report = Report.load(self.input(Evaluate.name) / EVALUATION)
        current = self._measured(report)
        if current and current.report:
            current.report.save(place / CURRENT)
        verdicts = judge(self.declaration.bless or (), report, current)
        told = [dataclasses.asdict(verdict) for verdict in verdicts]
        (place / VERDICTS).write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        if reasons := [verdict.text for verdict in verdicts if not verdict.kept]:
            (place / NOT_BLESSED).write_text("\n".join(reasons) + "\n")
        else:
            (place / BLESSED).write_text(f"{self._export}\n")
        return {"verdicts": told}

    def digest(self, place: Path) -> str:
        """Of the verdict alone: what else is told of the same export changes nothing."""
        found = (place / name for name in (BLESSED, NOT_BLESSED))
        return digest_of_files((path for path in found if path.exists()), place)

    def _measured(self, report: Report) -> Current | None:
        """The served model, asked for the very examples of the report."""
        from tfrec.served import ServedEvaluator
        from tfrec.served_top_k import measured_export

        if (found := self._current()) is None:
            return None
        version = str(found[0])
        try:
            asked = ServedEvaluator(found[0], self.input(Transform.name), report.split)
            measured = measured_export(
                version, asked, self.declaration.slices, report.replicates, alone=True
            )
        except UserError as error:
            return Current(version, None, str(error).removeprefix(f"{version} "))
        return Current(version, measured)

    def told(self, counts: dict[str, Any]) -> list[str]:
        lines = [f"{'holds' if v['kept'] else 'broken'}: {v['text']}" for v in counts["verdicts"]]
        blessed = all(verdict["kept"] for verdict in counts["verdicts"])
        return ["blessed" if blessed else "not blessed", *lines]


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

    def sources(self) -> dict[str, str]:
        return {"export": digest_of_export(export_of(self.input(Train.name)))}

    def kept(self, key: str, force: bool) -> About | None:
        about = super().kept(key, force)
        if about:
            self._check_blessing()
        return about

    def _check_blessing(self) -> None:
        """Checks that this very export is blessed, by the rules and beside the model of now."""
        blessing = self.input(Bless.name)
        if not (blessing / BLESSED).exists():
            why = (blessing / NOT_BLESSED).read_text().splitlines()
            raise UserError("\n  ".join(["not pushed, since it is not blessed:", *why]))
        if (blessing / BLESSED).read_text().strip() != self.sources()["export"]:
            raise UserError(
                f"not pushed: {export_of(self.input(Train.name))} is not the export that was "
                "measured and blessed; run without --only, which measures it and blesses it or not"
            )
        about = self.workspace.about(Bless.name)
        now = Bless(self.declaration, self.workspace, self.options).settings()
        if about is None or about.settings != digest_of_values(now):
            raise UserError(
                "not pushed: it was blessed by other rules, or beside another served model, than "
                "there are now; run without --only, which blesses it anew or not"
            )

    def make(self, place: Path) -> dict[str, Any]:
        from serving.push import PushError, push

        self._check_blessing()
        export, served = export_of(self.input(Train.name)), Path(self.settings())
        newest = newest_version(served)
        if newest and digest_of_export(newest) == self.sources()["export"]:
            (place / PUSHED).write_text(f"{newest}\n")
            return {"version": f"{newest}, which is served already"}
        try:
            pushed = push(export, served, extra=[self.input(Evaluate.name) / EVALUATION])
        except PushError as error:
            raise UserError(error.message) from None
        (place / PUSHED).write_text(f"{pushed.version}\n")
        return {"version": str(pushed.version)}

    def told(self, counts: dict[str, Any]) -> list[str]:
        return [counts["version"]]
