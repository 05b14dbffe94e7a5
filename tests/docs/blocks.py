"""What README.md and docs/ print for readers to run or to copy: blocks of code and of commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
# In the order of reading: what a page says may build on the pages before it.
FIRST = ("README.md", "docs/data.md", "docs/pipeline.md", "docs/training.md")
_MARK = re.compile(r"<!--\s*needs:\s*(.*?)\s*-->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: path under the root of the project.
        line: where it begins, from 1.
        language: of a fence; an indented block is `bash`, since pages indent commands only.
        text: without fence and indentation.
        needs: why it is not run, from the comment `<!-- needs: … -->` above it.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Pages in the order of reading; those that `FIRST` does not name come last."""
    found = ["README.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
    return sorted(found, key=lambda page: (_place(page), page))


def _place(page: str) -> int:
    return FIRST.index(page) if page in FIRST else len(FIRST)


def blocks(page: str, text: str) -> Iterator[Block]:
    """Blocks of a page in order.

    Args:
        page: its path.
        text: its Markdown.
    """
    before = ""
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block"):
            assert token.map
            mark = _MARK.search(before)
            language = token.info.strip() if token.type == "fence" else "bash"
            needs = mark[1] if mark else None
            yield Block(page, token.map[0] + 1, language, token.content, needs)
        before = token.content if token.type == "html_block" else ""


def inline_commands(page: str, text: str) -> Iterator[Block]:
    """Commands of the project inside sentences, such as `python -m tfrec.models`."""
    for token in MarkdownIt().parse(text):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("python -m "):
                assert token.map
                yield Block(page, token.map[0] + 1, "bash", child.content)
