"""The short form of the soak."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.soak import not_flat

MIB = 2**20


def test_no_request_fails_while_versions_change() -> None:
    flags = ["--minutes", "0.13", "--switch", "2", "--report", "3", "--clients", "4"]
    command = [sys.executable, "-m", "benchmarks.soak", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, last = done.stdout.partition("in all:\n")
    _, requests, failures, _, _, version = last.splitlines()[0].split(" | ")
    assert int(requests.replace(",", "")) > 100
    assert (failures, int(version) >= 4) == ("0", True)


def test_what_is_flat() -> None:
    assert not not_flat([100 * MIB, 500 * MIB, 519 * MIB])
    assert not_flat([100 * MIB, 300 * MIB, 321 * MIB])
    assert not_flat([100 * MIB, 1000 * MIB, 1051 * MIB])
    assert not not_flat([900 * MIB, 500 * MIB, 400 * MIB])
