"""What a data set offers to a model: the contract between `pipeline` and `tfrec`.

Plain dataclasses, no TensorFlow. `pipeline` writes them to `features.json` in the data set
directory; every model is built from them.

Ids are the same everywhere: 0 is padding, 1…n the vocabulary by descending count in the training
split, then the out-of-vocabulary (OOV) buckets.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tfrec.strict import UserError, nearest

FORMAT = 3
FILE_NAME = "features.json"
SPLITS = ("train", "validation", "test")

# Keys of a stored example that are no model input. Features cannot have these names.
IDS = "fields:ids"
NUMBERS = "fields:numbers"
LABEL_PREFIX = "label:"
WEIGHT = "weight:"
USER_KEY = "key:user"
ITEM_KEY = "key:item"
TIME_KEY = "key:time"

ENDS_OF_LINES = r"[\r\n]+"  # stand for a space in texts: a vocabulary has a line for each value
NOW = "now:"
NO_GAP = 1

Role = Literal["user", "item", "context"]


@dataclass(frozen=True)
class Table:
    """An id space, and so the rows of every embedding table over it.

    Attributes:
        name: shared by all features that look up the same table.
        vocabulary: number of known values (for hashes and buckets: how many there are).
        oov: number of out-of-vocabulary buckets behind them.
    """

    name: str
    vocabulary: int
    oov: int = 0

    @property
    def size(self) -> int:
        """Rows of the table: padding, vocabulary, OOV buckets."""
        return 1 + self.vocabulary + self.oov

    @property
    def learned(self) -> bool:
        """Whether ids 1…n stand for known values; hashes and buckets have no OOV buckets."""
        return self.oov > 0


@dataclass(frozen=True)
class Feature:
    """One field of an example.

    Attributes:
        name: key of the model's input; a tensor of shape (batch,), or (batch, length) when the
            feature has many values. In a history, (batch, history length[, length]).
        kind: `category` (int64 ids of `table`) or `number` (float32).
        role: whom it describes.
        table: name of its table; None for a number.
        length: most values an example may have; None for exactly one.
        mirrors: in a history, the feature of the candidate item that this one repeats. That of a
            gap, the time since the event, is `NOW` and its own name, which is no input: the
            candidate's id is always `NO_GAP`.
        column: raw input of the transform that it is made of; None for a cross.
        parts: of a cross, the features that it is made of, those of histories too.
    """

    name: str
    kind: Literal["category", "number"]
    role: Role
    table: str | None = None
    length: int | None = None
    mirrors: str | None = None
    column: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def is_gap(self) -> bool:
        """Whether it tells the time since an event of a history."""
        return (self.mirrors or "").startswith(NOW)


@dataclass(frozen=True)
class History:
    """Past events of the user, oldest first, padded with 0 on the right.

    Where the data set has no time: other training events of the user, in an order by hash.

    Attributes:
        name: of the history.
        length: most events kept; the newest stay.
        features: what is known of each event. The first one tells real events from padding
            (its id is 0 exactly at padding), so it is a category with one value.
    """

    name: str
    length: int
    features: tuple[Feature, ...]

    @property
    def mask_feature(self) -> Feature:
        """The feature whose id is 0 exactly at padded positions."""
        return self.features[0]


@dataclass(frozen=True)
class Label:
    """A task. Its value is float32; NaN where it is missing.

    Attributes:
        name: of the label.
        task: its kind.
        after: the label without which this one is 0, so that it is not missing where that is 0.
        weight: of its loss among those of other tasks, unless a run gives them weights.
    """

    name: str
    task: Literal["binary", "regression"] = "binary"
    after: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Column:
    """A raw input of the transform, as a server receives it.

    Attributes:
        name: raw column, or `<history>_<column>` for a history's.
        dtype: `string`, `int64` or `float32`.
        history: name of the history whose events it lists; None for one value per example.
        required: whether a request must carry it. A missing string is "", a missing number NaN.
    """

    name: str
    dtype: Literal["string", "int64", "float32"]
    history: str | None = None
    required: bool = True


@dataclass(frozen=True)
class Features:
    """Everything that models need to know of a data set.

    Attributes:
        name: of the data set.
        features: fields of the example (not of its histories).
        crosses: hashed cross-product transformations, for linear parts.
        histories: past events.
        tables: id spaces.
        labels: tasks, the main one first; none where all events are positive ones.
        columns: raw inputs of the transform.
        weighted: whether examples carry a weight.
        user_key, item_key, time_key: raw columns that identify the user and the item and order
            the events, where there are any.
        user_id, item_id: categories with one value, of role user and item, that are made of
            `user_key` and `item_key`, where there are any.
        sequences: whether the training split has one example per user: the newest, so that its
            history and its item are the user's sequence.
        counts: examples per split.
        fingerprint: of everything that ids and numbers mean; data sets with the same one can
            stand in for each other.
    """

    name: str
    features: tuple[Feature, ...]
    tables: tuple[Table, ...]
    labels: tuple[Label, ...]
    columns: tuple[Column, ...] = ()
    crosses: tuple[Feature, ...] = ()
    histories: tuple[History, ...] = ()
    weighted: bool = False
    user_key: str | None = None
    item_key: str | None = None
    time_key: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    sequences: bool = False
    counts: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)
    fingerprint: str = ""

    @property
    def categories(self) -> tuple[Feature, ...]:
        """Fields with ids."""
        return tuple(f for f in self.features if f.kind == "category")

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """Fields with a number."""
        return tuple(f for f in self.features if f.kind == "number")

    @property
    def packed(self) -> dict[str, tuple[Feature, ...]]:
        """Fields with exactly one value, by the key under which an example holds them in a row.

        One key costs as much to parse as one value, so that a key for each would make reading
        several times slower.
        """
        keys = {IDS: self.categories, NUMBERS: self.numbers}
        single = {key: tuple(f for f in fields if not f.length) for key, fields in keys.items()}
        return {key: fields for key, fields in single.items() if fields}

    @property
    def candidates(self) -> tuple[Feature, ...]:
        """Categories of the candidate item that a history repeats."""
        mirrored = {f.mirrors for history in self.histories for f in history.features}
        return tuple(f for f in self.categories if f.name in mirrored)

    def of_role(self, role: Role) -> tuple[Feature, ...]:
        """Fields that describe the user, the item or the context."""
        return tuple(f for f in self.features if f.role == role)

    def feature(self, name: str) -> Feature:
        """Field or cross of that name.

        Raises:
            UserError: there is none; the nearest name is suggested.
        """
        return _find(name, (*self.features, *self.crosses), "feature")

    def table(self, name: str | None) -> Table:
        """Table of that name.

        Raises:
            UserError: there is none; the nearest name is suggested.
        """
        return _find(name or "", self.tables, "table")

    def with_labels(self, names: Iterable[str]) -> Features:
        """The same features for the named tasks only, in the order given.

        Raises:
            UserError: a label that the data set does not have.
        """
        return dataclasses.replace(
            self, labels=tuple(_find(name, self.labels, "label") for name in names)
        )

    def check_same_ids(self, other: Features, where: str) -> None:
        """Checks that another data set gives ids and numbers the same meaning.

        Args:
            other: the data set's features as they are now.
            where: the data set, for the message.

        Raises:
            UserError: it was made again from other events or another declaration.
        """
        if self.fingerprint != other.fingerprint:
            raise UserError(
                f"data set {where} is not the one of the training: its vocabularies or its "
                "normalisation differ; train again, or bring the old data set back"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the inverse of `from_dict`."""
        values = dataclasses.asdict(self)
        for label, values_of in zip(self.labels, values["labels"], strict=True):
            if label.after is None:  # as in all data sets; runs may know more
                del values_of["after"]
            if label.weight == 1:
                del values_of["weight"]
        return {"format": FORMAT, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Features:
        """Rebuilds the features from `to_dict`.

        Raises:
            UserError: written by a version with another format.
        """
        values = dict(values)
        written = values.pop("format", None)
        if written != FORMAT:
            raise UserError(
                f"{FILE_NAME} has format {written}, this version reads {FORMAT}; "
                "make the data set again with `python -m pipeline run`"
            )

        def features(items: Iterable[dict[str, Any]]) -> tuple[Feature, ...]:
            return tuple(Feature(**{**item, "parts": tuple(item["parts"])}) for item in items)

        values["features"] = features(values["features"])
        values["crosses"] = features(values["crosses"])
        values["histories"] = tuple(
            History(**{**item, "features": features(item["features"])})
            for item in values["histories"]
        )
        values["tables"] = tuple(Table(**item) for item in values["tables"])
        values["labels"] = tuple(Label(**item) for item in values["labels"])
        values["columns"] = tuple(Column(**item) for item in values["columns"])
        return cls(**values)

    def save(self, directory: str | Path) -> None:
        """Writes `features.json`."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        (Path(directory) / FILE_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Features:
        """Reads the `features.json` of a data set or run directory.

        Raises:
            UserError: the directory holds none, or one that cannot be read.
        """
        path = Path(directory) / FILE_NAME
        if not path.is_file():
            what = "is no data set" if Path(directory).is_dir() else "is not there"
            made = Path(directory) / "transform"  # by the pipeline's step of that name
            if (made / FILE_NAME).is_file():
                raise UserError(f"{directory} {what}: the one that the pipeline has made is {made}")
            raise UserError(
                f"{directory} {what}: it has no {FILE_NAME}; "
                "make one with `python -m pipeline run --config … --output …`"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(values)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}); make the data set again") from error


def _find(name: str, items: Iterable[Any], what: str) -> Any:
    by_name = {item.name: item for item in items}
    if name not in by_name:
        raise UserError(f"the data set has no {what} {name!r}{nearest(name, by_name)}")
    return by_name[name]
