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


class Ranks:
    """Means over users of HR@K, recall@K, NDCG@K, and of the reciprocal rank.

    HR@K: whether one of the first K items is a target. Recall@K: the share of the targets among
    them. NDCG@K: Σ 1/log₂(1 + rank) over the targets among them, over what the best order gives.
    MRR: 1 over the rank of the first target, among all candidates.

    Args:
        cutoffs: K.
    """

    def __init__(self, cutoffs: Sequence[int]) -> None:
        self.cutoffs = cutoffs
        self.sums: dict[str, float] = defaultdict(float)
        self.count = 0

    def add_users(
        self, found: Array, ahead: Array, targets: Sequence[Array], unknown: Array
    ) -> None:
        """Adds users, of all whose candidates are ranked.

        Args:
            found: (users, K) best ids, the best first.
            ahead: (users,) how many items come before the user's first target.
            targets: known ids, by user.
            unknown: (users,) how many more targets there are.
        """
        counts = np.array([len(t) for t in targets]) + unknown
        hits = np.array([np.isin(f, t) for f, t in zip(found, targets, strict=True)])
        ranked = np.array([len(t) > 0 for t in targets])
        self._add("mrr", np.where(ranked, 1 / (1 + ahead), 0))
        discounts = 1 / np.log2(2 + np.arange(max(self.cutoffs)))
        for k in self.cutoffs:
            of_best = hits[:, :k]
            self._add(f"hr@{k}", np.any(of_best, axis=1))
            self._add(f"recall@{k}", of_best.sum(axis=1) / counts)
            gain = of_best @ discounts[: of_best.shape[1]]
            self._add(f"ndcg@{k}", gain / np.cumsum(discounts)[np.minimum(counts, k) - 1])
        self.count += len(targets)

    def add_targets(self, ahead: Array, targets: Sequence[Array], unknown: Array) -> None:
        """Adds users each of whose targets is ranked alone; a user counts by their mean.

        Args:
            ahead: (users, most targets) how many candidates come before each.
            targets: known ids, by user.
            unknown: (users,) how many more targets there are, which nobody finds.
        """
        counts = np.array([len(t) for t in targets])
        real = np.arange(ahead.shape[1]) < counts[:, np.newaxis]

        def mean(values: Array) -> Array:
            return np.where(real, values, 0).sum(axis=1) / (counts + unknown)

        self._add("mrr", mean(1 / (1 + ahead)))
        for k in self.cutoffs:
            self._add(f"hr@{k}", mean(ahead < k))
            self._add(f"recall@{k}", mean(ahead < k))
            self._add(f"ndcg@{k}", mean(np.where(ahead < k, 1 / np.log2(2 + ahead), 0)))
        self.count += len(targets)

    def _add(self, name: str, values: Any) -> None:
        self.sums[name] += float(np.sum(values))

    def means(self) -> dict[str, float | None]:
        """By metric, in the order of the cutoffs, MRR last."""
        names = [f"{name}@{k}" for k in self.cutoffs for name in ("hr", "recall", "ndcg")]
        return {name: self.sums[name] / self.count for name in (*names, "mrr")}


class Sampled:
    """Candidates that stand beside a user's targets.

    They are drawn by the user's key and nothing else: the same ones in every run.

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
        self.given = _given(config.file, ids, users) if config.file else {}
        popular = config.candidates == "popularity"
        self.weights = catalogue.counts if popular else np.ones(len(catalogue.keys))

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
        return 1 + np.argsort(times)[:wanted]


def _given(path: str, ids: Mapping[str, int], users: Sequence[str]) -> dict[str, Array]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = dict(line.split(maxsplit=1) for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise UserError(
            f"top_k.file {path} cannot be read ({error}); it has a line per user: the user, then "
            "items, separated by blanks"
        ) from None
    given = {}
    for user in users:
        if user not in lines:
            raise UserError(f"top_k.file {path} has no line of user {user!r}")
        known = [ids[item] for item in lines[user].split() if item in ids]
        given[user] = np.array(known, np.int64)
    return given
