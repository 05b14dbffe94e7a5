"""The blocks of a declaration: source, features, labels, histories, split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from tfrec.aims import AIMED, aim
from tfrec.features import Role
from tfrec.figures import REPLICATES
from tfrec.strict import Strict, nearest

Paths = str | list[str]
Task = Literal["binary", "regression"]
LARGEST = 3.4028235e38  # float32
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Ids = Annotated[int, Field(ge=1, lt=2**31)]  # of a table, or rows that decide on one
Length = Annotated[int, Field(ge=1, le=1_000_000)]  # of a list in an example


class Source(Strict):
    """Where the events are.

    Attributes:
        format: `csv`, `parquet`, `tfrecord` (of tf.Example), or the name of a
            built-in source: `movielens`.
        path: files or globs of one source, to be split.
        train, validation, test: files or globs, where the split is given.
        delimiter: of CSV fields.
        header: of CSV, names of the columns where the files have no line of them.
        missing: of CSV, texts that stand for no value, beside the empty one.
        quotes: of CSV, whether values may be in double quotes; otherwise these are text.
    """

    format: Literal["csv", "parquet", "tfrecord", "movielens"]
    path: Paths | None = None
    train: Paths | None = None
    validation: Paths | None = None
    test: Paths | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    header: Annotated[list[str], Field(min_length=1)] | None = None
    missing: list[str] = []
    quotes: bool = True

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
        for key in ("delimiter", "header", "missing", "quotes"):
            if key in self.model_fields_set and self.format != "csv":
                raise ValueError(f"`{key}` belongs to csv, not to {self.format}")
        return self


class FeatureDeclaration(Strict):
    """One feature of an example.

    Attributes:
        kind: `category` (ids by a vocabulary of the training split, or by hash), `text` (its
            words, in lower case, as a category with many values), `number` (float32, normalised),
            `buckets` (a number cut at quantiles of the training split),
            `hour` (of the day) or `weekday` (from Monday) of the data set's time, in UTC.
        role: whom it describes: `user`, `item` or `context`.
        column: raw column; the feature's own name unless given.
        separator: between the values of a category that may have many, such as `|`.
        length: most values kept, the first ones, of a category that may have many; the longest
            seen in the training split unless given.
        min_count: events a value needs to get an id of its own.
        top_k: most values that get an id of their own.
        oov_buckets: ids shared, by hash, by all other values.
        hash_buckets: ids by hash into that many buckets, with no vocabulary.
        vocabulary: name of the vocabulary, to share one between features; the feature's own name
            unless given.
        normalise: of a number: `z_score`, `min_max`, `log` (log(1 + x)), `none`, or `is_missing`: 1
            where the value is missing, else 0.
        buckets: of `buckets`: how many.
        fill: value that stands in for a missing one. Unless given, a missing category or bucket
            is padding (a zero vector), and a missing number is 0 after its normalisation.
    """

    kind: Literal["category", "text", "number", "buckets", "hour", "weekday"]
    role: Role
    column: str | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    length: Length | None = None
    min_count: Ids = 1
    top_k: Ids | None = None
    oov_buckets: Ids = 1
    hash_buckets: Ids | None = None
    vocabulary: str | None = None
    normalise: Literal["z_score", "min_max", "log", "none", "is_missing"] = "z_score"
    buckets: Annotated[int, Field(ge=2, le=10_000)] | None = None
    fill: str | float | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> FeatureDeclaration:
        of_ids = ("length", "min_count", "top_k", "oov_buckets", "hash_buckets", "vocabulary")
        belongs: dict[str, tuple[str, ...]] = {
            **dict.fromkeys(of_ids, ("category", "text")),
            "separator": ("category",),
            "normalise": ("number",),
            "buckets": ("buckets",),
        }
        for key in sorted(self.model_fields_set & belongs.keys()):
            if self.kind not in belongs[key]:
                kinds = " or ".join(belongs[key])
                raise ValueError(f"`{key}` belongs to kind {kinds}, not {self.kind}")
        if self.kind == "buckets" and self.buckets is None:
            raise ValueError("kind buckets needs `buckets`: how many")
        if self.length and not self.many:
            raise ValueError("`length` needs a `separator`: it is for categories with many values")
        if self.hash_buckets and self.model_fields_set & {"min_count", "top_k", "oov_buckets"}:
            raise ValueError(
                "`hash_buckets` has no vocabulary, so no min_count, top_k, oov_buckets"
            )
        if self.fill is not None and (self.clock or self.normalise == "is_missing"):
            raise ValueError("`fill` leaves nothing missing: it does not belong here")
        if isinstance(self.fill, str) and not self.tokens:
            raise ValueError(f"`fill` of kind {self.kind} is a number")
        if isinstance(self.fill, float) and abs(self.fill) > LARGEST:
            raise ValueError(f"`fill` is beyond a float32's {LARGEST:g}")
        return self

    @property
    def tokens(self) -> bool:
        """Whether its values are texts that have ids."""
        return self.kind in ("category", "text")

    @property
    def many(self) -> bool:
        """Whether an event may have many values of it."""
        return self.separator is not None or self.kind == "text"

    @property
    def clock(self) -> int | None:
        """How many ids a part of the time has; None for other kinds."""
        return {"hour": 24, "weekday": 7}.get(self.kind)

    @property
    def own_table(self) -> bool:
        """Whether its ids are its own, and no vocabulary's."""
        return not self.tokens and self.kind != "number"


class LabelDeclaration(Strict):
    """One task.

    Attributes:
        column: raw column with the value. An empty value is a missing label.
        at_least: makes the label 1 where the column is at least this, else 0.
        equals: makes the label 1 where the column is this text, else 0.
        task: `binary` (0 or 1) or `regression`.
        weight: of its loss among those of other tasks.
    """

    column: str
    at_least: float | None = None
    equals: str | None = None
    task: Task = "binary"
    weight: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _one_test(self) -> LabelDeclaration:
        if self.equals is not None and (self.at_least is not None or self.task != "binary"):
            raise ValueError("`equals` makes a binary label by itself, without at_least")
        return self


class HistoryDeclaration(Strict):
    """Past events of the same user, strictly before the event in time.

    Where the data set has no time: training events of the same user with other items, in an order
    by hash.

    Attributes:
        length: most events kept; the newest stay.
        features: declared features that are kept of each event, the item's id first.
        where: name of a binary label that must be 1.
        gaps: keeps also how long before the example each event was, as a category
            `<history>_gap` of powers of two of seconds.
    """

    length: Length
    features: Annotated[list[str], Field(min_length=1)]
    where: str | None = None
    gaps: bool = False


class NegativesDeclaration(Strict):
    """Items that a user does not have, for data of positive events.

    Every example of an event becomes one with label 1, and others with label 0: the same user,
    context and history, and another item, as its newest training event describes it. Items without
    a training event are not drawn.

    Attributes:
        per_positive: how many for an event.
        by: `uniform`, or `popularity`: in proportion to the training events of an item.
        label: name of the label.
        seed: of the draws.
    """

    per_positive: Annotated[int, Field(ge=1, le=10_000)]
    by: Literal["uniform", "popularity"] = "uniform"
    label: str = "positive"
    seed: Seed = 0


class CrossDeclaration(Strict):
    """A hashed cross-product transformation, for the linear parts.

    Attributes:
        features: two or more categories or buckets; `<history>_<feature>` crosses with every
            event of a history.
        buckets: ids by hash.
    """

    features: Annotated[list[str], Field(min_length=2)]
    buckets: Ids

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
    seed: Seed = 0

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


class ValidationDeclaration(Strict):
    """What the statistics of a data set are held against.

    Attributes:
        schema_file: that was inferred once and is kept; inferred at the first run unless given.
        previous: output of another run, such as yesterday's, whose statistics these are not to
            drift from.
        serving: CSV, Parquet or TFRecord files of requests, in the source's format, that the
            training split is not to be skewed against.
        on_anomaly: `fail` stops the run at an anomaly that is an error, `warn` goes on.
    """

    schema_file: str | None = None
    previous: str | None = None
    serving: Paths | None = None
    on_anomaly: Literal["fail", "warn"] = "fail"


class EvaluateDeclaration(Strict):
    """How the step `evaluate` measures.

    Attributes:
        slices: parts of the last split to measure by themselves, as `tfrec.evaluate --slice` takes
            them.
        replicates: resamplings of the users for the intervals; 0 for none.
    """

    slices: list[str] = []
    replicates: Annotated[int, Field(ge=0, le=100_000)] = REPLICATES


class BlessDeclaration(Strict):
    """One rule that a model has to keep on the last split to be pushed.

    Attributes:
        metric: such as `auc`, `log_loss`, `ndcg@10`.
        task: label whose metric it is; the first one unless given.
        slice: part of the split that it is of, such as `user_events=0`, or a feature for every part
            by it; the whole unless given.
        at_least, at_most: thresholds of the figure.
        worse_by: how much worse than the model that is served it may be; None does not compare.
    """

    metric: str
    task: str | None = None
    slice: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    worse_by: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> BlessDeclaration:
        if {self.at_least, self.at_most, self.worse_by} == {None}:
            raise ValueError("needs `at_least`, `at_most` or `worse_by`")
        if self.worse_by is not None and aim(self.metric) is None:
            raise ValueError(
                f"`worse_by` needs a metric that can be worse, not {self.metric!r}"
                f"{nearest(self.metric, AIMED)}"
            )
        return self


def _patterns(paths: Paths | None) -> list[str]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, str) else list(paths)
