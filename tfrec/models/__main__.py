"""`python -m tfrec.models`: the catalogue."""

from __future__ import annotations

import json

import click

from tfrec.models.registry import ENTRIES, FAMILIES


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def main(as_json: bool) -> None:
    """List the models: id, family, paper and what a data set must offer."""
    if as_json:
        rows = [
            {"id": e.id, "family": e.family, "paper": e.paper, "needs": list(e.needs)}
            for e in ENTRIES
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(entry.id) for entry in ENTRIES)
    for family, title in FAMILIES.items():
        click.echo(title)
        for entry in ENTRIES:
            if entry.family == family:
                needs = f"  [needs {', '.join(entry.needs)}]" if entry.needs else ""
                click.echo(f"  {entry.id:<{width}}  {entry.paper}{needs}")


if __name__ == "__main__":
    main()
