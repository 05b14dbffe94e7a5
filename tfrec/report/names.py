"""What ids are called: titles of items, values of vocabularies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tfrec.catalogue import vocabulary
from tfrec.features import Features
from tfrec.metrics import Array
from tfrec.parquet import tables

UNKNOWN = "(unknown)"


class Names:
    """Names of the ids of a data set.

    Args:
        directory: of the data set.
        features: of it.
    """

    def __init__(self, directory: str | Path, features: Features) -> None:
        self.directory, self.features = Path(directory), features
        self._known: dict[str, Array] = {}

    def of(self, table: str | None) -> Array:
        """(size,) `str` of all ids of a table; "" for padding.

        Items are called by the first column of text that the declaration shows, if there is one.
        """
        if table not in self._known:
            ids = self.features.table(table)
            names = np.full(ids.size, UNKNOWN, object)
            names[0] = ""
            if ids.learned:
                values, _ = vocabulary(self.directory, ids)
                if self.features.item_id:
                    of_item = self.features.feature(self.features.item_id).table
                    values = self._titles(values) if of_item == table else values
                names[1 : 1 + len(values)] = values
            else:
                names[1:] = [f"bucket {n} of {ids.vocabulary}" for n in range(1, ids.size)]
            self._known[str(table)] = names
        return self._known[str(table)]

    def _titles(self, keys: Array) -> Array:
        paths = sorted((self.directory / "items").glob("*.parquet"))
        used = {self.features.item_key, *(c.name for c in self.features.columns)}
        schema = pq.read_schema(paths[0]) if paths else ()
        shown = [f.name for f in schema if str(f.type) == "string" and f.name not in used]
        if not shown:
            return keys
        titles: dict[str, str] = {}
        for part in tables(self.directory, "items", [str(self.features.item_key), shown[0]]):
            titles |= dict(zip(*(column.to_pylist() for column in part.columns), strict=True))
        return np.array([titles.get(key) or key for key in keys], object)
