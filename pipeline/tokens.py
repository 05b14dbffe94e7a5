"""Columns of many values as statistics see them: a list of tokens per row, as models do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.declaration import Declaration

Cuts = dict[str, str | None]  # separator by column; None cuts a text into words


def cuts_of(declaration: Declaration) -> Cuts:
    """Columns that are cut into tokens: those that every feature of theirs cuts.

    Of a column that is cut in several ways, the first one.
    """
    found: Cuts = {}
    for name, feature in declaration.features.items():
        if feature.many:
            found.setdefault(declaration.column(name), feature.separator)
    whole = {declaration.column(n) for n, f in declaration.features.items() if not f.many}
    return {column: separator for column, separator in found.items() if column not in whole}


def cut(batch: pa.RecordBatch, cuts: Cuts) -> pa.RecordBatch:
    """A batch of raw examples whose columns of many values have a list of tokens per row.

    Args:
        batch: with one text per row in these columns.
        cuts: of `cuts_of`.
    """
    for name in cuts.keys() & set(batch.schema.names):
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, name, _tokens(batch.column(name), cuts[name]))
    return batch


def _tokens(column: pa.LargeListArray, separator: str | None) -> pa.LargeListArray:
    """Tokens without the space around them; rows without any are empty lists."""
    texts = column.flatten().cast(pa.large_string())
    if separator is None:  # as the transform finds words
        words = pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\pL\pN]+", " ")
        lists = pc.split_pattern(words, " ")
    else:
        lists = pc.split_pattern(texts, separator)
    tokens = pc.ascii_trim_whitespace(lists.flatten())
    some = pc.not_equal(tokens, "")
    rows = pc.list_parent_indices(lists).filter(some).to_numpy()
    ends = np.cumsum(np.bincount(rows, minlength=len(texts)))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, tokens.filter(some).cast(pa.large_binary()))
