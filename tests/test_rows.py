"""Whatever is held in memory or on disk, every row comes back once, with its user's others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrec import rows as module
from tfrec.rows import Rows

COUNT = 5_000


def filled(order: Any = None, labels: Any = None, expected: int = COUNT) -> Rows:
    rng = np.random.default_rng(0)
    users, scores = rng.integers(0, 300, COUNT), rng.random((2, COUNT))
    labels = rng.integers(0, 2, COUNT).astype(float) if labels is None else labels
    order = np.arange(COUNT) if order is None else order
    rows = Rows(["click", "buy"], ["model", "other"], 1, expected)
    for start in range(0, COUNT, 700):
        some = order[start : start + 700]
        of_models = [{"click": s[some], "buy": 1 - s[some]} for s in scores]
        member = (users[some] < 10)[:, np.newaxis]
        of_tasks = {"click": labels[some], "buy": np.full(len(some), np.nan)}
        rows.add(users[some], np.ones(len(some)), of_tasks, of_models, member)
    return rows


@pytest.mark.parametrize("held", [10**9, 1_000])
def test_parts_hold_whole_users_and_every_row_once(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(module, "ROWS_OF_PART", 400)
    monkeypatch.setattr(module, "ROWS_HELD", held)
    rows = filled()
    for _ in range(2):  # they can be read again
        parts = list(rows.parts())
        assert len(parts) > 8
        assert max(map(len, parts)) < 1_000
        users = [set(part["user"].tolist()) for part in parts]
        assert sum(map(len, users)) == len(set.union(*users)) == 300
        found = np.sort(np.concatenate(parts), order=["user", "scores"])
        alike = np.sort(next(whole().parts()), order=["user", "scores"])
        assert found.tobytes() == alike.tobytes()
    np.testing.assert_array_equal(found["slices"][:, 0], found["user"] < 10)
    of_click, of_buy = found["scores"][:, 1].T
    np.testing.assert_allclose(of_buy, 1 - of_click, atol=1e-6)


def whole() -> Rows:
    return filled(expected=0)


def test_temporary_files_are_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "ROWS_HELD", 1_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = filled()
    assert list(tmp_path.iterdir())
    del rows
    assert not list(tmp_path.iterdir())


def test_the_digest_tells_what_was_measured_and_not_in_which_order() -> None:
    backwards = np.arange(COUNT)[::-1]
    assert filled().digests == filled(backwards).digests
    others = filled(labels=np.ones(COUNT)).digests
    assert others["click"] != filled().digests["click"]
    assert others["buy"] == filled().digests["buy"]
