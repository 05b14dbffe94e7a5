"""Parquet files of a data set directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tfrec.strict import UserError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 2**16  # of a table


def tables(directory: str | Path, name: str, columns: list[str]) -> Iterator[pa.Table]:
    """Tables of `<directory>/<name>/`, of so many rows that memory does not grow with the files.

    Args:
        directory: of the data set.
        name: `items` or `interactions`.
        columns: to read.

    Raises:
        UserError: there are no such files, or one cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet

    paths = sorted((Path(directory) / name).glob("*.parquet"))
    if not paths:
        raise UserError(
            f"data set {directory} has no {name}; declare `user` and `item` and make it again"
        )
    for path in paths:
        try:
            with pa.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS, columns=columns):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} cannot be read ({reason}); make the data set again") from None


def column_types(directory: str | Path, name: str) -> dict[str, str]:
    """Columns of `<directory>/<name>/` and their types, as Arrow calls them.

    Args:
        directory: of the data set.
        name: `items` or `interactions`.
    """
    import pyarrow.parquet as pq

    path = min((Path(directory) / name).glob("*.parquet"))
    return {field.name: str(field.type) for field in pq.read_schema(path)}
