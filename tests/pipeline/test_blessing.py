"""Rules that a model has to keep: which, of what, and what is said of those that are broken."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.blessing import Current, Verdict, current_version, digest_of_export, judge
from pipeline.blocks import BlessDeclaration
from tests.pipeline import shop
from tests.test_compare import BASE, made
from tfrec.figures import Report
from tfrec.strict import UserError


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Of scores that are near the truth, or less, or far from it; the same labels and users."""
    folder = tmp_path_factory.mktemp("reports")
    noises = {"near": 0.1, "less": 0.15, "far": 1.0}
    runs = {name: made(folder / name, noise, BASE) for name, noise in noises.items()}
    return {name: Report.load(run / "evaluation" / "test.json") for name, run in runs.items()}


def judged(
    report: Report, *rules: dict[str, Any], current: Report | Current | None = None
) -> list[Verdict]:
    parsed = [BlessDeclaration.parse(rule, "bless") for rule in rules]
    beside = Current("served/3", current) if isinstance(current, Report) else current
    return judge(parsed, report, beside)


def value(report: Report, metric: str) -> float:
    found: float = report.records[0]["metrics"][metric]
    return found


def with_parts(report: Report, **parts: dict[str, Any]) -> Report:
    """The same with slices, which differ from the whole as they say."""
    (whole,) = report.records
    more = [{**whole, "slice": name.replace("_", "="), **part} for name, part in parts.items()]
    return dataclasses.replace(report, records=[whole, *more])


def test_all_rules_are_held_against_the_model_and_told(reports: dict[str, Report]) -> None:
    near = reports["near"]
    auc, loss = value(near, "auc"), value(near, "log_loss")
    low, high = near.records[0]["intervals"]["auc"]
    found = judged(
        near,
        {"metric": "auc", "at_least": auc + 0.01},
        {"metric": "auc", "at_least": auc - 0.01},
        {"metric": "log_loss", "at_most": loss - 0.01, "at_least": loss - 0.02},
    )
    assert [verdict.kept for verdict in found] == [False, True, True, False]
    first = f"auc of like is {auc:.4f} ±{(high - low) / 2:.4f}, and has to be at least"
    assert found[0].text.startswith(f"bless rule 1: {first} {auc + 0.01:g}")
    assert found[0].text.endswith("train a better model, or lower at_least")
    assert found[3].text.startswith("bless rule 3: log_loss of like")
    assert found[3].text.endswith("train a better model, or raise at_most")


@pytest.mark.parametrize("metric", ["auc", "log_loss", "ece"])
def test_a_model_that_is_surely_worse_is_refused(reports: dict[str, Report], metric: str) -> None:
    """Whether more or less of a figure is better, is known of it."""
    near, far = reports["near"], reports["far"]
    gap = abs(value(near, metric) - value(far, metric))
    (worse,) = judged(far, {"metric": metric, "worse_by": 0.0}, current=near)
    assert not worse.kept
    assert f"worse by {gap:.4f} ±" in worse.text
    assert f"than {value(near, metric):.4f} of served/3, and may be worse by 0:" in worse.text
    (allowed,) = judged(far, {"metric": metric, "worse_by": gap}, current=near)
    assert allowed.kept
    (better,) = judged(near, {"metric": metric, "worse_by": 0.0}, current=far)
    assert better.kept
    assert f"better by {gap:.4f} ±" in better.text


def test_one_that_is_worse_within_chance_is_not(reports: dict[str, Report]) -> None:
    """The interval of the difference decides: it has to lie beyond `worse_by` as a whole."""
    near, far = reports["near"], reports["far"]
    gap = value(near, "auc") - value(far, "auc")
    (verdict,) = judged(far, {"metric": "auc", "worse_by": 0.0}, current=near)
    half = float(verdict.text.split("worse by ")[1].split("±")[1].split(" ")[0])
    assert 0 < half < gap
    for limit, kept in ((gap - half + 1e-3, True), (gap - half - 1e-3, False)):
        (verdict,) = judged(far, {"metric": "auc", "worse_by": limit}, current=near)
        assert verdict.kept == kept
    (same,) = judged(near, {"metric": "auc", "worse_by": 0.0}, current=near)
    assert same.kept


def test_calibration_is_worse_farther_from_one(reports: dict[str, Report]) -> None:
    def at(figure: float) -> Report:
        values: dict[str, Any] = {"metrics": {"calibration": figure}, "intervals": {}}
        return dataclasses.replace(
            reports["near"], records=[{**reports["near"].records[0], **values, "replicates": {}}]
        )

    for before, after, kept in ((1.1, 0.95, True), (0.95, 1.1, False), (0.9, 1.1, True)):
        rule = {"metric": "calibration", "worse_by": 1e-9}
        (verdict,) = judged(at(after), rule, current=at(before))
        assert verdict.kept == kept, (before, after)


def test_without_a_model_that_is_served_nothing_is_worse(reports: dict[str, Report]) -> None:
    (verdict,) = judged(reports["far"], {"metric": "auc", "worse_by": 0.0})
    assert verdict.kept
    assert verdict.text.endswith("no other model is served yet")


def test_a_served_model_that_cannot_be_asked_is_no_proof(reports: dict[str, Report]) -> None:
    current = Current("served/3", None, "asks for 'zip', which the data set lacks")
    (verdict,) = judged(reports["near"], {"metric": "auc", "worse_by": 1.0}, current=current)
    assert not verdict.kept
    assert "served/3 cannot be asked (asks for 'zip', which the data set lacks)" in verdict.text
    assert verdict.text.endswith("leave worse_by out for this once")


def test_a_served_model_that_was_measured_of_other_labels_is_no_proof(
    reports: dict[str, Report],
) -> None:
    """Where one model takes a missing conversion for none and the other one passes it over."""
    others = dataclasses.replace(reports["far"], digests={"like": "3000-0"})
    (verdict,) = judged(reports["near"], {"metric": "auc", "worse_by": 1.0}, current=others)
    assert not verdict.kept
    assert "has none of the same labels to compare: leave worse_by out" in verdict.text


def test_rules_of_slices(reports: dict[str, Report]) -> None:
    near = reports["near"]
    report = with_parts(
        near,
        genre_war={"metrics": {**near.records[0]["metrics"], "auc": 0.4}},
        genre_noir={"metrics": {**near.records[0]["metrics"], "auc": 0.3}, "users": 4},
        genre_farce={"metrics": {**near.records[0]["metrics"], "auc": None}},
        genre_drama={},
    )
    (one,) = judged(report, {"metric": "auc", "slice": "genre=war", "at_least": 0.5})
    assert not one.kept
    assert "auc of like, genre=war, is 0.4000" in one.text
    every = judged(report, {"metric": "auc", "slice": "genre", "at_least": 0.5})
    assert [(v.kept, "genre=war" in v.text, "genre=drama" in v.text) for v in every] == [
        (False, True, False),
        (True, False, True),
    ]  # a few users, and no figure, say nothing where a rule is of all parts
    (none,) = judged(report, {"metric": "auc", "slice": "genre=farce", "at_least": 0.5})
    assert not none.kept
    told = "is none, and has to be at least 0.5: measure more examples, or leave the rule out"
    assert none.text.endswith(told)
    far = with_parts(reports["far"], genre_war={})
    rule = {"metric": "auc", "slice": "genre=war", "worse_by": 0.0}
    assert not judged(far, rule, current=with_parts(near, genre_war={}))[0].kept
    assert judged(far, rule, current=with_parts(reports["far"], genre_war={}))[0].kept


def test_a_rule_whose_parts_all_say_nothing_is_not_kept(reports: dict[str, Report]) -> None:
    near = reports["near"]
    auc = {**near.records[0]["metrics"], "auc": None}
    report = with_parts(
        near, genre_war={"users": 8}, genre_noir={"users": 9}, genre_x={"metrics": auc}
    )
    rule = {"metric": "auc", "slice": "genre", "at_least": 0.0, "at_most": 1.0}
    (verdict,) = judged(report, rule, current=report)
    assert not verdict.kept
    assert verdict.text.startswith("bless rule 1: no part by genre has 10 users and auc, so that")
    assert judged(with_parts(near, genre_war={}), {**rule, "at_most": None})[0].kept


def test_a_rule_names_buckets_by_what_is_asked_for(reports: dict[str, Report]) -> None:
    near = reports["near"]
    worse = {"metrics": {**near.records[0]["metrics"], "auc": 0.4}}
    report = with_parts(near, **{"year_1994 → 1990 to below 1999": worse, "year_1994..": {}})
    (verdict,) = judged(report, {"metric": "auc", "slice": "year=1994", "at_least": 0.5})
    assert not verdict.kept
    assert "auc of like, year=1994 → 1990 to below 1999, is 0.4000" in verdict.text


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "acu"}, "bless rule 1: no metric 'acu' of like; did you mean 'auc'"),
        ({"metric": "auc", "task": "lik"}, "bless rule 1: the model has no task 'lik'; did you"),
        ({"metric": "auc", "slice": "genre=wra"}, "no example is in slice 'genre=wra'; did you"),
    ],
)
def test_rules_of_what_there_is_not(
    reports: dict[str, Report], rule: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        judged(with_parts(reports["near"], genre_war={}), {**rule, "at_least": 0.5})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"metric": "auc"}, "needs `at_least`, `at_most` or `worse_by`"),
        ({"metric": "acu", "worse_by": 0.1}, "not 'acu'; did you mean 'auc'"),
        ({"metric": "novelty@10", "worse_by": 0.1}, "needs a metric that can be worse"),
        ({"metric": "auc", "worse_by": -0.1}, "worse_by"),
        ({"metric": "auc", "atleast": 0.1}, "did you mean 'at_least'"),
        ([], "bless"),
    ],
)
def test_what_is_no_rule(block: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shop.declare(bless=block)


def test_slices_of_rules_are_measured_too() -> None:
    rules = [
        {"metric": "auc", "at_least": 0.5, "slice": part}
        for part in ("brand=acme", "price=0..1", "genres", "brand=acme")
    ]
    declared = shop.declare(bless=rules, evaluate={"slices": ["device", "price"]})
    # A part is not always one of those that its feature falls into by itself.
    assert declared.slices == ["device", "price", "brand=acme", "price=0..1", "genres"]
    assert shop.declare(bless=rules[0]).slices == ["brand=acme"]


def test_the_current_model_is_the_newest_other_one(tmp_path: Path) -> None:
    assert current_version(tmp_path / "served", None) is None
    digests = {}
    for number in (1, 2, 10):
        version = tmp_path / "served" / str(number)
        (version / "assets.extra").mkdir(parents=True)
        (version / "saved_model.pb").write_text(f"model {number}")
        digests[number] = digest_of_export(version)
    (tmp_path / "served" / ".push.lock").touch()
    served = tmp_path / "served"
    (served / "10" / "assets.extra" / "evaluation.json").write_text("{}")  # by the push
    assert digest_of_export(served / "10") == digests[10]
    assert current_version(served, "another") == (served / "10", digests[10])
    assert current_version(served, digests[10]) == (served / "2", digests[2])
