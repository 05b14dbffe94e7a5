"""The numbered versions of a model in a directory, as TF Serving tells them from other entries."""

from __future__ import annotations

from pathlib import Path

MAX_VERSION = 2**63 - 1


def versions(base_path: Path) -> dict[int, Path]:
    """Directories of versions, by number.

    Raises:
        OSError: the directory cannot be read.
    """
    return {int(path.name): path for path in base_path.iterdir() if _is_version(path)}


def is_number(name: str) -> bool:
    """Whether a server takes an entry of this name for a version."""
    return name.isascii() and name.isdigit() and int(name) <= MAX_VERSION


def _is_version(path: Path) -> bool:
    return is_number(path.name) and path.is_dir()
