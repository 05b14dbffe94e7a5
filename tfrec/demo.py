"""What the server's page shows of a model that recommends: users to pick, and titles of items.

It is a file of the export, `assets.extra/demo.json`, so that the page needs no data set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrec import catalogue
from tfrec.features import Column, Features
from tfrec.parquet import column_types, tables
from tfrec.recommending import item_columns, user_specs
from tfrec.servable import samples
from tfrec.serving_inputs import columns_of_examples, request_name

if TYPE_CHECKING:
    from tfrec.runs import Run

FILE = "demo.json"
USERS = 50
ITEMS = 10_000
TITLE = 200  # characters

Array = np.ndarray[Any, Any]


def write(extra: Path, runs: Sequence[Run], keys: Array) -> None:
    """Writes the file; docs/serving.md tells its form.

    Args:
        extra: the export's directory `assets.extra`.
        runs: whose columns `recommend` takes; the last one's data set describes the items.
        keys: (n,) items as bytes, in order of importance: the first 10,000 are kept, and those in
            the histories of the users that are.

    Raises:
        UserError: the data set's items cannot be read.
    """
    users, histories = _users(runs), _histories(runs)
    met = [item for row in users.values() for h in histories for item in row[h["items"]] if item]
    kept = np.array(list(dict.fromkeys([*(key.decode() for key in keys[:ITEMS]), *met])), object)
    features, data = runs[-1].features, runs[-1].config.data
    raw = catalogue.raw_columns(data, features, kept)
    content = {
        "users": [{"name": name, "columns": row} for name, row in users.items()],
        "histories": histories,
        "items": {
            "keys": kept.tolist(),
            "titles": _titles(data, features, kept),
            "columns": {
                request_name(column): _plain(raw[column.name]) for column in item_columns(features)
            },
        },
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    (extra / FILE).write_text(text, encoding="utf-8")


def _users(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Columns of `recommend`, by what the user is called, of a sample of users."""
    *others, last = runs
    users = _sample(last)
    known = user_specs(last.features).keys()
    for run in others:
        if user_specs(run.features).keys() <= known:
            continue
        # Of another data set, whose sample tells of a user only if it has the user's key.
        more = _sample(run) if _names(run.features) and _names(last.features) else {}
        users = {name: {**more[name], **row} for name, row in users.items() if name in more}
    return dict(list(users.items())[:USERS])


def _sample(run: Run) -> dict[str, dict[str, Any]]:
    """Requests of a run's data set by user: what tells most of a user comes first."""
    features = run.features
    examples = list(dict.fromkeys(samples(run, 100)))
    values = columns_of_examples(features, examples)
    wanted = user_specs(features)
    rows: dict[str, dict[str, Any]] = {}
    for index in range(len(examples)):
        row: dict[str, Any] = {}
        events: dict[str, int] = {}  # by history; its first column tells them from padding
        for column in features.columns:
            value = values[request_name(column)][index]
            if column.history:
                count = events.setdefault(column.history, int(np.sum(value != b"")))
                value = value[: max(1, count)]  # one of padding, where there are none
            if request_name(column) in wanted:
                row[request_name(column)] = _plain(value)
        key = _names(features)
        rows.setdefault(row[request_name(key)] if key else f"example {index + 1}", row)
    return rows


def _names(features: Features) -> Column | None:
    """The column that tells users apart, if requests have it."""
    return next((c for c in features.columns if c.name == features.user_key), None)


def _histories(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Histories of items: name, column, and what `explain` calls the weights."""
    found = {}
    for features in (run.features for run in runs):
        names = {column.name: request_name(column) for column in features.columns}
        for history in features.histories:
            mask = history.mask_feature
            if mask.mirrors == features.item_id and mask.column:
                found[history.name] = {
                    "name": history.name,
                    "items": names[mask.column],
                    "attention": f"attention_{history.name}",
                }
    return list(found.values())


def _titles(data: str | Path, features: Features, keys: Array) -> list[str | None]:
    """The first text of the item catalogue that models do not read; None where there is none."""
    read = {features.item_key, *(column.name for column in features.columns)}
    types = column_types(data, "items")
    title = next(
        (name for name, kind in types.items() if kind == "string" and name not in read), None
    )
    if title is None:
        return [None] * len(keys)
    places = {key: index for index, key in enumerate(keys)}
    titles: list[str | None] = [None] * len(keys)
    for part in tables(data, "items", [str(features.item_key), title]):
        for key, text in zip(*(column.to_pylist() for column in part.columns), strict=True):
            if key in places and text:
                titles[places[key]] = text[:TITLE]
    return titles


def _plain(value: Any) -> Any:
    """As JSON has it: texts, and null for NaN, which JSON has no word for."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.float32):
        return _plain(float(str(value)))  # 0.1, not 0.10000000149011612
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value
