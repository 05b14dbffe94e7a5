"""The description of a data set that models are built from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pipeline.declaration import Declaration
from pipeline.events import Layout
from tfrec.features import (
    IDS,
    NOW,
    NUMBERS,
    SPLITS,
    Column,
    Feature,
    Features,
    History,
    Label,
    Role,
    Table,
)

GAPS = 32  # ids of the time since an event; the last one begins at 2^30 seconds, 34 years


def raw_columns(declaration: Declaration, optional: Collection[str] = ()) -> tuple[Column, ...]:
    """Raw inputs of the transform.

    Args:
        declaration: of the data set.
        optional: columns that a request may leave out.
    """
    layout = Layout.of(declaration)
    dtypes: dict[str, Any] = {"string": "string", "number": "float32", "time": "int64"}
    columns = []
    for name in layout.inputs:
        required = name not in optional
        columns.append(Column(name, dtypes[layout.types[name]], None, required))
    for history in declaration.histories:
        for name in declaration.history_columns(history):
            dtype = dtypes[layout.types[name]]
            columns.append(Column(f"{history}_{name}", dtype, history, required=False))
    return tuple(columns)


def catalogue_columns(declaration: Declaration) -> list[str]:
    """Raw columns of the item catalogue, beside the item's own."""
    columns = [
        declaration.column(name)
        for name, feature in declaration.features.items()
        if feature.role == "item"
    ]
    return [c for c in dict.fromkeys([*columns, *declaration.show]) if c != declaration.item]


def describe(
    declaration: Declaration,
    tables: list[Table],
    lengths: dict[str, int],
    counts: dict[str, int],
    missing: Collection[str],
) -> Features:
    """The description that models are built from.

    Args:
        declaration: of the data set.
        tables: of ids.
        lengths: most values in one list, by feature.
        counts: of examples, by split.
        missing: columns without a value in some example that was learned from; a request has to
            have the others.
    """

    def length(name: str) -> int | None:
        if not declaration.features[name].many:
            return None
        return declaration.features[name].length or max(lengths[name], 1)

    tables_of = tables_of_fields(declaration)
    fields = {}
    for name, feature in declaration.features.items():
        fields[name] = Feature(
            name,
            "number" if feature.kind == "number" else "category",
            feature.role,
            tables_of.get(name),
            length(name),
            column=declaration.column(name),
        )

    def id_of(role: Role, key: str | None) -> str | None:
        wanted = (role, "category", None, key)
        ids = (f.name for f in fields.values() if (f.role, f.kind, f.length, f.column) == wanted)
        return next(ids, None)

    histories = []
    for history, declared in declaration.histories.items():
        steps = [
            Feature(
                f"{history}_{name}",
                fields[name].kind,
                "user",
                fields[name].table,
                fields[name].length,
                mirrors=name,
                column=f"{history}_{fields[name].column}",
            )
            for name in declared.features
        ]
        if gap := declaration.gap(history):
            column = f"{history}_{declaration.time}"
            steps.append(Feature(gap, "category", "user", gap, mirrors=NOW + gap, column=column))
        histories.append(History(history, declared.length, tuple(steps)))
    crosses = tuple(
        Feature(
            c.name,
            "category",
            "context",
            c.name,
            max(lengths[c.name], 1),
            parts=tuple(c.features),
        )
        for c in declaration.crosses
    )
    weights = {name: label.weight for name, label in declaration.labels.items()}
    return Features(
        name=declaration.name,
        features=tuple(fields.values()),
        tables=tuple(tables),
        labels=tuple(
            Label(name, task, weight=weights.get(name, 1.0))
            for name, task in declaration.tasks.items()
        ),
        columns=raw_columns(declaration, missing),
        crosses=crosses,
        histories=tuple(histories),
        weighted=declaration.weight is not None,
        user_key=declaration.user,
        item_key=declaration.item,
        time_key=declaration.time,
        user_id=id_of("user", declaration.user),
        item_id=id_of("item", declaration.item),
        sequences=declaration.examples == "sequences",
        counts={split: counts[split] for split in SPLITS if split in counts},
    )


def expected_features(declaration: Declaration) -> Features:
    """The description of a data set that is not made yet; every size in it is 1."""
    crosses = [cross.name for cross in declaration.crosses]
    gaps = filter(None, map(declaration.gap, declaration.histories))
    tables = dict.fromkeys([*tables_of_fields(declaration).values(), *gaps, *crosses])
    sizes = dict.fromkeys([*declaration.features, *crosses], 1)
    counts = dict.fromkeys(declaration.given_splits, 1)
    return describe(declaration, [Table(name, 1, 1) for name in tables], sizes, counts, ())


def packed_fields(declaration: Declaration) -> dict[str, list[str]]:
    """Names in `Features.packed`, known before the tables are."""
    packed: dict[str, list[str]] = {}
    for name, feature in declaration.features.items():
        if not feature.many:
            key = NUMBERS if feature.kind == "number" else IDS
            packed.setdefault(key, []).append(name)
    return packed


def tables_of_fields(declaration: Declaration) -> dict[str, str]:
    """Table of every field that has ids."""
    return {
        name: name if feature.own_table else declaration.vocabulary(name)
        for name, feature in declaration.features.items()
        if feature.kind != "number"
    }
