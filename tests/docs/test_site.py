"""The site builds without a warning, and has what is made when it is built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tfrec.models.registry import ENTRIES


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Every warning is an error, a page that no menu has among them."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_catalogue_has_every_model_with_its_equation(site: Path) -> None:
    page = (site / "catalogue.html").read_text()
    sections = dict(re.findall(r'<h3 id="(\w+)">(.*?)(?=<h[23]|</article>)', page, re.DOTALL))
    assert list(sections) == [entry.id for entry in ENTRIES]
    assert all("Parameters:" in section for section in sections.values())
    assert "⟨v<sub>i</sub>, v<sub>j</sub>⟩ x<sub>i</sub> x<sub>j</sub>" in sections["fm"]
    assert "a history (declare one under" in sections["din"]


def test_tables_come_from_the_results(site: Path) -> None:
    results = (ROOT / "docs" / "results.md").read_text()
    figures = re.search(r"\| `wide_deep` \| (\S+) ± (\S+)", results)
    assert figures
    text = (site / "choosing.html").read_text()
    assert f"{figures[1]}\u00a0±\u00a0{figures[2]}" in text
    assert "<!-- table" not in text


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page.read_text())
        assert not fetched, f"{page}: {fetched}"


@pytest.mark.parametrize(
    ("written", "set_"),
    [
        (
            "x_{l+1} = x_0 (x_lᵀ w_l)",
            "x<sub>l+1</sub> = x<sub>0</sub> (x<sub>l</sub>ᵀ w<sub>l</sub>)",
        ),
        ("Σ_{i<j} v_{i,F(j)}", "Σ<sub>i&lt;j</sub> v<sub>i,F(j)</sub>"),
        ("e^{−z_1 − z_2}", "e<sup>−z<sub>1</sub> − z<sub>2</sub></sup>"),
        ("MLP_top([d]), g_k,i(x)", r"MLP<sub>top</sub>(\[d\]), g<sub>k,i</sub>(x)"),
        ("`batch_size` of sampled_softmax", "`batch_size` of sampled_softmax"),
        ("Args:\n    p_u, q_i: of it", "Args:\n    p_u, q_i: of it"),
    ],
)
def test_equations(written: str, set_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    from equations import legible

    assert legible(written) == set_
