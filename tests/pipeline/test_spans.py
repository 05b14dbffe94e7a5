"""What a day's run analyses when the days before are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import transforming
from pipeline.options import checked
from pipeline.run import run
from pipeline.spans import PARTS, KeptAnalysis, Span
from tests.pipeline import shop

DAY = 86_400
FEATURES = {
    name: shop.FEATURES[name] for name in ("user", "item", "genres", "price", "price_scaled", "age")
}


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforming, "WORTH_KEEPING", 0)


class Shop:
    """A shop whose events come by days, each in a file of its own.

    What the declaration says changes with their number, but for what is learned of an event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.days = folder, {}  # type: tuple[Path, dict[int, list[shop.Row]]]
        rows = shop.events()
        for day in range(5):
            own = enumerate(rows[day::5])
            self.days[day] = [{**row, "time": day * DAY + place} for place, row in own]

    def prepare(self, days: list[int], output: str = "out", **options: Any) -> dict[str, Any]:
        """What `transform` has to say of these days."""
        train = [shop.write_csv(self.days[day], self.folder / f"{day}.csv") for day in days]
        rest = shop.write_csv(self.days[0][:5], self.folder / "rest.csv")
        declaration = shop.declare(
            name=f"{len(days)} days",
            max_rejected=len(days) / 100,
            shards=len(days),
            show=["title", "brand"][: len(days) % 2],
            source={"format": "csv", "train": train, "validation": rest, "test": rest},
            split=None,
            features=FEATURES,
            labels={"like": {"column": "rating", "at_least": 4}},
            weight=None,
            histories={},
            crosses=[],
            validation={"on_anomaly": "warn"},
        )
        place = self.folder / output
        return run(declaration, place, PipelineOptions(checked([])), **options)["transform"]

    def count(self, *days: int) -> int:
        return sum(len(self.days[day]) for day in days)

    def learned(self, output: str) -> list[Any]:
        """All that was learned, and the examples that were made with it."""
        place = self.folder / output / "transform"
        vocabularies = [shop.vocabulary(place, name) for name in ("user", "item", "genres")]
        return [vocabularies, shop.stored(place, "test")]


@pytest.fixture
def days(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def same(found: Any, expected: Any) -> bool:
    """Numbers may differ by rounding: sums are taken in another order."""
    if isinstance(found, dict):
        return same(sorted(found.items()), sorted(expected.items()))
    if isinstance(found, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    if hasattr(found, "dtype") and found.dtype.kind == "f":
        return found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    return bool((found == expected).all()) if hasattr(found, "dtype") else found == expected


def test_a_week(days: Shop) -> None:
    """New days are analysed, and old ones that have changed; all of it with --force."""
    assert days.prepare([0, 1])["analysed"] == [days.count(0, 1)] * 2
    assert days.prepare([0, 1, 2, 3])["analysed"] == [days.count(2, 3), days.count(0, 1, 2, 3)]
    days.days[0][0]["price"] = 12.5
    late = {**days.days[0][0], "item": "late", "time": days.days[0][5]["time"]}
    days.days[0].append(late)
    assert days.prepare([0, 1, 2, 3, 4])["analysed"][0] == days.count(0, 1, 4)
    folders = {p.name for p in (days.folder / "out" / "analysis").iterdir() if p.is_dir()}
    assert len(folders) == 3  # of days 0 and 1, 2 and 3, 4
    by_spans = days.learned("out")
    assert days.prepare([0, 1, 2, 3, 4], force=True)["analysed"] == [days.count(0, 1, 2, 3, 4)] * 2
    assert same(by_spans, days.learned("out"))


def test_spans_stay_few(tmp_path: Path) -> None:
    kept = KeptAnalysis(tmp_path, "settings")
    sizes = [900, 30, 10, 20, 40]
    found = {place: (place * DAY, size, size) for place, size in enumerate(sizes)}
    plan = kept.plan(found)
    assert [span.events for span in plan.spans] == [900, 30, 30, 40]
    assert plan.spans[2] == Span(until=3 * DAY, events=30, digest=30)
    assert plan.new == plan.spans


def test_what_is_kept_is_of_the_same_settings_and_whole(tmp_path: Path) -> None:
    plan = KeptAnalysis(tmp_path / "kept", "settings").plan({0: (5, 10, 77)})
    part = tmp_path / PARTS / plan.spans[0].key.key
    part.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").mkdir()
    plan.keep(tmp_path)
    assert KeptAnalysis(tmp_path / "kept", "settings").known == plan.spans
    assert not (tmp_path / "kept" / "old").exists()
    assert not KeptAnalysis(tmp_path / "kept", "others").known
    (tmp_path / "kept" / part.name).rmdir()
    assert not KeptAnalysis(tmp_path / "kept", "settings").known


def test_what_is_learned_is_told_from_what_is_not() -> None:
    """The source changes nothing of it, a vocabulary's threshold does."""
    declared = shop.declare()
    other = shop.declare(
        source={"format": "csv", "path": ["a", "b"]},
        labels=None,
        weight=None,
        histories=None,
        crosses=None,
    )
    assert declared.analysis() != other.analysis()
    assert other.analysis() == shop.declare(labels=None, histories=None, crosses=None).analysis()
    features = {**shop.FEATURES, "item": {**shop.FEATURES["item"], "min_count": 9}}
    assert declared.analysis() != shop.declare(features=features).analysis()
