"""Metrics of ranks, and the candidates of sampled ones."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.catalogue import Catalogue
from tfrec.config import TopKConfig
from tfrec.metrics import Array
from tfrec.strict import UserError
from tfrec.tallies import or_none, with_intervals


class Ranks:
    """Means over users, of the sample and of every resampling.

    Of where the targets are, for every cutoff K:
    HR@K: whether one of the first K items is a target. Recall@K: the share of the targets among
    them. NDCG@K: Σ 1/log₂(1 + rank) over the targets among them, over what the best order gives.
    MAP@K: mean of the precisions at the ranks of the targets among them, over min(targets, K) of
    them. MRR: 1 over the rank of the first target, among all candidates.

    Of what is recommended, where all items are ranked: coverage@K: the share of all items that are
    among the first K of some user. Novelty@K: the mean of −log₂ of the share of the training events
    that are of the item. Popularity_lift@K: mean training events of the items recommended, over
    those of the users' known targets; 1 is as popular as what users take.

    Args:
        cutoffs: K.
        counts: (items,) training events by id, where lists are looked at too.
        replicates: number of resamplings.
    """

    def __init__(
        self, cutoffs: Sequence[int], counts: Array | None = None, replicates: int = 0
    ) -> None:
        self.cutoffs, self.counts, self.replicates = cutoffs, counts, replicates
        self.sums: dict[str, Array] = defaultdict(lambda: np.zeros(1 + replicates))
        self.count, self.users = np.zeros(1 + replicates), 0
        items = 0 if counts is None else len(counts)
        self.covered = {k: np.zeros(1 + items, bool) for k in cutoffs if counts is not None}

    def add_users(
        self,
        found: Array,
        ahead: Array,
        targets: Sequence[Array],
        unknown: Array,
        drawn: Array | None = None,
    ) -> None:
        """Adds users, of all whose candidates are ranked.

        Args:
            found: (users, K) best ids, the best first; 0 where a list has no item.
            ahead: (users,) how many items come before the user's first target.
            targets: known ids, by user.
            unknown: (users,) how many more targets there are.
            drawn: (users, replicates) how often they count in every resampling.
        """
        counts = np.array([len(t) for t in targets]) + unknown
        hits = np.array([np.isin(f, t) for f, t in zip(found, targets, strict=True)])
        ranked = np.array([len(t) > 0 for t in targets])
        values = {"mrr": np.where(ranked, 1 / (1 + ahead), 0)}
        discounts = 1 / np.log2(2 + np.arange(max(self.cutoffs)))
        precisions = hits * np.cumsum(hits, axis=1) / np.arange(1, 1 + hits.shape[1])
        for k in self.cutoffs:
            of_best = hits[:, :k]
            values[f"hr@{k}"] = np.any(of_best, axis=1)
            values[f"recall@{k}"] = of_best.sum(axis=1) / counts
            gain = of_best @ discounts[: of_best.shape[1]]
            values[f"ndcg@{k}"] = gain / np.cumsum(discounts)[np.minimum(counts, k) - 1]
            values[f"map@{k}"] = precisions[:, :k].sum(axis=1) / np.minimum(counts, k)
        if self.counts is not None:
            values |= self._of_lists(found, targets, self.counts)
        self._add(values, len(targets), drawn)

    def _of_lists(self, found: Array, targets: Sequence[Array], counts: Array) -> dict[str, Array]:
        """Marks what is recommended as covered, and tells how popular it is."""
        surprise = -np.log2(np.maximum(counts, 1) / counts.sum())
        taken = np.array([counts[t - 1].mean() if len(t) else 0.0 for t in targets])
        values = {"taken": taken}
        for k, covered in self.covered.items():
            first = found[:, :k]
            covered[first] = True
            real = first > 0
            items = np.maximum(real.sum(axis=1), 1)
            values[f"novelty@{k}"] = (surprise[first - 1] * real).sum(axis=1) / items
            popular = (counts[first - 1] * real).sum(axis=1) / items
            values[f"popular@{k}"] = popular * (taken > 0)
            values[f"listed@{k}"] = np.any(real, axis=1)
        return values

    def add_targets(
        self,
        ahead: Array,
        targets: Sequence[Array],
        unknown: Array,
        drawn: Array | None = None,
    ) -> None:
        """Adds users each of whose targets is ranked alone; a user counts by their mean.

        Args:
            ahead: (users, most targets) how many candidates come before each.
            targets: known ids, by user.
            unknown: (users,) how many more targets there are, which nobody finds.
            drawn: (users, replicates) how often they count in every resampling.
        """
        counts = np.array([len(t) for t in targets])
        real = np.arange(ahead.shape[1]) < counts[:, np.newaxis]

        def mean(values: Array) -> Array:
            return np.where(real, values, 0).sum(axis=1) / (counts + unknown)

        values = {"mrr": mean(1 / (1 + ahead))}
        for k in self.cutoffs:
            values[f"hr@{k}"] = mean(ahead < k)
            values[f"recall@{k}"] = mean(ahead < k)
            values[f"ndcg@{k}"] = mean(np.where(ahead < k, 1 / np.log2(2 + ahead), 0))
            values[f"map@{k}"] = mean(np.where(ahead < k, 1 / (1 + ahead), 0))
        self._add(values, len(targets), drawn)

    def _add(self, values: dict[str, Array], users: int, drawn: Array | None) -> None:
        drawn = np.zeros((users, self.replicates), np.uint8) if drawn is None else drawn
        weights = np.concatenate([np.ones((users, 1)), drawn], axis=1)
        for name, of_users in values.items():
            self.sums[name] += of_users @ weights
        self.count += weights.sum(axis=0)
        self.users += users

    def _all(self) -> dict[str, Array]:
        """Figures (1 + replicates,), in the order of the cutoffs."""
        kinds = ("hr", "recall", "ndcg", "map")
        names = [f"{name}@{k}" for k in self.cutoffs for name in kinds]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {name: self.sums[name] / self.count for name in (*names, "mrr")}
            for k in self.covered:
                found[f"novelty@{k}"] = self.sums[f"novelty@{k}"] / self.sums[f"listed@{k}"]
                lift = self.sums[f"popular@{k}"] / self.sums["taken"]
                found[f"popularity_lift@{k}"] = lift
        return found

    def means(self) -> dict[str, float | None]:
        """By metric; those of lists last."""
        found = {name: or_none(values[0]) for name, values in self._all().items()}
        shares = {f"coverage@{k}": float(c[1:].mean()) for k, c in self.covered.items()}
        return {**found, **shares}

    def record(self) -> dict[str, Any]:
        """All of it, JSON-ready. Fewer users cover fewer items: coverage has no interval."""
        resampled = {name: values[1:] for name, values in self._all().items()}
        return {
            "examples": self.users,
            "users": self.users,
            **with_intervals(self.means(), resampled, self.users),
            "curve": [],
        }


class Sampled:
    """Candidates that stand beside a user's targets.

    They are drawn by the user's key and nothing else: the same ones in every run.

    Attributes:
        left_out: says how many given ones the data set does not know; "" if it knows all.

    Args:
        config: how they are chosen.
        catalogue: of all items.
        ids: by key of an item.
        users: keys.
        taken: ids of what each user ever took, never among the drawn.

    Raises:
        UserError: the file of given candidates lacks a user, or names no known item for one.
    """

    def __init__(
        self,
        config: TopKConfig,
        catalogue: Catalogue,
        ids: Mapping[str, int],
        users: Sequence[str],
        taken: Sequence[Array],
    ) -> None:
        self.config, self.users, self.taken = config, users, taken
        self.given, self.left_out = _given(config.file, ids, users) if config.file else ({}, "")
        popular = config.candidates == "popularity"
        self.weights = catalogue.counts if popular else np.ones(len(catalogue.keys))

    @property
    def complete(self) -> bool:
        """Whether there are as many items to draw as are wanted, for every user."""
        return self.config.negatives <= len(self.weights) - max(map(len, self.taken))

    def candidates(self, number: int) -> Array:
        """Ids that stand beside the targets of a user."""
        user = self.users[number]
        if self.config.candidates == "given":
            return self.given[user]
        rng = np.random.default_rng(zlib.crc32(user.encode()))
        # The smallest of exponential times with these rates: drawn without replacement.
        times = rng.exponential(size=len(self.weights)) / self.weights
        times[self.taken[number] - 1] = np.inf
        wanted = min(self.config.negatives, len(times) - len(self.taken[number]))
        return 1 + np.argpartition(times, wanted - 1)[:wanted]


def _given(path: str, ids: Mapping[str, int], users: Sequence[str]) -> tuple[dict[str, Array], str]:
    """Ids by user, and what is told of those that have none."""
    lines: dict[str, str] = {}
    try:
        with Path(path).open(encoding="utf-8") as file:
            for line in filter(str.strip, file):
                user, items = line.split(maxsplit=1)
                if user in lines:
                    raise UserError(f"top_k.file {path} has two lines of user {user!r}; join them")
                lines[user] = items
    except (OSError, ValueError) as error:
        raise UserError(
            f"top_k.file {path} cannot be read ({error}); it has a line per user: the user, then "
            "items, separated by blanks"
        ) from None
    given, named = {}, 0
    for user in users:
        if user not in lines:
            raise UserError(f"top_k.file {path} has no line of user {user!r}")
        beside = lines[user].split()
        known = [ids[item] for item in beside if item in ids]
        if not known:  # the target would be the first of one
            raise UserError(
                f"top_k.file {path} names no item that the data set knows beside user {user!r}; "
                "it takes items as the events call them"
            )
        given[user] = np.array(known, np.int64)
        named += len(beside)
    unknown = named - sum(map(len, given.values()))
    told = f"{unknown:,} of the {named:,} given candidates are unknown items and left out"
    return given, told if unknown else ""
