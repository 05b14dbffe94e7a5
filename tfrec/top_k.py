"""How well models that score all items find what users take next."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.bootstrap import draws
from tfrec.catalogue import load
from tfrec.config import TopKConfig
from tfrec.data import evaluation_batches, readable
from tfrec.features import SPLITS, Features
from tfrec.figures import REPLICATES, Report
from tfrec.interactions import interactions
from tfrec.metrics import Array
from tfrec.models.base import Inputs, input_shapes
from tfrec.models.retrieval.base import RetrievalModel, without
from tfrec.ranks import Ranks, Sampled
from tfrec.slices import Slices
from tfrec.strict import NotFiniteError, UserError

BATCH_SIZE = 4096
SCORES_AT_ONCE = 2**24

Scorer = Callable[[Inputs], tf.Tensor]
Metrics = dict[str, dict[str, float | None]]


class TopKEvaluator:
    """Measures what a model recommends on one split.

    Every user counts once: with the history before the first of their positive events in the split,
    and the items of all of them as targets. Items that the vocabulary does not hold are targets
    that nobody finds.

    Args:
        directory: of the data set.
        features: with the label that tells positive events, if there is one.
        split: to measure on.
        config: among which items the targets are looked for.
        limited: looks at no more users than `config.users`.

    Raises:
        UserError: the data set has no such split or no positive event in it, or is not the one of
            the features.
    """

    def __init__(
        self,
        directory: str | Path,
        features: Features,
        split: str,
        config: TopKConfig,
        limited: bool = False,
    ) -> None:
        features.check_same_ids(Features.load(directory), str(directory))
        self.directory, self.features, self.split, self.config = directory, features, split, config
        self.batches = evaluation_batches(directory, features, split, BATCH_SIZE)
        self.catalogue = load(directory, features)
        self._ids = {key: i + 1 for i, key in enumerate(self.catalogue.keys)}
        self._find_users(config.users if limited else None)
        earlier = SPLITS[: SPLITS.index(split)]
        self.seen = self._taken(earlier) if config.remove_seen else [_NONE] * len(self.users)
        self.seen = [np.setdiff1d(s, t) for s, t in zip(self.seen, self.targets, strict=True)]
        self.sampled = None
        if config.candidates != "all":
            taken = self._taken(SPLITS)
            self.sampled = Sampled(config, self.catalogue, self._ids, self.users, taken)
        self._measure: dict[int, Any] = {}

    def read(self) -> Iterator[Any]:
        """Batches of inputs, labels, weights and keys, always in one order."""
        return readable(self.batches, self.directory)

    def _find_users(self, most: int | None) -> None:
        """Their keys, targets, and the rows of the split that they are measured at."""
        size, start = len(self.catalogue.keys), 0
        first: dict[str, tuple[int, int]] = {}  # time and row of the first positive event
        targets: dict[str, set[int | bytes]] = defaultdict(set)  # ids, and keys that have none
        for inputs, labels, _, keys in self.read():
            ids = inputs[self.features.item_id].numpy()
            positive = np.ones(len(ids), bool)
            for values in labels.values():
                positive = values.numpy() == 1
            users, items, times = (keys[name].numpy() for name in ("user", "item", "time"))
            for i in np.flatnonzero(positive):
                user = users[i].decode()
                event = (int(times[i]), start + int(i))
                first[user] = min(first.get(user, event), event)
                targets[user].add(int(ids[i]) if 0 < ids[i] <= size else items[i])
            start += len(ids)
        if not first:
            raise UserError(f"split {self.split} of {self.directory} has no positive event")
        self.users = sorted(first, key=lambda user: (zlib.crc32(user.encode()), user))[:most]
        self.rows = {first[user][1]: number for number, user in enumerate(self.users)}
        known = [sorted(t for t in targets[user] if isinstance(t, int)) for user in self.users]
        self.targets = [np.array(ids, np.int64) for ids in known]
        self.unknown = np.array(
            [len(targets[u]) - len(ids) for u, ids in zip(self.users, known, strict=True)]
        )

    def _taken(self, splits: tuple[str, ...]) -> list[Array]:
        """Ids of what every user took in the splits."""
        numbers = {user: number for number, user in enumerate(self.users)}
        taken: list[set[int]] = [set() for _ in self.users]
        for users, items in interactions(self.directory, splits):
            for user, item in zip(users, items, strict=True):
                number, known = numbers.get(user), self._ids.get(item)
                if number is not None and known is not None:
                    taken[number].add(known)
        return [np.array(sorted(ids), np.int64) for ids in taken]

    @property
    def protocol(self) -> str:
        """What the figures are of; those of two protocols cannot be compared."""
        if self.config.candidates == "all":
            return "all items, seen ones removed" if self.config.remove_seen else "all items"
        if self.config.candidates == "given":
            return "given candidates"
        drawn = f"{self.config.negatives} {self.config.candidates} negatives"
        return drawn if self.sampled is None or self.sampled.complete else f"up to {drawn}"

    @property
    def monitored(self) -> dict[str, tuple[tuple[str, float], ...]]:
        """Metrics that models are compared by."""
        return {self.protocol: ((self.config.monitor, 1.0),)}

    def evaluate(
        self, model: RetrievalModel, change: Callable[[Inputs], Inputs] | None = None
    ) -> Metrics:
        """Metrics by protocol.

        Args:
            model: to measure.
            change: of the users' inputs, some hundred users at once.
        """
        ranking = self._of_model(model)
        if change:
            unchanged = ranking
            ranking = lambda inputs, *ids: unchanged(change(inputs), *ids)  # noqa: E731
        return {self.protocol: self._ranks(ranking, None, 0)[None].means()}

    def lists(self, model: RetrievalModel, users: int, k: int) -> tuple[Inputs, Array, list[Array]]:
        """What is recommended to some users, who are in random order.

        Returns:
            Inputs of the users, (users, k) ids, 0 where no item is left, and the ids that they
            took.
        """
        numbers, inputs, _ = next(self._chunks())
        few, chosen = {name: value[:users] for name, value in inputs.items()}, numbers[:users]
        seen = _padded([self.seen[number] for number in chosen])
        ids, _ = model.best(model.users(few, training=False), model.index(), seen, tf.constant(k))
        return few, ids.numpy(), [self.targets[number] for number in chosen]

    def _of_model(self, model: RetrievalModel) -> Callable[..., Any]:
        """What ranks by a model's scores."""
        function = self._measure.get(id(model))
        if function is None:
            index = tf.function(model.index)
            score = self._ranking(lambda inputs, index: model.scores(model.users(inputs), index))
            self._measure[id(model)] = function = (index, score)
        index = function[0]()
        return lambda inputs, *ids: function[1](inputs, index, *ids)

    def gates(self, model: RetrievalModel) -> dict[str, list[float]]:
        """None: these models have no gates."""
        del model
        return {}

    def compare(self, name: str, model: RetrievalModel) -> dict[str, Metrics]:
        """Metrics of a model, and of recommending what most users took."""
        return self.report(name, model, replicates=0).figures()

    def report(
        self,
        name: str,
        model: RetrievalModel,
        wanted: Sequence[str] = (),
        replicates: int = REPLICATES,
    ) -> Report:
        """All that is measured of a model, and the whole of recommending what most users took.

        Args:
            name: of the model.
            model: to measure.
            wanted: slices to measure the model on, too, see `tfrec.slices`: of the examples that
                users are measured at.
            replicates: resamplings for intervals.
        """
        rankings = [(name, self._of_model(model)), ("popularity", self._of_counts())]
        return self._report(rankings, wanted, replicates, lambda ranks: ranks.record())

    def _report(
        self,
        rankings: Sequence[tuple[str, Any]],
        wanted: Sequence[str],
        replicates: int,
        record: Callable[[Any], dict[str, Any]],
    ) -> Report:
        """Records of rankings and their names; the first one's by slice, too."""
        slices = Slices(wanted, self.directory, self.features, self.split) if wanted else None
        parts = [slices, *[None] * (len(rankings) - 1)]
        records = [
            {"name": whose, "task": self.protocol, "slice": part, **record(ranks)}
            for (whose, ranking), of_it in zip(rankings, parts, strict=True)
            for part, ranks in self._ranks(ranking, of_it, replicates).items()
            if ranks.users or part is None
        ]
        digests = {self.protocol: self._digest()}
        (name, _), *_ = rankings
        return Report(name, self.split, self.about(), digests, replicates, records, list(wanted))

    def _of_counts(self) -> Callable[..., Any]:
        """What ranks by counts in training."""
        counts = tf.constant(self.catalogue.counts, tf.float32)

        def popularity(inputs: Inputs, index: tf.Tensor) -> tf.Tensor:
            users = tf.shape(inputs[str(self.features.item_id)])[0]
            return tf.broadcast_to(index[:, 0], [users, len(counts)])

        ranking, index = self._ranking(popularity), counts[:, tf.newaxis]
        return lambda inputs, *ids: ranking(inputs, index, *ids)

    def _digest(self) -> str:
        """Of users and targets: equal where the same has been measured."""
        found = hashlib.blake2b(digest_size=8)
        for user, ids, unknown in zip(self.users, self.targets, self.unknown, strict=True):
            targets = sorted(self.catalogue.keys[ids - 1])
            found.update(json.dumps([user, targets, int(unknown)]).encode())
        return f"{len(self.users)}-{found.hexdigest()}"

    def about(self) -> str:
        """What has been measured."""
        told = f"{self.split}, {len(self.users):,} users"
        left_out = self.sampled.left_out if self.sampled else ""
        return f"{told}; {left_out}" if left_out else told

    def _ranking(self, scorer: Callable[[Inputs, tf.Tensor], tf.Tensor]) -> Any:
        """A function of inputs, index, ids of targets, and ids to exclude or to stand beside them.

        It gives the best ids (users, K), or all ranks (users, targets), −1 where a score is not
        finite; and how many items are ahead of the first target, or of each.
        """
        most = max(self.config.cutoffs)

        def all_items(
            inputs: Inputs, index: tf.Tensor, targets: tf.Tensor, excluded: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            scores = without(scorer(inputs, index), excluded)
            finite = tf.reduce_all(tf.math.is_finite(scores))
            of_best, places = tf.math.top_k(scores, min(most, scores.shape[1]))
            found = tf.where(of_best > scores.dtype.min, places + 1, 0)  # no excluded ones
            own = tf.gather(scores, tf.maximum(targets - 1, 0), batch_dims=1)
            own = tf.where(targets > 0, own, scores.dtype.min)
            best = tf.argmax(own, axis=1)[:, tf.newaxis]
            ahead = _ahead(
                scores,
                tf.range(1, scores.shape[1] + 1, dtype=tf.int64),
                tf.gather(own, best, batch_dims=1),
                tf.gather(targets, best, batch_dims=1),
            )
            return tf.where(finite, found, -1), ahead

        def candidates(
            inputs: Inputs, index: tf.Tensor, targets: tf.Tensor, others: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            scores = scorer(inputs, index)
            finite = tf.reduce_all(tf.math.is_finite(scores))
            own = tf.gather(scores, tf.maximum(targets - 1, 0), batch_dims=1)
            drawn = tf.gather(scores, tf.maximum(others - 1, 0), batch_dims=1)
            drawn = tf.where(others > 0, drawn, scores.dtype.min)
            ahead = _ahead(
                drawn[:, tf.newaxis],
                others[:, tf.newaxis],
                own[..., tf.newaxis],
                targets[..., tf.newaxis],
            )
            return tf.where(finite, ahead, -1), ahead

        chosen = candidates if self.sampled else all_items
        ids = tf.TensorSpec([None, None], tf.int64)
        inputs = {
            name: tf.TensorSpec([None, *shape], dtype)
            for name, (dtype, shape) in input_shapes(self.features).items()
        }
        index = tf.TensorSpec([len(self.catalogue.keys), None], tf.float32)
        return tf.function(chosen, [inputs, index, ids, ids])

    def _ranks(
        self, ranking: Callable[..., Any], slices: Slices | None, replicates: int
    ) -> dict[str | None, Ranks]:
        """Figures of the whole (None), and by slice."""
        parts = [None, *(slices.names if slices else ())]
        found = {part: self._new_ranks(replicates) for part in parts}
        for numbers, inputs, keys in self._chunks():
            targets = [self.targets[n] for n in numbers]
            others = [self.sampled.candidates(n) if self.sampled else self.seen[n] for n in numbers]
            best, ahead = (v.numpy() for v in ranking(inputs, _padded(targets), _padded(others)))
            if (best < 0).any():
                raise NotFiniteError(
                    "what the model says of some items is not finite; train with a lower learning "
                    "rate or with clip_norm"
                )
            users = tf.strings.to_hash_bucket_fast(keys["user"], 2**63 - 1).numpy()
            drawn = draws(users, replicates)
            member = np.ones((len(numbers), 1), bool)
            if slices:
                member = np.concatenate([member, slices.member(inputs, keys)], axis=1)
            for ranks, chosen in zip(found.values(), member.T, strict=True):
                rows = np.flatnonzero(chosen)
                of_part = [targets[row] for row in rows], self.unknown[numbers][rows], drawn[rows]
                if self.sampled and len(rows):
                    ranks.add_targets(ahead[rows], *of_part)
                elif len(rows):
                    ranks.add_users(best[rows], ahead[rows], *of_part)
        return found

    def _new_ranks(self, replicates: int) -> Ranks:
        counts = None if self.sampled else self.catalogue.counts
        return Ranks(self.config.cutoffs, counts, replicates)

    def _chunks(self) -> Iterator[tuple[list[int], Inputs, Inputs]]:
        """Numbers of users, and the inputs and the keys that they are measured at."""
        size = max(min(SCORES_AT_ONCE // len(self.catalogue.keys), 512), 1)
        start = 0
        for inputs, _, weights, keys in self.read():
            wanted = [i for i in range(len(weights)) if start + i in self.rows]
            for first in range(0, len(wanted), size):
                places = wanted[first : first + size]
                yield (
                    [self.rows[start + i] for i in places],
                    {name: tf.gather(value, places) for name, value in inputs.items()},
                    {name: tf.gather(value, places) for name, value in keys.items()},
                )
            start += len(weights)


_NONE = np.zeros(0, np.int64)


def _padded(ids: list[Array]) -> tf.Tensor:
    return tf.ragged.constant([i.tolist() for i in ids], tf.int64, ragged_rank=1).to_tensor(
        shape=[len(ids), None]
    )


def _ahead(scores: tf.Tensor, ids: tf.Tensor, own: tf.Tensor, own_ids: tf.Tensor) -> tf.Tensor:
    """How many of the last axis come before a target; of equal scores, the lower id does."""
    equal = (scores == own) & (ids < own_ids)
    return tf.math.count_nonzero((scores > own) | equal, axis=-1)
