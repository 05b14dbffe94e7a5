"""The declaration of a data set: what its columns mean. Read from YAML, checked strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pipeline.blocks import (
    BlessDeclaration,
    CrossDeclaration,
    EvaluateDeclaration,
    FeatureDeclaration,
    HistoryDeclaration,
    LabelDeclaration,
    NegativesDeclaration,
    Source,
    SplitDeclaration,
    Task,
    ValidationDeclaration,
)
from tfrec.strict import Strict, UserError, nearest

TRAIN_EVENTS = "train_events"
OUTPUTS = Path("data")  # a directory for every data set


class Declaration(Strict):
    """A data set: source, meaning of its columns, and how examples are made.

    Attributes:
        name: of the data set.
        source: where the events are.
        user, item, time: raw columns that identify the user and the item, and order the events
            (seconds since 1970 as an integer, or ISO 8601).
        examples: of the training split: `events`, one each, or `sequences`, one per user, the
            newest with its history. Everything is learned from all training events all the same.
        features, labels, histories: by name. Without a label, all events are positive ones.
        negatives: that are drawn for events without a label.
        weight: raw column with a weight per example.
        crosses: for linear parts.
        split: of one source.
        show: raw columns kept in the item catalogue only, to be shown to people.
        max_rejected: largest share of rows that may be rejected; past it the run stops.
        shards: files per split; unless given, 8, or more so that each fits into memory.
        validation: of the data, against a schema and other data.
        train: a training configuration without `data`, for the step `train`.
        evaluate: how the step `evaluate` measures.
        bless: rules of the step `bless`; one may stand without a list.
        push: directory of TF Serving that the step `push` puts a new version into.
    """

    name: str
    source: Source
    user: str | None = None
    item: str | None = None
    time: str | None = None
    examples: Literal["events", "sequences"] = "events"
    features: Annotated[dict[str, FeatureDeclaration], Field(min_length=1)]
    labels: dict[str, LabelDeclaration] = {}
    histories: dict[str, HistoryDeclaration] = {}
    negatives: NegativesDeclaration | None = None
    weight: str | None = None
    crosses: list[CrossDeclaration] = []
    split: SplitDeclaration | None = None
    show: list[str] = []
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.001
    shards: Annotated[int, Field(ge=1, lt=100_000)] | None = None  # five digits of a file's name
    validation: ValidationDeclaration = ValidationDeclaration()
    train: dict[str, Any] | None = None
    evaluate: EvaluateDeclaration = EvaluateDeclaration()
    bless: Annotated[list[BlessDeclaration], Field(min_length=1)] | None = None
    push: str | None = None

    @field_validator("bless", mode="before")
    @classmethod
    def _one_or_several(cls, values: Any) -> Any:
        return [values] if isinstance(values, dict) else values

    def data_set(self, **options: Any) -> dict[str, Any]:
        """All that decides the data set, as plain values.

        Args:
            options: of `model_dump`.
        """
        of_other_steps = {"validation", "train", "evaluate", "bless", "push"}
        return self.model_dump(mode="json", exclude=of_other_steps, **options)

    def analysis(self) -> dict[str, Any]:
        """All that decides, beside the events, what is learned of them, as plain values."""
        read = {"time", "features", "histories", "crosses"}  # by the preprocessing_fn
        return self.model_dump(mode="json", include=read)

    @property
    def output(self) -> Path:
        """Where steps leave their outputs unless the user names another place."""
        return OUTPUTS / (re.sub(r"[^\w.-]+", "_", self.name).strip(".") or "data_set")

    def column(self, feature: str) -> str:
        """Raw column of a feature."""
        declared = self.features[feature]
        if declared.clock and self.time:
            return self.time
        return declared.column or feature

    def vocabulary(self, feature: str) -> str:
        """Name of the table of a categorical or bucketised feature."""
        return self.features[feature].vocabulary or feature

    def crossed(self, name: str) -> tuple[str | None, str]:
        """History (or None) and feature that a name inside a cross stands for.

        Raises:
            UserError: neither a feature nor `<history>_<feature>`.
        """
        if name in self.features:
            return None, name
        known = dict(self.history_features())
        if name not in known:
            raise UserError(f"no feature {name!r}{nearest(name, [*self.features, *known])}")
        return known[name]

    def gap(self, history: str) -> str | None:
        """Name of a history's feature that tells how long ago its events were, if it has one."""
        return f"{history}_gap" if self.histories[history].gaps else None

    def history_columns(self, history: str) -> list[str]:
        """Raw columns that a history keeps of each event, the item's first."""
        declared = self.histories[history]
        columns = [self.column(feature) for feature in declared.features]
        if declared.gaps and self.time:
            columns.append(self.time)
        return list(dict.fromkeys(columns))

    def history_features(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Names of what histories repeat, `<history>_<feature>`, with the two parts."""
        for history, declared in self.histories.items():
            for feature in declared.features:
                yield f"{history}_{feature}", (history, feature)

    @property
    def tasks(self) -> dict[str, Task]:
        """Task of every label, by name."""
        tasks: dict[str, Task] = {name: label.task for name, label in self.labels.items()}
        return {**tasks, self.negatives.label: "binary"} if self.negatives else tasks

    @property
    def given_splits(self) -> tuple[str, ...]:
        """Splits that examples will fall into."""
        if self.source.given:
            return tuple(self.source.given)
        assert self.split is not None
        if self.split.kind == "leave_one_out":
            return ("train", "validation", "test")
        shares = zip(("train", "validation", "test"), self.split.fractions, strict=True)
        return tuple(split for split, share in shares if share > 0)

    @property
    def slices(self) -> list[str]:
        """Parts that the model is measured on: those asked for, and those of rules."""
        of_rules = (rule.slice for rule in self.bless or () if rule.slice)
        return list(dict.fromkeys([*self.evaluate.slices, *of_rules]))

    @property
    def learned_from(self) -> str:
        """Which of `outputs` vocabularies, normalisation and statistics are learned from."""
        return TRAIN_EVENTS if self.examples == "sequences" or self.negatives else "train"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The splits' examples; beside sequences and negatives, all training events."""
        return tuple(dict.fromkeys((*self.given_splits, self.learned_from)))
