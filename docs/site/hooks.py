"""What the site makes of the project when it is built: the catalogue, and tables of results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from tfrec.models.registry import ENTRIES, FAMILIES, NEEDS, Entry

CATALOGUE = "catalogue.md"
_TABLE = re.compile(r"<!-- table: (.+?) -->")
_HEAD = """# Catalogue

What follows is written in the models' docstrings. `python -m tfrec.models` lists them, and
`--model ID` trains one. [Choosing a model](choosing.md) compares them.

In all equations z is the logit of a task, s the score of an item, x the fields and v their vectors;
⟨a, b⟩ is a product that is a number, a ∘ b one element by element, and σ the logistic function.
"""
_CLASS = """
::: tfrec.models.{path}
    options:
      heading_level: 4
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""


def on_files(files: Files, config: Any) -> Files:
    """Adds the catalogue, a section for every model of the registry."""
    files.append(File.generated(config, CATALOGUE, content=_catalogue()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Puts tables of results.md where pages say `<!-- table: NAME -->`; keeps figures in a line."""
    results = Path(config["docs_dir"], "results.md").read_text()
    markdown = _TABLE.sub(lambda named: _table(results, named[1], page.file.src_uri), markdown)
    return markdown.replace(" ± ", "\u00a0±\u00a0")


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Tells the style sheet which page the catalogue is."""
    return f'<div class="catalogue">{html}</div>' if page.file.src_uri == CATALOGUE else html


def _table(results: str, name: str, page: str) -> str:
    found = re.search(
        f"<!-- {re.escape(name)} -->(.*)<!-- end {re.escape(name)} -->", results, re.S
    )
    rows = [line for line in found[1].splitlines() if line.startswith("|")] if found else []
    if not rows:
        raise PluginError(f"{page}: results.md has no table {name!r}")
    return "\n".join(rows)


def _catalogue() -> str:
    sections = [_HEAD]
    for family, title in FAMILIES.items():
        sections.append(f"## {title}\n")
        sections += [_section(entry) for entry in ENTRIES if entry.family == family]
    return "\n".join(sections)


def _section(entry: Entry) -> str:
    needs = "".join(f"\nNeeds {NEEDS[need]}.\n" for need in entry.needs)
    path = entry.target.replace(":", ".")
    return f"### {entry.id}\n\n*{entry.paper}*\n{needs}{_CLASS.format(path=path)}"
