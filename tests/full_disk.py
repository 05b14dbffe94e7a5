"""A command on a disk that is full, for which a limit on the size of files stands in."""

from __future__ import annotations

import sys

_LIMITED = """
import os, resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.argv[2], sys.argv[2:])
"""


def on_full_disk(command: list[str], size: int) -> list[str]:
    """A command whose files have so many bytes at most: a write behind them fails.

    The limit is set by a process of its own. Where gRPC is at work, Python code between fork and
    exec lets gRPC's threads begin in the child, which log errors or end it by SIGABRT.
    """
    return [sys.executable, "-c", _LIMITED, str(size), *command]
