"""What all commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
from click.testing import CliRunner

from tests.test_compare import BASE, made
from tfrec.cli import command


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """As of `| head -1`: nothing is said about it."""
    runs = [made(tmp_path / name, 0.1, BASE) for name in ("a", "b")]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tfrec.compare", *map(str, runs)],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_path_that_cannot_be_read_is_named() -> None:
    @click.command()
    @command
    def reading() -> None:
        raise FileNotFoundError(2, "No such file or directory", "there.txt")

    done = CliRunner().invoke(reading)
    assert done.exit_code == 1
    assert done.output == "Error: there.txt: No such file or directory\n"
