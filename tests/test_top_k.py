"""Metrics of rankings, by hand and against plain Python over raw events."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.support import randomise
from tfrec import catalogue
from tfrec.config import TopKConfig
from tfrec.features import Features, Table
from tfrec.figures import Report
from tfrec.models.registry import find
from tfrec.ranks import Ranks
from tfrec.strict import NotFiniteError, UserError
from tfrec.top_k import TopKEvaluator

SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)  # what these ranks gain


def ids(*values: int) -> Any:
    return np.array(values, np.int64)


def test_ranks_by_hand() -> None:
    ranks = Ranks([1, 3])
    found = np.array([[4, 7, 9], [5, 1, 2], [8, 3, 6]])
    # Of three targets two are found; one target is found first; none of two, one of them unknown.
    targets = [ids(2, 7, 9), ids(5), ids(1)]
    ranks.add_users(found, np.array([1, 0, 4]), targets, np.array([0, 0, 1]))
    assert ranks.means() == pytest.approx(
        {
            "hr@1": 1 / 3,
            "recall@1": 1 / 3,
            "ndcg@1": 1 / 3,
            "map@1": 1 / 3,
            "map@3": ((1 / 2 + 2 / 3) / 3 + 1) / 3,
            "hr@3": 2 / 3,
            "recall@3": (2 / 3 + 1) / 3,
            "ndcg@3": ((SECOND + THIRD) / (1 + SECOND + THIRD) + 1) / 3,
            "mrr": (1 / 2 + 1 + 1 / 5) / 3,
        }
    )


def test_users_whose_targets_are_all_unknown_count_as_missed() -> None:
    ranks = Ranks([2])
    ranks.add_users(np.array([[1, 2], [1, 2]]), np.array([0, 0]), [ids(), ids(1)], np.array([2, 0]))
    assert set(ranks.means().values()) == {0.5}
    alone = Ranks([2])
    alone.add_targets(np.array([[0, 9], [0, 9]]), [ids(), ids(1)], np.array([2, 0]))
    assert set(alone.means().values()) == {0.5}


def test_targets_ranked_alone_by_hand() -> None:
    ranks = Ranks([2])
    # The targets of the first user are at ranks 1 and 4, that of the second at 2, of two.
    ahead, targets = np.array([[0, 3], [1, 0]]), [ids(4, 5), ids(6)]
    ranks.add_targets(ahead, targets, np.array([0, 1]))
    assert ranks.means() == pytest.approx(
        {
            "hr@2": (1 / 2 + 1 / 2) / 2,
            "recall@2": (1 / 2 + 1 / 2) / 2,
            "ndcg@2": (1 / 2 + SECOND / 2) / 2,
            "map@2": (1 / 2 + 1 / 4) / 2,
            "mrr": ((1 + 1 / 4) / 2 + (1 / 2) / 2) / 2,
        }
    )


def test_lists_by_hand() -> None:
    ranks = Ranks([1, 2], np.array([8, 4, 2, 1, 1]))
    found, targets = np.array([[1, 2], [1, 5], [1, 3]]), [ids(3, 4), ids(2), ids()]
    ranks.add_users(found, np.array([4, 1, 0]), targets, np.array([0, 0, 1]))
    means = ranks.means()
    assert means["coverage@1"] == 1 / 5
    assert means["coverage@2"] == 4 / 5
    assert means["novelty@1"] == 1  # half of the events
    assert means["novelty@2"] == pytest.approx(((1 + 2) / 2 + (1 + 4) / 2 + (1 + 3) / 2) / 3)
    # Users without a known target have nothing to compare with.
    assert means["popularity_lift@1"] == pytest.approx((8 + 8) / (1.5 + 4))
    assert means["popularity_lift@2"] == pytest.approx((6 + 4.5) / (1.5 + 4))


def test_lists_that_end_early_are_of_the_items_that_they_have() -> None:
    ranks = Ranks([2], np.array([8, 4, 2, 1, 1]))
    found, targets = np.array([[2, 0], [0, 0]]), [ids(3), ids(2)]
    ranks.add_users(found, np.array([4, 4]), targets, np.array([0, 0]))
    means = ranks.means()
    assert means["coverage@2"] == 1 / 5
    assert means["novelty@2"] == 2  # a quarter of the events
    assert means["popularity_lift@2"] == pytest.approx(4 / (2 + 4))
    assert means["hr@2"] == 0


def test_resampled_users_count_as_often_as_they_are_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 3, (30, 4))
    found, targets = rng.integers(1, 9, (30, 3)), [ids(*rng.choice(9, 2) + 1) for _ in range(30)]
    ahead, unknown = rng.integers(0, 9, 30), rng.integers(0, 2, 30)
    counts = rng.integers(1, 50, 9)
    ranks = Ranks([2, 3], counts, replicates=4)
    for part in (slice(0, 11), slice(11, 30)):
        some = found[part], ahead[part], targets[part], unknown[part], drawn[part]
        ranks.add_users(*some)
    record = ranks.record()
    for number in range(4):
        copies = np.repeat(np.arange(30), drawn[:, number])
        alone = Ranks([2, 3], counts)
        of_copies = [targets[copy] for copy in copies]
        alone.add_users(found[copies], ahead[copies], of_copies, unknown[copies])
        for name, values in record["replicates"].items():
            assert values[number] == pytest.approx(alone.means()[name], abs=1e-6), name
    assert "coverage@2" in record["metrics"]
    assert "coverage@2" not in record["intervals"]


@pytest.fixture(scope="module")
def features(shop: Path) -> Features:
    """Of the shop, as if it did not know its last ten products."""
    found = Features.load(shop).with_labels(["bought"])
    products = found.table("product")
    fewer = Table("product", products.vocabulary - 10, products.oov + 10)
    tables = [fewer if table == products else table for table in found.tables]
    return dataclasses.replace(found, tables=tuple(tables))


@pytest.fixture(scope="module")
def model(features: Features) -> Any:
    made = find("mf").load()(features, dim=4)
    randomise(made)
    return made


class Events:
    """The shop's events by user and split, and what a model says of every item.

    Attributes:
        taken: by user, known items of the training split, and of all.
        bought: by user, known items bought in the test split, and how many others.
    """

    def __init__(self, shop: Path, features: Features, model: Any) -> None:
        self.ids = {key: i + 1 for i, key in enumerate(catalogue.load(shop, features).keys)}
        by_user: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        declared = Path(shop).parents[1] / "events.csv"
        with declared.open(newline="") as file:
            for row in csv.DictReader(file):
                event = (int(row["at"]), row["product"], int(row["rating"]))
                by_user[row["customer"]].append(event)
        self.before: dict[str, set[int]] = {}
        self.all: dict[str, set[int]] = {}
        self.targets: dict[str, tuple[list[int], int]] = {}
        for user, events in by_user.items():
            events.sort()
            test = events[len(events) * 9 // 10 :]
            self.before[user] = self.known(events[: -len(test)])
            self.all[user] = self.known(events)
            bought = [event for event in test if event[2] >= 4]
            if bought:
                known = sorted(self.known(bought))
                self.targets[user] = (known, len(bought) - len(known))
        table = ids_of_users(shop, features)
        users = model.users({"customer": tf.constant([table[user] for user in self.targets])})
        self.counts = catalogue.load(shop, features).counts
        self.scores = dict(
            zip(self.targets, model.scores(users, model.index()).numpy(), strict=True)
        )

    def known(self, events: list[tuple[int, str, int]]) -> set[int]:
        return {self.ids[item] for _, item, _ in events if item in self.ids}

    def order(self, user: str, items: Any) -> list[int]:
        """Best first; of equal ones the lower id."""
        return sorted(items, key=lambda item: (-self.scores[user][item - 1], item))


def ids_of_users(shop: Path, features: Features) -> dict[str, int]:
    lines = (shop / "vocabulary" / "customer.tsv").read_text().splitlines()[2:]
    return {line.split("\t")[2]: int(line.split("\t")[0]) for line in lines}


@pytest.fixture(scope="module")
def events(shop: Path, features: Features, model: Any) -> Events:
    return Events(shop, features, model)


def of_all(events: Events, k: int, remove_seen: bool) -> dict[str, float]:
    """Means over users, one after the other."""
    hits, recalls, gains, reciprocals, precisions = [], [], [], [], []
    covered: set[int] = set()
    surprises, popular, taken = [], [], []
    for user, (targets, unknown) in events.targets.items():
        seen = events.before[user] - set(targets) if remove_seen else set()
        order = events.order(user, set(events.ids.values()) - seen)
        places = sorted(order.index(target) for target in targets)
        first = [place for place in places if place < k]
        count = len(targets) + unknown
        best = sum(1 / math.log2(2 + place) for place in range(min(count, k)))
        hits.append(bool(first))
        recalls.append(len(first) / count)
        gains.append(sum(1 / math.log2(2 + place) for place in first) / best)
        reciprocals.append(1 / (1 + places[0]) if places else 0)
        precision = sum((1 + nth) / (1 + place) for nth, place in enumerate(first))
        precisions.append(precision / min(count, k))
        covered |= set(order[:k])
        of_list = [events.counts[item - 1] for item in order[:k]]
        surprises.append(np.mean([-math.log2(c / events.counts.sum()) for c in of_list]))
        if targets:
            popular.append(np.mean(of_list))
            taken.append(np.mean([events.counts[target - 1] for target in targets]))
    return {
        f"hr@{k}": np.mean(hits),
        f"recall@{k}": np.mean(recalls),
        f"ndcg@{k}": np.mean(gains),
        f"map@{k}": np.mean(precisions),
        "mrr": np.mean(reciprocals),
        f"novelty@{k}": np.mean(surprises),
        f"popularity_lift@{k}": np.mean(popular) / np.mean(taken),
        f"coverage@{k}": len(covered) / len(events.ids),
    }


def measured(shop: Path, features: Features, model: Any, **config: Any) -> dict[str, float | None]:
    config = {"cutoffs": [10], **config}
    ((_, metrics),) = (
        TopKEvaluator(shop, features, "test", TopKConfig(**config)).evaluate(model).items()
    )
    return metrics


@pytest.mark.parametrize("remove_seen", [True, False])
def test_all_items_are_ranked(
    shop: Path, features: Features, model: Any, events: Events, remove_seen: bool
) -> None:
    assert any(unknown for _, unknown in events.targets.values())
    assert max(len(targets) for targets, _ in events.targets.values()) > 1
    found = measured(shop, features, model, remove_seen=remove_seen)
    assert found == pytest.approx(of_all(events, 10, remove_seen))


def test_of_equal_scores_the_lower_id_is_first(
    shop: Path, features: Features, model: Any, events: Events
) -> None:
    equal = find("mf").load()(features, dim=4, stddev=0.0)
    events.scores, before = {u: np.zeros(len(events.ids)) for u in events.targets}, events.scores
    expected = of_all(events, 10, remove_seen=True)
    events.scores = before
    assert measured(shop, features, equal) == pytest.approx(expected)


def of_candidates(events: Events, others: dict[str, Any], k: int) -> dict[str, float]:
    """Each target alone among the others."""
    hits, reciprocals = [], []
    for user, (targets, unknown) in events.targets.items():
        places = [events.order(user, {target, *others[user]}).index(target) for target in targets]
        count = len(targets) + unknown
        hits.append(sum(place < k for place in places) / count)
        reciprocals.append(sum(1 / (1 + place) for place in places) / count)
    return {f"hr@{k}": np.mean(hits), f"recall@{k}": np.mean(hits), "mrr": np.mean(reciprocals)}


@pytest.mark.parametrize("candidates", ["uniform", "popularity"])
def test_drawn_candidates_are_never_what_the_user_took(
    shop: Path, features: Features, model: Any, events: Events, candidates: Any
) -> None:
    config = TopKConfig(candidates=candidates, negatives=8, cutoffs=[3], monitor="mrr")
    measuring, again = (TopKEvaluator(shop, features, "test", config) for _ in range(2))
    others = {}
    for number, user in enumerate(measuring.users):
        drawn = measuring.sampled.candidates(number)
        assert len(set(drawn.tolist())) == 8
        assert not set(drawn.tolist()) & events.all[user]
        np.testing.assert_array_equal(again.sampled.candidates(number), drawn)
        others[user] = drawn
    assert len({tuple(sorted(drawn)) for drawn in others.values()}) > 10
    assert measuring.protocol == f"8 {candidates} negatives"
    more = TopKEvaluator(shop, features, "test", config.model_copy(update={"negatives": 10_000}))
    assert more.protocol == f"up to 10000 {candidates} negatives"  # there are fewer items
    ((_, found),) = measuring.evaluate(model).items()
    for name, value in of_candidates(events, others, 3).items():
        assert found[name] == pytest.approx(value), name


def test_popular_candidates_are_drawn_more_often(shop: Path, features: Features) -> None:
    counts = catalogue.load(shop, features).counts
    means = []
    for candidates in ("uniform", "popularity"):
        config = TopKConfig(candidates=candidates, negatives=8)
        sampled = TopKEvaluator(shop, features, "test", config).sampled
        drawn = [sampled.candidates(number) for number in range(len(sampled.users))]
        means.append(np.mean([counts[d - 1].mean() for d in drawn]))
    assert means[1] > means[0]


def test_given_candidates(
    shop: Path, features: Features, model: Any, events: Events, tmp_path: Path
) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "others.txt"
    keys = list(events.ids)
    chosen = {user: rng.choice(keys, 9, replace=False) for user in events.targets}
    file.write_text("".join(f"{user} {' '.join(c)} nobody\n" for user, c in chosen.items()))
    config = {"candidates": "given", "file": str(file), "cutoffs": [3], "monitor": "mrr"}
    found = measured(shop, features, model, **config)
    others = {user: [events.ids[key] for key in c] for user, c in chosen.items()}
    for name, value in of_candidates(events, others, 3).items():
        assert found[name] == pytest.approx(value), name

    users = len(chosen)
    told = f"; {users} of the {10 * users} given candidates are unknown items and left out"
    report = TopKEvaluator(shop, features, "test", TopKConfig(**config)).report("mf", model)
    assert report.text().startswith(f"test, {users} users{told}\n")
    file.write_text("".join(f"{user} {' '.join(c)}\n" for user, c in chosen.items()))
    known = TopKEvaluator(shop, features, "test", TopKConfig(**config))
    assert known.about() == f"test, {users} users"

    missing, *rest = chosen
    file.write_text("".join(f"{user} {' '.join(chosen[user])}\n" for user in rest))
    with pytest.raises(UserError, match=f"has no line of user '{missing}'"):
        measured(shop, features, model, **config)
    with file.open("a") as lines:
        lines.write(f"{missing} nobody no-one\n")
    with pytest.raises(UserError, match=f"names no item .* knows beside user '{missing}'"):
        measured(shop, features, model, **config)
    with file.open("a") as lines:
        lines.write(f"{missing} {' '.join(chosen[missing])}\n")
    with pytest.raises(UserError, match=f"has two lines of user '{missing}'"):
        measured(shop, features, model, **config)


def test_limited_users_are_the_same_ones(shop: Path, features: Features) -> None:
    config = TopKConfig(users=7)
    some = TopKEvaluator(shop, features, "test", config, limited=True)
    every = TopKEvaluator(shop, features, "test", config)
    assert some.users == every.users[:7]
    assert len(every.users) > 7


def test_popularity_stands_beside_the_model(
    shop: Path, features: Features, model: Any, events: Events
) -> None:
    measuring = TopKEvaluator(shop, features, "test", TopKConfig(cutoffs=[10]))
    compared = measuring.compare("mf", model)
    counts = catalogue.load(shop, features).counts
    events.scores, before = dict.fromkeys(events.targets, counts), events.scores
    expected = of_all(events, 10, remove_seen=True)
    events.scores = before
    assert compared["popularity"][measuring.protocol] == pytest.approx(expected)


def test_a_report_has_slices_of_users(
    shop: Path, features: Features, model: Any, events: Events, tmp_path: Path
) -> None:
    measuring = TopKEvaluator(shop, features, "test", TopKConfig(cutoffs=[10]))
    slices = ["customer=c3", "user_events"]
    report = measuring.report("mf", model, slices, replicates=30)
    assert [(r["name"], r["slice"]) for r in report.records] == [
        ("mf", None),
        ("mf", "customer=c3"),
        ("mf", "user_events=10–99"),
        ("popularity", None),
    ]
    whole, alone, all_of_them, _ = report.records
    assert whole["metrics"] == pytest.approx(of_all(events, 10, remove_seen=True))
    assert all_of_them["metrics"] == whole["metrics"]
    assert (alone["users"], alone["intervals"]["mrr"]) == (1, None)
    order = events.order("c3", set(events.ids.values()) - events.before["c3"])
    first = min(order.index(target) for target in events.targets["c3"][0])
    assert alone["metrics"]["mrr"] == pytest.approx(1 / (1 + first))
    low, high = whole["intervals"]["ndcg@10"]
    assert low < whole["metrics"]["ndcg@10"] < high

    # Another protocol's figures stand beside these; the same one's take their place.
    path = tmp_path / "test.json"
    config = TopKConfig(candidates="uniform", negatives=8, cutoffs=[3], monitor="mrr")
    sampled = TopKEvaluator(shop, features, "test", config).report("mf", model, replicates=30)
    for found in (report, sampled, sampled):
        found.save(path)
    assert Report.load(path).records == [*report.records, *sampled.records]
    assert {*report.digests.values()} == {*sampled.digests.values()}


def test_scores_that_are_not_finite_are_told(shop: Path, features: Features) -> None:
    broken = find("mf").load()(features, dim=4)
    table = broken.vectors["item"].table
    table.assign(np.full(table.shape, np.nan))
    with pytest.raises(NotFiniteError, match="not finite"):
        measured(shop, features, broken)
