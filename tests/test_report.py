"""The report of runs: a page that needs nothing from elsewhere, with the right numbers on it."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.serving.browser import CHROMIUM, Browser
from tests.serving.process import until
from tests.support import FEATURES, batch, tensors
from tfrec.config import TrainConfig
from tfrec.evaluation import evaluator
from tfrec.features import Label
from tfrec.figures import Report, with_interval
from tfrec.html import Series, page, plot
from tfrec.models.registry import find
from tfrec.report.__main__ import main
from tfrec.report.attention import attention
from tfrec.report.gather import Facts, measured
from tfrec.report.importance import importances, shuffling, together
from tfrec.report.model import of_model
from tfrec.report.names import Names
from tfrec.runs import Run, best_weights
from tfrec.train import train

AFM = "<i>afm & co"  # a run directory may be called anything
# Attributes that make a browser fetch something.
FETCHING = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """The tags of a page: what they would fetch, and whether all are closed."""

    VOID = ("meta", "input", "br", "wbr", "line", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.fetched += [value for name, value in attrs if name in FETCHING]

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sections(text: str) -> dict[str, str]:
    _, *parts = re.split(r'<h2 id="s\d+">(.*?)</h2>', text)
    return dict(zip(map(html.unescape, parts[::2]), parts[1::2], strict=True))


def rows(text: str) -> dict[str, list[str]]:
    """Cells of all tables by the head of their row."""
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", text):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        first, *others = (html.unescape(re.sub(r"<.*?>", "", cell)) for cell in cells)
        found[first] = others
    return found


@pytest.fixture(scope="module")
def runs(
    finished: tuple[Path, str], shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One run of every kind of model."""
    place = tmp_path_factory.mktemp("reported")
    # Without what other tests have measured of it: the report measures what it lacks.
    unmeasured = shutil.ignore_patterns("evaluation")
    found = {"wide_deep": shutil.copytree(finished[0], place / "wide_deep", ignore=unmeasured)}
    for name, model, labels in (
        ("din", "din", ["bought"]),
        (AFM, "afm", ["bought"]),
        ("mmoe", "mmoe", ["bought", "stars"]),
        ("mf", "mf", ["bought"]),
    ):
        values = {"data": str(shop), "model": {"id": model}, "labels": labels, "epochs": 1}
        train(values, place / name, export=False)
        found[name] = place / name
    return found


@pytest.fixture(scope="module")
def text(runs: dict[str, Path]) -> str:
    """The page of all of them."""
    output = runs["wide_deep"] / "report.html"
    done = CliRunner().invoke(main, list(map(str, runs.values())))
    assert done.exit_code == 0, done.output
    assert done.output.endswith(f"the report is {output}\n")
    return output.read_text()


def test_a_page_with_nothing_from_elsewhere(text: str) -> None:
    """Nor with code of what things are called."""
    found = Page(text)
    assert not found.open
    assert html.escape(AFM) in text
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert found.fetched
    assert all(target[0] == "#" and target[1:] in found.ids for target in found.fetched)
    for part in ("http:", "https:", "url(", "@import", "nan", "None"):
        assert part not in text
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_what_is_told_of_a_run(runs: dict[str, Path], text: str) -> None:
    run, found = runs["wide_deep"], sections(text)
    assert list(found)[:8] == [
        "Runs",
        "Training",
        "Comparison",
        "Figures",
        *(
            f"wide_deep: {part}"
            for part in ("calibration and scores", "slices", "feature importance", "items")
        ),
    ]
    records = json.loads((run / "evaluation" / "test.json").read_text())["records"]
    whole = {r["name"]: r for r in records if r["slice"] is None}
    figures = rows(next(c for c in found["Figures"].split("<section") if "<h3>wide_deep," in c))
    assert figures[""] == list(whole)
    for name, value in whole["wide_deep"]["metrics"].items():
        shown = with_interval(value, whole["wide_deep"]["intervals"][name])
        assert figures[name][0] == shown
    parts = {r["slice"]: r for r in records if r["slice"]}
    assert any(part.startswith("item_count") for part in parts)
    slices = rows(found["wide_deep: slices"])
    assert all(slices[name][0] == f"{r['examples']:,}" for name, r in parts.items())
    metrics = json.loads((run / "metrics.json").read_text())
    assert rows(found["Runs"])["wide_deep"][2] == f"{metrics['parameters']:,}"
    auc = next(c for c in found["Training"].split("<section") if "validation auc" in c)
    points = re.findall(r"<title>wide_deep: (.*?), (.*?)</title>", auc)
    assert [float(y) for _, y in points] == pytest.approx(
        [v["metrics"]["bought"]["auc"] for v in metrics["history"]], rel=1e-3
    )
    drawn = re.findall(
        r"<title>bin: (.*?), (.*?)</title>", found["wide_deep: calibration and scores"]
    )
    curve = whole["wide_deep"]["curve"]
    assert [float(y) for _, y in drawn] == pytest.approx([b["observed"] for b in curve], abs=1e-3)
    importance = rows(found["wide_deep: feature importance"])
    assert {"customer", "product", "at", "bought_before (history)"} < importance.keys()
    items = found["wide_deep: items"]
    assert len(re.findall(r"<title>Product \d+ \(", items)) >= 40
    assert "t-SNE" in items


def test_what_only_some_models_have(runs: dict[str, Path], text: str) -> None:
    found = sections(text)
    have = {part: {t.split(":")[0] for t in found if t.endswith(part)} for part in (
        ": attention", ": gates", ": recommendations", ": calibration and scores", ": items",
    )}  # fmt: skip
    assert have == {
        ": attention": {"din", AFM},
        ": gates": {"mmoe"},
        ": recommendations": {"mf"},
        ": calibration and scores": {"wide_deep", "din", AFM, "mmoe"},
        ": items": set(runs),
    }
    assert re.search(r"<h3>For Product \d+</h3>", found["din: attention"])
    events = re.findall(r'<th scope="row">(.*?)</th>', found["din: attention"])
    assert all(re.fullmatch(r"Product \d+|\(unknown\)", event) for event in events)
    assert "customer × product" in found[f"{AFM}: attention"]
    gates = rows(found["mmoe: gates"])
    for task in ("bought", "stars"):
        assert sum(float(s.rstrip("%")) for s in gates[task]) == pytest.approx(100, abs=0.3)
    assert "coverage@K" in found["mf: recommendations"]
    assert "What user 1 is recommended" in found["mf: recommendations"]
    assert "product" not in rows(found["mf: feature importance"])


def test_runs_are_compared_with_the_first(runs: dict[str, Path], text: str) -> None:
    """Those that were measured on the same; the others are named."""
    found = sections(text)["Comparison"]
    assert "mf was measured of" in found
    assert "all items, seen ones removed" in found
    reports = [Report.load(runs[n] / "evaluation" / "test.json") for n in ("wide_deep", "din")]
    first, second = (report.figures()[report.model]["bought"]["auc"] for report in reports)
    assert first is not None and second is not None
    shown = rows(found.split("<details>")[0])
    assert shown["auc"][0] == f"{first:.4f}"
    assert shown["auc"][1] == f"{second:.4f}"
    assert float(shown["auc"][2].split()[0]) == pytest.approx(second - first, abs=1e-4)
    multi = Report.load(runs["mmoe"] / "evaluation" / "test.json")
    third = multi.figures()["mmoe"]["bought"]["auc"]
    assert third is not None
    assert shown["auc"][5] == f"{third:.4f}"  # of the task that they share
    assert "stars" not in found.split("configurations")[0]
    assert rows(found)["model.id"] == ["wide_deep", "din", "afm", "mmoe", "mf"]


def test_figures_are_those_of_the_weights(runs: dict[str, Path], text: str) -> None:
    """What was measured before training went on, or without slices, is measured again."""
    run = Run.load(runs["wide_deep"])
    path = run.directory / "evaluation" / "test.json"
    known, weights = Report.load(path), best_weights(run.directory)
    assert known.slices == ["user_events", "item_count"]
    measuring, model = evaluator(run.config, run.features, "test"), run.best_model()
    assert measured(run, model, measuring, weights) == known
    for stale in (
        replace(known, records=[], slices=["colours"], weights="1-before"),
        replace(known, records=[r for r in known.records if not r["slice"]], slices=[]),
    ):
        path.write_text("{")
        stale.save(path)
        found = measured(run, model, measuring, weights)
        assert found.weights == known.weights
        assert found.slices == (stale.slices or known.slices)
        assert any(record["slice"] for record in found.records)
        assert found.figures() == known.figures()


def test_attention_of_a_model_of_all_items() -> None:
    """It looks for what comes next, not for an example's item."""

    class Called(Names):
        def of(self, table: str | None) -> Any:
            return np.array([f"{table} {n}" for n in range(FEATURES.table(table).size)], object)

    found = attention(
        find("sasrec").load()(FEATURES), FEATURES, tensors(batch(64)), Called("", FEATURES)
    )
    assert found
    for example in found.examples["liked"]:
        assert example.title == "the next item"
        assert sum(weight for _, weight in example.weights) == pytest.approx(1, abs=1e-5)
        assert all(event.startswith("item ") for event, _ in example.weights)


def test_a_task_whose_labels_are_all_missing_has_no_distribution(tmp_path: Path) -> None:
    """As those of late labels in the last split."""
    values = {"data": "nowhere", "model": {"id": "shared_bottom"}}
    labels = (Label("like", "binary"), Label("stars", "regression"))
    run = Run(tmp_path, TrainConfig.parse(values, "test"), replace(FEATURES, labels=labels))
    report = Report("shared_bottom", "test", "test, 4 examples", {}, 0, [])
    said, missing = np.full(4, 0.5), np.full(4, np.nan)
    known = Facts(run, report, None, scores={"like": (np.ones(4), said), "stars": (missing, said)})
    found = of_model(known)["calibration and scores"]
    assert "Scores, like" in found
    assert "Scores, stars" not in found


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
def test_the_page_on_a_phone(runs: dict[str, Path], text: str, tmp_path: Path) -> None:
    """Nothing sticks out, whatever is unfolded; what is written can be read, by day and night."""
    browser = Browser(tmp_path)
    try:
        grounds = []
        for dark in (False, True):
            browser.screen(390, dark)
            browser.open((runs["wide_deep"] / "report.html").as_uri())
            until(lambda: browser.run("document.readyState") == "complete")
            browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            sides = (f"document.documentElement.{side}Width" for side in ("scroll", "client"))
            widest, seen = map(browser.run, sides)
            assert widest == seen <= 390
            assert "Product 1 (" in browser.text("details ol")
            ground, ink = (
                np.mean([int(n) for n in re.findall(r"\d+", str(browser.run(style)))[:3]])
                for style in ("background-color", "color")
                for style in [f"getComputedStyle(document.body).getPropertyValue('{style}')"]
            )
            assert abs(ground - ink) > 150
            grounds.append(ground)
        assert grounds[0] > 200 > 60 > grounds[1]
    finally:
        browser.close()


def test_importance_is_what_a_shuffle_costs() -> None:
    """Of two features, the one that tells the label; a history is kept together."""
    rng = np.random.default_rng(0)
    inputs = tensors(batch(400))
    labels = inputs["age"].numpy() > 0

    def measure(change: Any) -> Any:
        seen = (change(inputs) if change else inputs)["age"].numpy() > 0
        return {"like": {"auc": None, "accuracy": float((seen == labels).mean())}}

    signed = {"like": (("auc", 1.0), ("accuracy", 1.0))}
    found = importances(FEATURES, measure, signed)["like"]
    assert (found.metric, found.whole) == ("accuracy", 1.0)
    first, *others = found.parts
    assert first.name == "age"
    assert first.loss == pytest.approx(0.5, abs=0.06)
    assert first.interval[0] < first.loss < first.interval[1]
    assert all(part.loss == 0 for part in others)
    history = together(FEATURES)["liked (history)"]
    changed = shuffling(history, int(rng.integers(9)))(inputs)
    rows_of = [
        {tuple(np.concatenate([v[n].numpy()[r].ravel() for n in history])) for r in range(400)}
        for v in (inputs, changed)
    ]
    assert rows_of[0] == rows_of[1]
    assert (changed["liked_item"].numpy() != inputs["liked_item"].numpy()).any()
    assert (changed["user"].numpy() == inputs["user"].numpy()).all()


def test_a_feature_takes_its_crosses_along() -> None:
    crossed = FEATURES.crosses[0]
    with_parts = type(FEATURES)(
        **{
            **FEATURES.__dict__,
            "crosses": (type(crossed)(**{**crossed.__dict__, "parts": ("user", "tags")}),),
        }
    )
    found = together(with_parts)
    assert found["user"] == ["user", "user_x_tags"]
    assert found["user × tags"] == ["user_x_tags"]
    assert found["age"] == ["age"]
    assert "item" not in together(with_parts, of_items=True)


def test_what_is_no_run(runs: dict[str, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ([runs["wide_deep"], tmp_path], f"{tmp_path} is no run"),
        ([tmp_path] * 9, "too many to be told apart"),
    ):
        output = tmp_path / "none.html"
        done = CliRunner().invoke(main, [*map(str, arguments), "--output", str(output)])
        assert done.exit_code == 1
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1
        assert not output.exists()


def test_a_plot_keeps_its_points_inside() -> None:
    """Also where all values are equal, or there is one alone."""
    for points in ([(1.0, 5.0)], [(0.0, 0.0), (1.0, 0.0)], [(1.0, -2e-5), (2.0, 3e9)]):
        drawn = plot([Series("a", points)], "x", "y")
        Page(page("plot", drawn))
        places = re.findall(r'cx="(.*?)" cy="(.*?)"', drawn)
        assert len(places) == len(points)
        assert all(0 <= float(x) <= 400 and 0 <= float(y) <= 230 for x, y in places)


def test_ticks_that_lie_close_together_are_told_exactly() -> None:
    drawn = plot([Series("a", [(1.0, 0.69252), (2.0, 0.69264)])], "x", "y")
    ticks = re.findall(r'text-anchor="end">(.*?)</text>', drawn)
    assert ticks[:3] == ["0.6925", "0.692525", "0.69255"]
