"""A first declaration, from a look at the data."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.blocks import Source
from pipeline.checks import check
from pipeline.declaration import Declaration
from pipeline.events import numbers_of
from pipeline.profile import UNITS, Profile
from pipeline.quotes import PlainQuoteError
from pipeline.sources import columns_of, head
from tfrec.strict import UserError

ROWS = 100_000  # looked at
FEW = 20  # values up to here are categories, numbers or not
RARE = 1_000  # categories of more values than this leave out those that come once
ALIKE = 0.98  # share of users (items) with one value in a column that describes them
CROWDED = 0.5  # distinct values per row, user or item of a text that is no category
SHORT = 60  # letters of a name
PAST = ("before", "past", "seen", "earlier", "history")  # names of the history, the first free one
_USER = r"user|customer|client|member|visitor|account|shopper|reader|viewer|listener|session"
_ITEM = r"item|product|movie|film|article|song|track|book|video|sku|asin|listing|poi|news|game"
_TIME = r"time|date|(^|[_ .-])(ts|at)$|^when$"
_VALUE = r"[-+]?\d[-+\d.,eE:/ TZ]*|\\N"  # a number or a time, which name no column
_MISSING = {r"\N", "?", "-", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"}
_LABEL = r"label|click|bought|buy|purchase|order|like|rating|stars|score|target|convert|watched"


def draft(path: str, name: str | None = None) -> str:
    """YAML of a declaration that fits what the file's first rows look like.

    Args:
        path: file or glob of CSV, Parquet or TFRecords, known by the name's ending.
        name: of the data set; the file's unless given.

    Raises:
        UserError: no such file, an ending that says nothing, or no column to learn from.
    """
    notes: dict[str, str] = {}
    source = _source(path, notes)
    try:
        table = _table(path, source)
    except PlainQuoteError as error:
        notes["quotes"] = str(error)
        source = source.model_copy(update={"quotes": False})
        table = _table(path, source)
    if source.format == "csv":
        source, table = _without_missing(source, table, notes)
    profiles = dict(_profiles(table, notes))
    values = _declared(Path(path), source, profiles, notes)
    if not values["features"]:
        raise UserError(f"{path}: no column that a model could learn from")
    values["name"] = name or values["name"]
    check(Declaration.parse(values, path), path)
    return _text(path, table.num_rows, values, notes)


def _source(path: str, notes: dict[str, str]) -> Source:
    name = re.sub(r"\.(gz|bz2|xz)$", "", path)
    endings = {".parquet": "parquet", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord"}
    endings |= dict.fromkeys((".csv", ".tsv", ".txt"), "csv")
    ending = Path(name).suffix
    if ending not in endings:
        known = ", ".join(endings)
        raise UserError(f"{path}: the ending tells no format; known: {known}, and .gz of them")
    source = Source.parse({"format": endings[ending], "path": path}, path)
    if source.format != "csv":
        return source
    counts = {
        delimiter: len(columns_of(source.model_copy(update={"delimiter": delimiter})))
        for delimiter in (",", "\t", ";", "|")
    }
    source = source.model_copy(update={"delimiter": max(counts, key=counts.__getitem__)})
    first = columns_of(source)
    if not any(first):
        raise UserError(f"{path}: its first line is empty, and should name the columns")
    if not any(re.fullmatch(_VALUE, text.strip()) for text in first):
        return source
    notes["header"] = "the first line is a row, it seems: name the columns here"
    return source.model_copy(update={"header": [f"column_{n + 1}" for n in range(len(first))]})


def _table(path: str, source: Source) -> pa.Table:
    """The first rows of all files, whose columns may differ in the size of their numbers."""
    batches = [batch for _, _, batch in head(source, columns_of(source), ROWS)]
    tables = [pa.Table.from_batches([batch]) for batch in batches if batch.num_rows]
    if not tables:
        raise UserError(f"{path}: has no rows")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{path}: a column has several types ({error})") from None


def _without_missing(
    source: Source, table: pa.Table, notes: dict[str, str]
) -> tuple[Source, pa.Table]:
    """Source and rows where what stands for no value is declared: it is all that is no number."""
    found = set()
    for column in table.columns:
        texts = pc.utf8_trim_whitespace(column.combine_chunks())
        marks = set(pc.unique(texts).to_pylist()) & _MISSING
        rest = pc.filter(texts, pc.invert(pc.is_in(texts, pa.array(_MISSING))))
        if marks and len(rest) and not any(numbers_of(rest)[1].to_pylist()):
            found |= marks
    if not found:
        return source, table
    missing = sorted(found)
    notes["missing"] = "these texts stand among numbers, and are taken for no value"
    source = source.model_copy(update={"missing": missing})
    return source, _table(source.patterns[0], source)


def _profiles(table: pa.Table, notes: dict[str, str]) -> Iterator[tuple[str, Profile]]:
    """Profiles of the columns that can be read; of the others there is a note."""
    for index, name in enumerate(table.column_names):
        column = table.column(index)
        if not name:
            notes[f"column {index + 1}"] = "left out: has no name"
            continue
        try:
            yield name, Profile.of(name, column)
        except pa.ArrowException:
            notes[name] = f"left out: type {column.type}"


def _names(columns: Iterable[str]) -> dict[str, str]:
    """Names of features and labels by raw column, which may be called anything."""
    names: dict[str, str] = {}
    for index, column in enumerate(columns, start=1):
        name = column
        if not re.fullmatch(rf"\w[\w.-]{{0,{SHORT}}}", column, re.ASCII):
            plain = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode()
            name = re.sub(r"[^\w.-]+", "_", plain)[:SHORT].strip("_.-") or f"column_{index}"
        others = (f"{name}_{number}" for number in itertools.count(2))
        taken = set(names.values())
        names[column] = next(free for free in itertools.chain([name], others) if free not in taken)
    return names


def _declared(
    path: Path, source: Source, profiles: dict[str, Profile], notes: dict[str, str]
) -> dict[str, Any]:
    """The values of the declaration; what a person should know of a column goes into `notes`."""
    user, item = (_key(profiles, pattern) for pattern in (_USER, _ITEM))
    times = [p for p in profiles.values() if p.times and not p.missing]
    time = next((p.name for p in times if _named(p.name, _TIME)), times[0].name if times else None)
    names = _names(profiles)
    labelled = {p.name: label for p in profiles.values() if (label := _label(p))}
    values: dict[str, Any] = {"name": path.name.split(".")[0]}
    values["source"] = source.model_dump(exclude_defaults=True)
    keys = {"user": user, "item": item, "time": time}
    values |= {key: name for key, name in keys.items() if name}
    features: dict[str, Any] = {}
    shown = []
    for name, profile in profiles.items():
        if name in labelled or name == time:
            continue
        role = _role(profile, profiles, user, item)
        whose = profiles.get(str({"user": user, "item": item}.get(role)))
        key = name in (user, item)
        unit = None if key else profile.unit
        if unit and (unit == "milliseconds" or _named(name, _TIME)):  # finer ones are ids, too
            many = f"{UNITS[unit]:,}"
            notes[name] = f"{unit} since 1970? `time` wants seconds: divide it by {many}"
        elif not profile.counts:
            notes[name] = "left out: empty"
        elif len(profile.counts) == 1:
            notes[name] = "left out: one value only"
        elif _numbers_rows(profile):
            notes[name] = "left out: the number of the row"
        elif not key and _is_text(profile, whose):
            notes[name] = "left out: nearly every row has a value of its own"
            if whose:
                notes[name] = f"left out: nearly every {role} has a value of its own"
            if whose and role == "item":
                shown.append(name)
                notes[name] = "only kept to be shown: nearly every item has a value of its own"
        else:
            column = {"column": name} if names[name] != name else {}
            features[names[name]] = {**column, **_feature(profile, role, key)}
    values["features"] = features
    if labelled:
        values["labels"] = {names[name]: label for name, label in labelled.items()}
    if user and item and time:
        first = names[item]
        history = [first, *(n for n, f in features.items() if n != first and _repeats(f))]
        where = next(iter(values.get("labels", {})), None)
        taken = [*profiles, *names.values()]
        called = next(n for n in PAST if not any(t.startswith(f"{n}_") or t == n for t in taken))
        values["histories"] = {
            called: {"length": 50, "features": history, **({"where": where} if where else {})}
        }
    values["split"] = {"kind": "user_time" if user and time else "time" if time else "random"}
    if shown:
        values["show"] = shown
    return values


def _named(name: str, pattern: str) -> bool:
    return re.search(pattern, name, re.IGNORECASE) is not None


def _key(profiles: dict[str, Profile], pattern: str) -> str | None:
    """The column that tells users (or items): one named so, whose values come again; ids first."""
    found = [
        p
        for p in profiles.values()
        if _named(p.name, pattern)
        and not p.missing
        and not p.separator
        and len(p.counts) > FEW
        and len(p.counts) < len(p.texts)
    ]
    ids = [p for p in found if re.search(r"id$", p.name, re.IGNORECASE)]
    return (ids or found)[0].name if found else None


def _label(profile: Profile) -> dict[str, Any] | None:
    numbers = profile.numbers
    if not _named(profile.name, _LABEL):
        return None
    if profile.binary:
        return {"column": profile.name}
    if numbers is None or len(profile.counts) > FEW or len(profile.counts) < 3:
        return None
    steps = np.unique(numbers)
    middle = min(steps[1:], key=lambda step: abs(float((numbers >= step).mean()) - 0.5))
    return {"column": profile.name, "at_least": float(middle)}


def _role(
    profile: Profile, profiles: dict[str, Profile], user: str | None, item: str | None
) -> str:
    """Whom a column describes: users or items have the same value in all their rows."""
    for role, key in (("user", user), ("item", item)):
        if profile.name == key:
            return role
    for role, key in (("user", user), ("item", item)):
        if key:
            values: defaultdict[str, set[str]] = defaultdict(set)
            for who, text in zip(profiles[key].texts, profile.texts, strict=True):
                values[who].add(text)
            if np.mean([len(found) == 1 for found in values.values()]) >= ALIKE:
                return role
    return "context"


def _numbers_rows(profile: Profile) -> bool:
    numbers = profile.numbers
    return numbers is not None and len(numbers) > FEW and bool((np.diff(numbers) == 1).all())


def _is_text(profile: Profile, whose: Profile | None) -> bool:
    """Whether it is neither a number nor a category nor a list of them.

    Args:
        profile: of the column.
        whose: the users' or items' column, if it describes them.
    """
    if profile.numbers is not None or profile.separator:
        return False
    most = len(whose.counts) if whose else profile.counts.total()
    return len(profile.counts) > max(FEW, CROWDED * most)


def _feature(profile: Profile, role: str, key: bool) -> dict[str, Any]:
    number = profile.numbers
    is_id = key or (
        role in ("user", "item") and re.search(r"(id|code)$", profile.name, re.IGNORECASE)
    )
    if number is not None and len(profile.counts) > FEW and not is_id:
        skewed = number.min() >= 0 and number.max() > 100 * max(float(np.median(number)), 1.0)
        return {"kind": "number", "role": role, **({"normalise": "log"} if skewed else {})}
    feature: dict[str, Any] = {"kind": "category", "role": role}
    if profile.separator:
        feature["separator"] = profile.separator
    if len(profile.counts) > RARE and not profile.separator:
        feature |= {"min_count": 2}
    return feature


def _repeats(feature: dict[str, Any]) -> bool:
    """Whether a history keeps it of each event."""
    return feature["role"] == "item" and feature["kind"] == "category"


def _text(path: str, rows: int, values: dict[str, Any], notes: dict[str, str]) -> str:
    missing = [key for key in ("user", "item", "time", "labels") if key not in values]
    lines = [
        f"# From a look at the first {rows:,} rows of {path}. Correct it, then:",
        "#     python -m pipeline check --config THIS_FILE",
        *(f"# No column looks like {key}: name it if there is one." for key in missing),
        *(f"# {' '.join(name.split())}: {note}" for name, note in notes.items()),
    ]
    blocks = []
    for key, value in values.items():
        if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            blocks.append(f"{key}:")
            blocks += [f"  {_flow(n)}: {_flow(block)}" for n, block in value.items()]
        else:
            blocks.append(f"{key}: {_flow(value)}")
    return "\n".join([*lines, *blocks]) + "\n"


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
