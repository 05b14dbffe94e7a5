"""Retrieval, then ranking, in one graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec import catalogue
from tfrec.data import load_transform, pad
from tfrec.models.base import Model
from tfrec.ranking import Ranker
from tfrec.recommending import (
    OPTIONS,
    Retriever,
    first,
    recommend_request,
    seen_columns,
    split_options,
    user_specs,
)
from tfrec.runs import Run
from tfrec.servable import WARM_UP_BATCHES, prediction_log, samples
from tfrec.serving_inputs import columns_of_examples, from_columns, signature_columns
from tfrec.strict import UserError


class TwoStages(tf.Module):
    """What `recommend` needs: both models, and what the second one reads of every item.

    Its `functions` are the export's signatures: `recommend`, and `explain` where the ranking model
    has attention.

    Attributes:
        ranked_by: which of the ranking model's outputs is the second stage's score: its first one.

    Args:
        retrieval: run of a model that scores all items.
        ranking: run of a model that scores one example.
        candidates: how many items the first stage hands to the second.
        place: a directory for files that saving copies.

    Raises:
        UserError: a column that both runs take is of two types, or one value in the one and a
            history in the other; or the runs call all items by other names.
    """

    def __init__(self, retrieval: Run, ranking: Run, candidates: int, place: Path) -> None:
        super().__init__()
        self._runs = retrieval, ranking
        self.specs = [user_specs(run.features) for run in self._runs]
        self._check_columns()
        data = Path(retrieval.config.data)
        items = catalogue.load(data, retrieval.features)
        if catalogue.named(ranking.config.data, ranking.features).isdisjoint(items.keys):
            raise UserError(
                f"the data set of {ranking.directory} knows no item of {retrieval.directory}; both "
                f"have to call items by the same names, such as {items.keys[0]!r}"
            )
        model: Any = retrieval.best_model()
        self.retriever = Retriever(retrieval.features, model, load_transform(data), items, place)
        self._candidates = min(candidates, len(items.keys))
        self._ranking, self._model = ranking.features, ranking.best_model()
        self.transform = load_transform(ranking.config.data)
        self.ranker = Ranker(
            ranking.features, self._model, self.transform, ranking.config.data, items.keys
        )
        logits = {label.name: tf.zeros([1]) for label in ranking.features.labels}
        self.ranked_by = next(iter(self._model.served(logits)))
        both = [seen_columns(features) for features in (retrieval.features, ranking.features)]
        self._seen = list(dict.fromkeys(name for names in both for name in names))
        specs = {**self.specs[0], **self.specs[1], **OPTIONS}
        self.recommend = tf.function(self._recommend, autograph=False).get_concrete_function(
            **specs
        )
        self.functions = {"recommend": self.recommend}
        if type(self._model).explain is not Model.explain:
            explain = tf.function(self._explain, autograph=False)
            named = signature_columns(ranking.features)
            self.functions["explain"] = explain.get_concrete_function(**named)

    def _check_columns(self) -> None:
        """Checks that a column that both runs take is the same to both."""
        first, second = self.specs
        for name in [name for name in first if name in second]:
            one, two = first[name], second[name]
            if (one.dtype, one.shape.rank) != (two.dtype, two.shape.rank):
                places = [run.directory for run in self._runs]
                raise UserError(
                    f"column {name!r} is {_told(one)} in {places[0]} and {_told(two)} in "
                    f"{places[1]}; rename it in the declaration of one and train that run again"
                )

    def _recommend(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        columns, options = split_options(inputs)
        of_first, of_second = ({name: columns[name] for name in specs} for specs in self.specs)
        seen = [columns[name] for name in self._seen]
        most = tf.constant(self._candidates)
        found, retrieved = self.retriever.best(of_first, options, most, seen)
        scored = self.ranker.scores(of_second, found - 1)[self.ranked_by]
        ranked = tf.where(found > 0, scored, tf.float32.min)
        k = tf.minimum(tf.reduce_max(options["k"]), self._candidates)
        best, places = tf.math.top_k(ranked, k)
        ids = tf.gather(found, places, batch_dims=1)
        values = {
            "items": self.retriever.names(ids),
            "scores": tf.where(ids > 0, best, 0.0),
            "retrieval_scores": tf.gather(retrieved, places, batch_dims=1),
        }
        return first(options["k"], values)

    def _explain(self, **columns: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the ranking model's own export explains."""
        raw = from_columns(self._ranking, columns)
        return self._model.explain(pad(self._ranking, self.transform.transform_fn(raw)))

    def warm_up(self, name: str) -> Iterator[bytes]:
        """Serialized PredictionLogs for a model of that name."""
        for size in WARM_UP_BATCHES[:2]:  # each row is as many as there are candidates
            named = [columns_of_examples(run.features, samples(run, size)) for run in self._runs]
            request: dict[str, Any] = {}
            for run, columns in zip(self._runs, named, strict=True):
                request |= recommend_request(run.features, columns)
            yield prediction_log(name, "recommend", self.recommend, request)
            if "explain" in self.functions:  # of the ranking run
                yield prediction_log(name, "explain", self.functions["explain"], named[1])


def _told(spec: tf.TensorSpec) -> str:
    """What a request has to have there."""
    return f"a history of {spec.dtype.name}" if spec.shape.rank == 2 else f"one {spec.dtype.name}"
