"""The page of statistics and anomalies, in a browser."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pipeline import page, schema
from pipeline.validation import validate
from tests.pipeline import shop
from tests.pipeline.test_validation import data, statistics
from tests.serving.browser import CHROMIUM, Browser

SHOWN = "[...document.querySelectorAll('.card')].filter(c => c.checkVisibility())"
NAMES = f"{SHOWN}.map(c => c.dataset.name)"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_in_a_narrow_window(tmp_path: Path) -> None:
    """Nothing sticks out or complains, and columns can be found and sorted."""
    before = statistics(data())
    odd = data(seed=1, device=[[b"watch, of a name that is far too long"]] * 1_000)
    found = {"train": before, "validation": statistics(odd, "validation")}
    known = schema.infer([before], shop.declare())
    anomalies = [anomaly for split in found.values() for anomaly in validate(split, known)]
    path = tmp_path / "statistics.html"
    path.write_text(page.render("shop", found, anomalies), encoding="utf-8")
    with contextlib.closing(Browser(tmp_path / "profile")) as browser:
        browser.screen(390)
        browser.open(path.as_uri())
        assert "far too long" in browser.wait_for(".anomalies", "watch")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert sorted(browser.run(NAMES)) == sorted(data())
        browser.run("find.value = 'DEV'; find.dispatchEvent(new Event('input'))")
        assert browser.run(NAMES) == ["device"]
        browser.run("find.value = ''; find.dispatchEvent(new Event('input'))")
        browser.run("order.value = 'odd'; order.dispatchEvent(new Event('change'))")
        assert browser.run(NAMES)[0] == "device"
        assert browser.complaints == []
