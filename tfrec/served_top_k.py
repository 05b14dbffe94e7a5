"""Measures an export of a model of all items by what it recommends to raw examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.config import TopKConfig
from tfrec.data import load_transform
from tfrec.figures import REPLICATES, Report
from tfrec.metrics import Array
from tfrec.ranks import Ranks
from tfrec.served import RAW, ServedEvaluator
from tfrec.top_k import TopKEvaluator


class ServedTopK(TopKEvaluator):
    """Measures a SavedModel by its signature `recommend`, among all items without the seen ones.

    The figures are those of the first items: what a list does not hold has no rank, so that there
    is no MRR.

    Args:
        asked: the SavedModel, and the examples that it is asked with.

    Raises:
        UserError: as of `TopKEvaluator`.
    """

    def __init__(self, asked: ServedEvaluator) -> None:
        self.asked = asked
        asked.transform = load_transform(asked.directory)  # for ids of the targets, and slices
        super().__init__(asked.directory, asked.features, asked.split, TopKConfig())

    def read(self) -> Iterator[Any]:
        for inputs, labels, weights, keys in self.asked.read():
            raw = {f"{RAW}{name}": values for name, values in inputs.pop(RAW).items()}
            yield {**inputs, **raw}, labels, weights, keys

    def measured(self, name: str, wanted: Sequence[str], replicates: int, alone: bool) -> Report:
        """All that is measured, and the whole of recommending what most users took.

        For the arguments see `measured_export`.
        """
        rankings = [(name, self._recommended)]
        rankings += [] if alone else [("popularity", self._popular)]
        return self._report(rankings, wanted, replicates, _of_lists)

    def _recommended(self, inputs: dict[str, Any], targets: Any, seen: Any) -> Any:
        """Ids (users, K) of what is recommended, 0 for items that the data set does not know."""
        count, most = len(seen), max(self.config.cutoffs)
        names = np.array(["", *self.catalogue.keys], object)
        columns = {n.removeprefix(RAW): v for n, v in inputs.items() if n.startswith(RAW)}
        options = {
            "k": tf.fill([count], most),
            "exclude_seen": tf.fill([count], False),  # the exclusion is the one of runs
            "exclude": tf.constant(names[seen.numpy()].reshape(count, -1), tf.string),
        }
        answer = self.asked.ask("recommend", columns | options)
        items = answer["items"].numpy()
        ids = [[self._ids.get(item.decode(), 0) for item in row] for row in items]
        return tf.constant(ids, tf.int64, [count, items.shape[1]]), tf.zeros(count)

    def _popular(self, inputs: dict[str, Any], targets: Any, seen: Any) -> Any:
        """Ids (users, K) of the items with most training events."""
        order = 1 + np.argsort(-self.catalogue.counts, kind="stable")
        most = min(max(self.config.cutoffs), len(order))
        found = np.zeros((len(seen), most), np.int64)
        for row, excluded in zip(found, seen.numpy(), strict=True):
            first: Array = order[: most + len(excluded)]
            left = first[~np.isin(first, excluded)][:most]
            row[: len(left)] = left
        return tf.constant(found), tf.zeros(len(found))


def _of_lists(ranks: Ranks) -> dict[str, Any]:
    """A record without what lists do not tell."""
    record = ranks.record()
    for values in (record["metrics"], record["intervals"], record["replicates"]):
        del values["mrr"]
    return record


def measured_export(
    name: str,
    asked: ServedEvaluator,
    wanted: Sequence[str] = (),
    replicates: int = REPLICATES,
    alone: bool = False,
) -> Report:
    """All that is measured of an export, whatever it answers.

    Args:
        name: of the export.
        asked: the export, and the examples that it is asked with.
        wanted: slices to measure it on, too, see `tfrec.slices`.
        replicates: resamplings for intervals.
        alone: leaves the baselines out.
    """
    if "recommend" in asked.model.signatures:
        return ServedTopK(asked).measured(name, wanted, replicates, alone)
    return asked.measured(name, asked.score, wanted, replicates, alone)
