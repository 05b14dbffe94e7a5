"""Tables of ids: what they hold, and how often it occurs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_transform as tft

from pipeline.declaration import Declaration
from pipeline.description import GAPS
from tfrec.features import Table
from tfrec.strict import UserError

WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CLOCKS: dict[str, tuple[str, ...]] = {"hour": tuple(map(str, range(24))), "weekday": WEEK}


def tables(
    declaration: Declaration, output: tft.TFTransformOutput, ids: dict[str, np.ndarray]
) -> list[Table]:
    """All tables of a data set.

    Args:
        declaration: of it.
        output: of tf.Transform.
        ids: counts of ids in the training split, by table.

    Raises:
        UserError: a vocabulary is empty.
    """
    found: dict[str, Table] = {}
    for name, feature in declaration.features.items():
        table = declaration.vocabulary(name)
        if feature.own_table:
            found[name] = Table(name, feature.clock or feature.buckets or 0)
        elif feature.hash_buckets:
            found[table] = Table(table, feature.hash_buckets)
        elif feature.tokens:
            size = output.vocabulary_size_by_name(table)
            if not ids[table][1 : size + 1].any():
                raise UserError(
                    f"vocabulary {table!r} is empty: no value of column "
                    f"{declaration.column(name)!r} occurs {feature.min_count} times in "
                    "train; lower min_count or check the column"
                )
            found[table] = Table(table, size, feature.oov_buckets)
    for gap in filter(None, map(declaration.gap, declaration.histories)):
        found[gap] = Table(gap, GAPS)
    for cross in declaration.crosses:
        found[cross.name] = Table(cross.name, cross.buckets)
    return list(found.values())


def write_vocabularies(
    folder: Path,
    declaration: Declaration,
    output: tft.TFTransformOutput,
    tables: list[Table],
    ids: dict[str, np.ndarray],
) -> None:
    """Writes `<table>.tsv` of every table: tab-separated `id, count, value`.

    First padding, then the vocabulary by descending count, then OOV buckets. Hours and weekdays
    have names for values, hashes and buckets none.

    Args:
        folder: to make.
        declaration: of the data set.
        output: of tf.Transform.
        tables: of the data set.
        ids: counts of ids in the training split, by table.
    """
    folder.mkdir()
    learned = {
        declaration.vocabulary(name)
        for name, feature in declaration.features.items()
        if feature.tokens and not feature.hash_buckets
    }
    clocks = {name: CLOCKS[f.kind] for name, f in declaration.features.items() if f.clock}
    for table in tables:
        if table.name not in ids:
            continue
        counts = np.zeros(table.size, np.int64)
        counts[: len(ids[table.name])] = ids[table.name]
        with (folder / f"{table.name}.tsv").open("w", encoding="utf-8") as file:
            file.write("id\tcount\tvalue\n")
            names = clocks.get(table.name, itertools.repeat("", table.vocabulary))
            values = _values(table, output if table.name in learned else None, names)
            for index, (count, value) in enumerate(zip(counts, values, strict=True)):
                file.write(f"{index}\t{count}\t{value}\n")


def _values(
    table: Table, output: tft.TFTransformOutput | None, names: Iterable[str]
) -> Iterator[str]:
    """What every id of a table stands for; read line by line, since a vocabulary may be huge."""
    yield "[padding]"
    if output is None:
        yield from names
        return
    with Path(output.vocabulary_file_by_name(table.name)).open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n").decode("utf-8", "replace")
    yield from (f"[oov {bucket}]" for bucket in range(table.oov))
