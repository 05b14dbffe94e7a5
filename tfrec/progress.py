"""The live line of a training."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Line:
    """The live line of progress, where the console is a terminal.

    Args:
        console: where it is shown.
        steps: of the whole training.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=steps)

    def __enter__(self) -> Line:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def show(self, step: int, text: str) -> None:
        """Shows where the training is."""
        self.progress.update(self.task, description=text, completed=step)
