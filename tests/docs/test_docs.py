"""Every block of code or commands in README.md and docs/ runs, or says what it needs.

Blocks run in one folder in the order of reading; a test of one block alone may miss what earlier
ones have made. A block that cannot run here has the comment `<!-- needs: … -->` above it, with the
reason; of its commands the options are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tests.docs import commands
from tests.docs.blocks import ROOT, Block, blocks, inline_commands, pages
from tests.docs.workplace import Workplace
from tests.docs.yaml_blocks import Page

TEXTS = {page: (ROOT / page).read_text() for page in pages()}
BLOCKS = [block for page, text in TEXTS.items() for block in blocks(page, text)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with Workplace(tmp_path_factory.mktemp("reader")) as place:
        yield place


@pytest.fixture(scope="module")
def declared() -> dict[str, Page]:
    return {page: Page() for page in TEXTS}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.needs is None], ids=str)
def test_block(block: Block, workplace: Workplace, declared: dict[str, Page]) -> None:
    if block.language == "bash":
        workplace.run(block.text)
    elif block.language == "python":
        workplace.python(block.text)
    elif block.language == "yaml":
        declared[block.page].check(block.text, workplace.path)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "textproto":
        text_format.Parse(block.text, schema_pb2.Schema())
    else:
        pytest.fail(
            f"{block}: no test runs a block of {block.language or 'no language'}; name the "
            "language, or say above it what it needs: <!-- needs: … -->"
        )


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.needs is not None], ids=str)
def test_block_that_needs_something(block: Block) -> None:
    assert block.needs, f"{block}: the comment says no reason"
    if block.language == "bash":
        commands.check(block.text)
    elif block.language == "python":
        compile(block.text, str(block), "exec")


def test_commands_in_sentences() -> None:
    found = [block for page, text in TEXTS.items() for block in inline_commands(page, text)]
    assert sum(commands.check(block.text) for block in found) > 5


def test_an_unknown_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        commands.check("python -m tfrec.train --data x --modle din --output runs/din")


def test_a_block_without_a_mark_is_found() -> None:
    text = "Text\n\n<!-- needs: a cluster -->\n```bash\na\n```\n\n```\nb\n```\n\nthen\n\n    c\n"
    found = [(b.language, b.text, b.needs) for b in blocks("page.md", text)]
    assert found == [("bash", "a\n", "a cluster"), ("", "b\n", None), ("bash", "c\n", None)]
