from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from pipeline.progress import Progress, advance


@pytest.mark.parametrize("terminal", [True, False])
def test_counts_are_shown_on_a_terminal_only(terminal: bool):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    with Progress(console) as progress:
        advance("rows read", 1_234)
        while terminal and "1,234 rows read" not in text.getvalue() and progress.seconds < 20:
            time.sleep(0.05)
    assert ("1,234 rows read" in text.getvalue()) == terminal
    assert terminal or not text.getvalue()
