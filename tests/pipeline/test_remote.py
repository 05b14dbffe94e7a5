"""Paths of file systems that are not local: Beam's, by their scheme."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from pipeline.sources import columns_of, digests
from tests.pipeline import shop
from tests.pipeline.test_sources import EVENTS
from tfrec.features import SPLITS
from tfrec.strict import UserError

SCHEME = "shelf"


class Shelf(LocalFileSystem):
    """Knows its files by `shelf://NAME` only."""

    root: ClassVar[Path]

    @classmethod
    def scheme(cls) -> str:
        return SCHEME

    def _local(self, path: str) -> str:
        return str(self.root / path.removeprefix(f"{SCHEME}://"))

    def has_dirs(self) -> bool:
        return False  # as an object store

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(self.root.iterdir()):
            name = f"{SCHEME}://{path.name}"
            if name.startswith(dir_or_prefix) and path.is_file():
                yield FileMetadata(name, path.stat().st_size, 1.0)

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, Path(self._local(path)).stat().st_size, 1.0)

    def exists(self, path: str) -> bool:
        return super().exists(self._local(path))

    def open(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> Any:
        return super().open(self._local(path), mime_type, compression_type)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    Shelf.root = tmp_path
    return tmp_path


@pytest.mark.parametrize(
    ("write", "name", "format_"),
    [
        (shop.write_csv, "a.csv.gz", "csv"),
        (shop.write_parquet, "a.parquet", "parquet"),
        (shop.write_tfrecord, "a.tfrecord", "tfrecord"),
    ],
)
def test_reading(write: Callable[..., str], name: str, format_: str, shelf: Path) -> None:
    """The same examples as of a local file; a glob finds it."""
    local = write(EVENTS, shelf / name)
    expected, found = (
        shop.raw_examples(shop.declare(source={"format": format_, "path": path}), None, shelf)
        for path in (local, f"{SCHEME}://{name[:1]}*")
    )
    assert found == expected
    assert sum(len(found[split]) for split in SPLITS) == len(EVENTS)
    source = shop.declare(source={"format": format_, "path": f"{SCHEME}://{name}"}).source
    assert set(columns_of(source)) == set(EVENTS[0])
    size = (shelf / name).stat().st_size
    assert digests(source) == {f"{SCHEME}://{name}": f"{size} 1.0"}


def test_what_is_not_there(shelf: Path) -> None:
    with pytest.raises(UserError, match=r"no file matches 'shelf://none\*'"):
        digests(shop.tiny("shelf://none*").source)


def test_a_scheme_that_nobody_knows() -> None:
    with pytest.raises(UserError) as caught:
        digests(shop.tiny("nowhere://bucket/e.csv").source)
    assert str(caught.value).startswith("source: 'nowhere://bucket/e.csv' cannot be reached (")
    assert "\n" not in str(caught.value)


def test_a_file_system_that_is_not_installed() -> None:
    with pytest.raises(UserError, match=r"hdfs:.*cannot be reached.*apache-beam\[hadoop\] inst"):
        digests(shop.tiny("hdfs://bucket/e.csv").source)
