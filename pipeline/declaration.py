"""The declaration of a data set: what its columns mean. Read from YAML, checked strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from tfrec.features import Role
from tfrec.strict import Strict, UserError, nearest

Paths = str | list[str]

TRAIN_EVENTS = "train_events"


class Source(Strict):
    """Where the events are.

    Attributes:
        format: `csv` (with a header), `parquet`, `tfrecord` (of tf.Example), or the name of a
            built-in source: `movielens`.
        path: files or globs of one source, to be split.
        train, validation, test: files or globs, where the split is given.
        delimiter: of CSV fields.
    """

    format: Literal["csv", "parquet", "tfrecord", "movielens"]
    path: Paths | None = None
    train: Paths | None = None
    validation: Paths | None = None
    test: Paths | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","

    @property
    def given(self) -> dict[str, list[str]]:
        """Patterns by split, where the split is given."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: _patterns(paths) for split, paths in splits.items() if paths}

    @property
    def patterns(self) -> list[str]:
        """Patterns of the one source."""
        return _patterns(self.path) if self.path else []

    @model_validator(mode="after")
    def _one_way(self) -> Source:
        if self.format == "movielens":
            if self.path or self.given:
                raise ValueError("the built-in movielens takes no path")
        elif bool(self.path) == bool(self.given):
            raise ValueError("needs either `path`, or `train` with `validation` and `test`")
        elif self.given and not self.train:
            raise ValueError("`train` is missing beside the other given files")
        return self


class FeatureDeclaration(Strict):
    """One feature of an example.

    Attributes:
        kind: `category` (ids by a vocabulary of the training split, or by hash), `number`
            (float32, normalised) or `buckets` (a number cut at quantiles of the training split).
        role: whom it describes: `user`, `item` or `context`.
        column: raw column; the feature's own name unless given.
        separator: between the values of a category that may have many, such as `|`.
        length: most values kept of a category that may have many; the longest seen in the
            training split unless given.
        min_count: events a value needs to get an id of its own.
        top_k: most values that get an id of their own.
        oov_buckets: ids shared, by hash, by all other values.
        hash_buckets: ids by hash into that many buckets, with no vocabulary.
        vocabulary: name of the vocabulary, to share one between features; the feature's own name
            unless given.
        normalise: of a number: `z_score`, `min_max`, `log` (log(1 + x)) or `none`.
        buckets: of `buckets`: how many.
        fill: value that stands in for a missing one. Unless given, a missing category or bucket
            is padding (a zero vector), and a missing number is 0 after its normalisation.
    """

    kind: Literal["category", "number", "buckets"]
    role: Role
    column: str | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    length: PositiveInt | None = None
    min_count: PositiveInt = 1
    top_k: PositiveInt | None = None
    oov_buckets: PositiveInt = 1
    hash_buckets: PositiveInt | None = None
    vocabulary: str | None = None
    normalise: Literal["z_score", "min_max", "log", "none"] = "z_score"
    buckets: Annotated[int, Field(ge=2)] | None = None
    fill: str | float | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> FeatureDeclaration:
        of_category = ("separator", "length", "min_count", "top_k", "oov_buckets", "hash_buckets")
        belongs = {
            **dict.fromkeys((*of_category, "vocabulary"), "category"),
            "normalise": "number",
            "buckets": "buckets",
        }
        for key in sorted(self.model_fields_set & belongs.keys()):
            if belongs[key] != self.kind:
                raise ValueError(f"`{key}` belongs to kind {belongs[key]}, not {self.kind}")
        if self.kind == "buckets" and self.buckets is None:
            raise ValueError("kind buckets needs `buckets`: how many")
        if self.length and not self.separator:
            raise ValueError("`length` needs a `separator`: it is for categories with many values")
        if self.hash_buckets and self.model_fields_set & {"min_count", "top_k", "oov_buckets"}:
            raise ValueError(
                "`hash_buckets` has no vocabulary, so no min_count, top_k, oov_buckets"
            )
        if isinstance(self.fill, str) and self.kind != "category":
            raise ValueError(f"`fill` of kind {self.kind} is a number")
        return self


class LabelDeclaration(Strict):
    """One task.

    Attributes:
        column: raw column with the value. An empty value is a missing label.
        at_least: makes the label 1 where the column is at least this, else 0.
        task: `binary` (0 or 1) or `regression`.
    """

    column: str
    at_least: float | None = None
    task: Literal["binary", "regression"] = "binary"


class HistoryDeclaration(Strict):
    """Past events of the same user, strictly before the event in time.

    Where the data set has no time: training events of the same user with other items, in an order
    by hash.

    Attributes:
        length: most events kept; the newest stay.
        features: declared features that are kept of each event, the item's id first.
        where: name of a binary label that must be 1.
    """

    length: PositiveInt
    features: Annotated[list[str], Field(min_length=1)]
    where: str | None = None


class CrossDeclaration(Strict):
    """A hashed cross-product transformation, for the linear parts.

    Attributes:
        features: two or more categories or buckets; `<history>_<feature>` crosses with every
            event of a history.
        buckets: ids by hash.
    """

    features: Annotated[list[str], Field(min_length=2)]
    buckets: PositiveInt

    @property
    def name(self) -> str:
        """Name of the cross as a feature."""
        return "_x_".join(self.features)


class SplitDeclaration(Strict):
    """How one source becomes train, validation and test.

    Attributes:
        kind: `user_time` (the first events of every user train), `time` (the first of all),
            `leave_one_out` (each user's last event tests, the one before validates), `random`
            (by hash of `by`).
        fractions: of train, validation and test; not for leave_one_out.
        by: raw column whose hash decides a random split; the user's unless given, so that a user
            falls into one split whole. Without a user, the row.
        seed: of the random split.
    """

    kind: Literal["user_time", "time", "leave_one_out", "random"]
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    by: str | None = None
    seed: int = 0

    @property
    def cuts(self) -> tuple[float, float]:
        """Shares of the events where train ends and where validation ends."""
        return self.fractions[0], 1 - self.fractions[2]

    @model_validator(mode="after")
    def _fractions(self) -> SplitDeclaration:
        if abs(sum(self.fractions) - 1) > 1e-6 or min(self.fractions) < 0:
            raise ValueError("`fractions` are three shares that sum to 1")
        if self.fractions[0] == 0:
            raise ValueError("`fractions`: the share of train is 0")
        return self


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
        weight: raw column with a weight per example.
        crosses: for linear parts.
        split: of one source.
        show: raw columns kept in the item catalogue only, to be shown to people.
        max_rejected: largest share of rows that may be rejected; past it the run stops.
        shards: files per split.
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
    weight: str | None = None
    crosses: list[CrossDeclaration] = []
    split: SplitDeclaration | None = None
    show: list[str] = []
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.001
    shards: PositiveInt = 8

    def column(self, feature: str) -> str:
        """Raw column of a feature."""
        return self.features[feature].column or feature

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
        known = dict(self._history_features())
        if name not in known:
            raise UserError(f"no feature {name!r}{nearest(name, [*self.features, *known])}")
        return known[name]

    def _history_features(self) -> Iterator[tuple[str, tuple[str, str]]]:
        for history, declared in self.histories.items():
            for feature in declared.features:
                yield f"{history}_{feature}", (history, feature)

    def check(self, where: str) -> None:
        """Checks what one block says of another.

        Raises:
            UserError: a name that is not declared, or blocks that do not fit together.
        """
        try:
            self._check_split()
            self._check_histories()
            self._check_examples()
            self._check_tables()
            self._check_names()
            self._check_columns()
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def _check_split(self) -> None:
        if self.split and self.source.given:
            raise UserError("split: the source already gives train, validation and test files")
        if not self.split and not self.source.given:
            raise UserError(
                "'split' is missing: one source has to be split, or give "
                "source.train, source.validation and source.test"
            )
        if self.split:
            needs: dict[str, tuple[str, ...]] = {
                "user_time": ("user", "time"),
                "leave_one_out": ("user", "time"),
                "time": ("time",),
            }
            for key in needs.get(self.split.kind, ()):
                if getattr(self, key) is None:
                    raise UserError(f"split.kind {self.split.kind} needs {key!r}: its column")

    def _check_histories(self) -> None:
        for name, history in self.histories.items():
            path = f"histories.{name}"
            if not self.user:
                raise UserError(f"{path}: a history needs 'user': its column")
            for feature in history.features:
                if feature not in self.features:
                    raise UserError(
                        f"{path}.features: no feature {feature!r}{nearest(feature, self.features)}"
                    )
            first = self.features[history.features[0]]
            if first.kind != "category" or first.separator:
                raise UserError(
                    f"{path}.features: the first one has to be the item's id, a category with one "
                    f"value, not {history.features[0]!r}"
                )
            if first.fill is not None:
                raise UserError(
                    f"{path}.features: {history.features[0]!r} has a `fill`; the first feature "
                    "tells events from padding, so its missing value has to stay missing"
                )
            if self.item and self.column(history.features[0]) != self.item:
                raise UserError(
                    f"{path}.features: the first one has to be the item's id, of column "
                    f"{self.item!r}, not {history.features[0]!r}"
                )
            if history.where is not None and history.where not in self.labels:
                raise UserError(
                    f"{path}.where: no label {history.where!r}{nearest(history.where, self.labels)}"
                )
            if history.where and self.labels[history.where].task != "binary":
                raise UserError(f"{path}.where: label {history.where!r} is not binary")

    def _check_examples(self) -> None:
        if self.examples == "events":
            return
        for key in ("user", "item", "time"):
            if getattr(self, key) is None:
                raise UserError(f"examples: sequences need {key!r}: its column")
        if not self.histories:
            raise UserError("examples: sequences need a history, of the events before the newest")

    def _check_tables(self) -> None:
        sharing: dict[str, tuple[str, FeatureDeclaration]] = {}
        keys = ("min_count", "top_k", "oov_buckets", "hash_buckets")
        for name, feature in self.features.items():
            if feature.kind != "category":
                continue
            table = self.vocabulary(name)
            first_name, first = sharing.setdefault(table, (name, feature))
            for key in keys:
                if getattr(first, key) != getattr(feature, key):
                    raise UserError(
                        f"features.{name}: shares vocabulary {table!r} with {first_name!r}, "
                        f"so {key} has to be the same"
                    )
        for index, cross in enumerate(self.crosses):
            for crossed in cross.features:
                feature = self.features[self.crossed(crossed)[1]]
                if feature.kind == "number":
                    raise UserError(
                        f"crosses.{index}.features: {crossed!r} is a number; "
                        "declare it with kind buckets"
                    )

    def _check_names(self) -> None:
        features = [(name, "a feature") for name in self.features]
        features += [(name, "a label") for name in self.labels]
        features += [(name, "a history's feature") for name, _ in self._history_features()]
        features += [(cross.name, "a cross") for cross in self.crosses]
        _check_unique(features)
        tables = [(name, "a table of buckets") for name, f in self.features.items() if f.buckets]
        tables += [(cross.name, "a cross") for cross in self.crosses]
        categories = [name for name, f in self.features.items() if f.kind == "category"]
        vocabularies = dict.fromkeys(self.vocabulary(name) for name in categories)
        _check_unique([*tables, *((name, "a vocabulary") for name in vocabularies)])
        # They become names of files and of the transform's parts.
        for name in (*self.features, *self.labels, *self.histories, *vocabularies):
            if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise UserError(f"the name {name!r}: only letters, digits and _ . - are allowed")

    def _check_columns(self) -> None:
        """One column has one type, whatever it is used for."""
        uses = []
        for name, feature in self.features.items():
            what = "text" if feature.kind == "category" else "a number"
            if (self.column(name), what) != (self.time, "a number"):  # a time is a number too
                uses.append((self.column(name), what, f"features.{name}"))
        for key, what in (
            ("user", "text"), ("item", "text"), ("time", "a time"), ("weight", "a number")
        ):  # fmt: skip
            if column := getattr(self, key):
                uses.append((column, what, key))
        taken: dict[str, tuple[str, str]] = {}
        for column, what, key in uses:
            other, first = taken.setdefault(column, (what, key))
            if other != what:
                raise UserError(
                    f"{key}: column {column!r} is both {other} ({first}) and {what}; "
                    "a column has one type"
                )
        labelled = [label.column for label in self.labels.values()]
        raw = [(name, "a column") for name in dict.fromkeys([*taken, *labelled, *self.show])]
        for history, declared in self.histories.items():
            for column in dict.fromkeys(self.column(name) for name in declared.features):
                raw.append((f"{history}_{column}", "a column of a history"))
        _check_unique(raw)

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
    def learned_from(self) -> str:
        """Which of `outputs` vocabularies, normalisation and statistics are learned from."""
        return TRAIN_EVENTS if self.examples == "sequences" else "train"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The splits' examples, and beside sequences all training events, without histories."""
        return tuple(dict.fromkeys((*self.given_splits, self.learned_from)))


def read(path: str) -> Declaration:
    """Reads and checks a declaration.

    Raises:
        UserError: the first thing that is wrong, and what would be right.
    """
    declaration = Declaration.load(path)
    declaration.check(path)
    return declaration


def _check_unique(names: list[tuple[str, str]]) -> None:
    """Checks (name, what it names) pairs."""
    taken: dict[str, str] = {}
    for name, what in names:
        if name in taken:
            raise UserError(f"the name {name!r} is both {taken[name]} and {what}; rename one")
        taken[name] = what


def _patterns(paths: Paths | None) -> list[str]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, str) else list(paths)
