"""What the blocks of a declaration say of one another has to fit together."""

from __future__ import annotations

import re

from pipeline.blocks import FeatureDeclaration
from pipeline.declaration import Declaration
from tfrec.strict import UserError, nearest

LONGEST = 128  # letters of a name, which file systems allow 255 of and Beam adds to


def read(path: str) -> Declaration:
    """Reads and checks a declaration.

    Raises:
        UserError: the first thing that is wrong, and what would be right.
    """
    declaration = Declaration.load(path)
    check(declaration, path)
    return declaration


def check(declaration: Declaration, where: str) -> None:
    """Checks what one block says of another.

    Args:
        declaration: whose blocks by themselves are right.
        where: its file, for the message.

    Raises:
        UserError: a name that is not declared, or blocks that do not fit together.
    """
    try:
        _check_split(declaration)
        _check_serving(declaration)
        _check_histories(declaration)
        _check_examples(declaration)
        _check_negatives(declaration)
        _check_clocks(declaration)
        _check_tables(declaration)
        _check_names(declaration)
        _check_columns(declaration)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_split(declaration: Declaration) -> None:
    if declaration.split and declaration.source.given:
        raise UserError("split: the source already gives train, validation and test files")
    if not declaration.split and not declaration.source.given:
        raise UserError(
            "'split' is missing: one source has to be split, or give "
            "source.train, source.validation and source.test"
        )
    if declaration.split:
        needs: dict[str, tuple[str, ...]] = {
            "user_time": ("user", "time"),
            "leave_one_out": ("user", "time"),
            "time": ("time",),
        }
        for key in needs.get(declaration.split.kind, ()):
            if getattr(declaration, key) is None:
                raise UserError(f"split.kind {declaration.split.kind} needs {key!r}: its column")


def _check_serving(declaration: Declaration) -> None:
    if declaration.validation.serving and declaration.source.format == "movielens":
        raise UserError(
            "validation.serving: requests are read in the source's format, and the built-in "
            "movielens has no files; leave it out, or declare files as the source"
        )


def _check_histories(declaration: Declaration) -> None:
    for name, history in declaration.histories.items():
        path = f"histories.{name}"
        if not declaration.user:
            raise UserError(f"{path}: a history needs 'user': its column")
        for feature in history.features:
            if feature not in declaration.features:
                near = nearest(feature, declaration.features)
                raise UserError(f"{path}.features: no feature {feature!r}{near}")
        if history.gaps and not declaration.time:
            raise UserError(f"{path}.gaps: a gap needs 'time': its column")
        first = declaration.features[history.features[0]]
        if first.kind != "category" or first.many:
            raise UserError(
                f"{path}.features: the first one has to be the item's id, a category with one "
                f"value, not {history.features[0]!r}"
            )
        if first.fill is not None:
            raise UserError(
                f"{path}.features: {history.features[0]!r} has a `fill`; the first feature "
                "tells events from padding, so its missing value has to stay missing"
            )
        if declaration.item and declaration.column(history.features[0]) != declaration.item:
            raise UserError(
                f"{path}.features: the first one has to be the item's id, of column "
                f"{declaration.item!r}, not {history.features[0]!r}"
            )
        if history.where is not None and history.where not in declaration.labels:
            near = nearest(history.where, declaration.labels)
            raise UserError(f"{path}.where: no label {history.where!r}{near}")
        if history.where and declaration.labels[history.where].task != "binary":
            raise UserError(f"{path}.where: label {history.where!r} is not binary")


def _check_examples(declaration: Declaration) -> None:
    if declaration.examples == "events":
        return
    for key in ("user", "item", "time"):
        if getattr(declaration, key) is None:
            raise UserError(f"examples: sequences need {key!r}: its column")
    if not declaration.histories:
        raise UserError("examples: sequences need a history, of the events before the newest")


def _check_negatives(declaration: Declaration) -> None:
    if not declaration.negatives:
        return
    for key in ("user", "item"):
        if getattr(declaration, key) is None:
            raise UserError(f"negatives: need {key!r}: its column")
    if declaration.labels:
        raise UserError(
            "negatives: are for data of positive events, and `labels` tell which these are; leave "
            "one of the two out"
        )
    if declaration.examples == "sequences":
        raise UserError("negatives: models of sequences draw their own; leave one of the two out")


def _check_clocks(declaration: Declaration) -> None:
    for name, feature in declaration.features.items():
        if not feature.clock:
            continue
        if not declaration.time:
            raise UserError(f"features.{name}: kind {feature.kind} needs 'time': its column")
        if feature.column not in (None, declaration.time):
            raise UserError(
                f"features.{name}: kind {feature.kind} is of column {declaration.time!r}, the "
                f"time; leave out `column`"
            )


def _check_tables(declaration: Declaration) -> None:
    sharing: dict[str, tuple[str, FeatureDeclaration]] = {}
    keys = ("min_count", "top_k", "oov_buckets", "hash_buckets")
    for name, feature in declaration.features.items():
        if not feature.tokens:
            continue
        table = declaration.vocabulary(name)
        first_name, first = sharing.setdefault(table, (name, feature))
        for key in keys:
            if getattr(first, key) != getattr(feature, key):
                raise UserError(
                    f"features.{name}: shares vocabulary {table!r} with {first_name!r}, "
                    f"so {key} has to be the same"
                )
    for index, cross in enumerate(declaration.crosses):
        for crossed in cross.features:
            feature = declaration.features[declaration.crossed(crossed)[1]]
            if feature.kind == "number":
                raise UserError(
                    f"crosses.{index}.features: {crossed!r} is a number; "
                    "declare it with kind buckets"
                )


def _check_names(declaration: Declaration) -> None:
    features = [(name, "a feature") for name in declaration.features]
    features += [(name, "a label") for name in declaration.tasks]
    features += [(name, "a history's feature") for name, _ in declaration.history_features()]
    gaps = [(gap, "a history's gap") for h in declaration.histories if (gap := declaration.gap(h))]
    features += [*gaps, *((cross.name, "a cross") for cross in declaration.crosses)]
    _check_unique(features)
    tables = [
        (name, "a table of its own") for name, f in declaration.features.items() if f.own_table
    ]
    tables += [*gaps, *((cross.name, "a cross") for cross in declaration.crosses)]
    categories = [name for name, f in declaration.features.items() if f.tokens]
    vocabularies = dict.fromkeys(declaration.vocabulary(name) for name in categories)
    _check_unique([*tables, *((name, "a vocabulary") for name in vocabularies)])
    # They become names of files and of the transform's parts.
    declared = *declaration.features, *declaration.labels, *declaration.histories, *vocabularies
    for name in (*declared, *(name for name, _ in features)):
        if len(name) > LONGEST:
            raise UserError(
                f"the name {name[:40] + '…'!r} has {len(name):,} letters; {LONGEST} are allowed"
            )
    for name in declared:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise UserError(f"the name {name!r}: only letters, digits and _ . - are allowed")


def _check_columns(declaration: Declaration) -> None:
    """One column has one type, whatever it is used for."""
    uses = []
    for name, feature in declaration.features.items():
        what = "text" if feature.tokens else "a number"
        if (declaration.column(name), what) != (
            declaration.time,
            "a number",
        ):  # a time is a number too
            uses.append((declaration.column(name), what, f"features.{name}"))
    for key, what in (
        ("user", "text"), ("item", "text"), ("time", "a time"), ("weight", "a number")
    ):  # fmt: skip
        if column := getattr(declaration, key):
            uses.append((column, what, key))
    for name, label in declaration.labels.items():
        if label.equals is not None:
            uses.append((label.column, "text", f"labels.{name}"))
    taken: dict[str, tuple[str, str]] = {}
    for column, what, key in uses:
        other, first = taken.setdefault(column, (what, key))
        if other != what:
            raise UserError(
                f"{key}: column {column!r} is both {other} ({first}) and {what}; "
                "a column has one type"
            )
    labelled = [label.column for label in declaration.labels.values()]
    raw = [(name, "a column") for name in dict.fromkeys([*taken, *labelled, *declaration.show])]
    for history in declaration.histories:
        for column in declaration.history_columns(history):
            raw.append((f"{history}_{column}", "a column of a history"))
    _check_unique(raw)


def _check_unique(names: list[tuple[str, str]]) -> None:
    """Checks (name, what it names) pairs."""
    taken: dict[str, str] = {}
    for name, what in names:
        if name in taken:
            raise UserError(f"the name {name!r} is both {taken[name]} and {what}; rename one")
        taken[name] = what
