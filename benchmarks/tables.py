"""Tables of docs/results.md: each stands between two marks and is replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
# Tests run what pages print, unless it is marked so.
MARK = "<!-- needs: more time than a test has, and the data named above -->"


def write(name: str, command: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Puts a table, and the command that makes it, between the marks of that name.

    Args:
        name: of the marks `<!-- NAME -->` and `<!-- end NAME -->`.
        command: that makes the table.
        header: of the columns.
        rows: of cells.

    Raises:
        click.ClickException: docs/results.md has no such marks.
    """
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    text = RESULTS.read_text()
    if begin not in text or end not in text:
        raise click.ClickException(f"{RESULTS} has no place for {name}: add {begin} and {end}")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    RESULTS.write_text(f"{before}{begin}\n{MARK}\n```bash\n{command}\n```\n\n{table}\n{end}{after}")
