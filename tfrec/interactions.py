"""Which user met which item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrec.parquet import tables

Array = np.ndarray[Any, Any]


def interactions(directory: str | Path, splits: Iterable[str]) -> Iterator[tuple[Array, Array]]:
    """Users and items of all events of some splits, whatever their labels, in no order.

    Args:
        directory: of the data set.
        splits: names of the splits.

    Yields:
        Raw users (n,) and items (n,) of some of the events, arrays of `str`.

    Raises:
        UserError: the data set has no user or no item, or a file cannot be read.
    """
    wanted = pa.array(splits, pa.string())
    for table in tables(directory, "interactions", ["user", "item", "split"]):
        kept = table.filter(pc.is_in(table["split"], wanted))
        yield _strings(kept["user"]), _strings(kept["item"])


def _strings(column: pa.ChunkedArray) -> Array:
    """Equal strings are one object: there are many more events than users and items."""
    encoded = column.dictionary_encode().combine_chunks()
    return encoded.dictionary.to_numpy(zero_copy_only=False)[encoded.indices.to_numpy()]
