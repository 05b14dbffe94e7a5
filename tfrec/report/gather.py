"""All that a report says of a run, from its directory and its data set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfrec.config import TrainConfig
from tfrec.evaluation import MONITORED, Evaluator, evaluator
from tfrec.features import Features
from tfrec.figures import FOLDER, REPLICATES, Report
from tfrec.metrics import Array
from tfrec.models.base import Model
from tfrec.models.registry import find
from tfrec.report.attention import Attention, attention
from tfrec.report.importance import Importances, importances
from tfrec.report.items import ItemMap, item_map
from tfrec.report.names import Names
from tfrec.report.sample import Sample
from tfrec.runs import Run, best_weights
from tfrec.top_k import TopKEvaluator

USERS = 2_000  # for importance in models of all items
_LISTS, _LENGTH = 3, 10  # users whose lists are shown, and items of these


@dataclass(frozen=True)
class Listed:
    """What a user took, and what is recommended.

    Attributes:
        history: titles, the newest first.
        items: titles, and whether the user took the item.
    """

    history: list[str]
    items: list[tuple[str, bool]]


@dataclass(frozen=True)
class Facts:
    """Of a run.

    Attributes:
        run: its configuration, features and `metrics.json`.
        report: figures on the split.
        items: None where the model has no vectors of items.
        importance: by task.
        sampled: how many examples, or users, the shuffles were of.
        scores: by task, labels and what the model says, (n,) each, of some examples.
        gates: shares of the experts, by gate.
        attention: None where the model has none.
        lists: of some users, where the model recommends.
    """

    run: Run
    report: Report
    items: ItemMap | None
    importance: dict[str, Importances] = field(default_factory=dict)
    sampled: str = ""
    scores: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    gates: dict[str, list[float]] = field(default_factory=dict)
    attention: Attention | None = None
    lists: list[Listed] = field(default_factory=list)

    @property
    def config(self) -> TrainConfig:
        """Of the run."""
        return self.run.config

    @property
    def of_items(self) -> bool:
        """Whether the model scores all items."""
        return find(self.config.model.id).scores_items


def gather(directory: Path, split: str) -> Facts:
    """Reads a run, measures its weights unless that has been done, and looks into its model.

    Args:
        directory: of the run.
        split: to look at.

    Raises:
        UserError: it is no run, or has no checkpoint, or its data set cannot be read.
    """
    run = Run.load(directory)
    data, features = run.config.data, run.features
    weights = best_weights(directory)
    model, measuring = run.best_model(), evaluator(run.config, features, split)
    names = Names(data, features)
    report = measured(run, model, measuring, weights)
    facts = Facts(run, report, item_map(model, data, features, names))
    if isinstance(measuring, Evaluator):
        return _of_tasks(facts, measuring, model, names)
    top_k = run.config.top_k.model_copy(update={"users": USERS})
    some = TopKEvaluator(data, features, split, top_k, limited=True)
    return replace(
        facts,
        importance=importances(
            features, lambda change: some.evaluate(model, change), some.monitored, of_items=True
        ),
        sampled=f"{len(some.users):,} users",
        attention=attention(model, features, next(some.read())[0], names),
        lists=_lists(some, model, names),
    )


def measured(
    run: Run, model: Any, measuring: Evaluator | TopKEvaluator, weights: str | None
) -> Report:
    """What is kept of the weights, if it has slices; measured unless it has been.

    Args:
        run: whose figures they are.
        model: with its best weights.
        measuring: measures it.
        weights: which these are.
    """
    path = run.directory / FOLDER / f"{measuring.split}.json"
    kept = Report.kept(path)
    slices = kept.slices if kept and kept.slices else _slices(run.features)
    if kept is None or kept.weights != weights or kept.slices != slices:
        replicates = kept.replicates if kept else REPLICATES
        report = measuring.report(run.config.model.id, model, slices, replicates)
        replace(report, weights=weights).save(path)
    return Report.load(path)


def _of_tasks(facts: Facts, measuring: Evaluator, model: Model, names: Names) -> Facts:
    features, sample = facts.run.features, Sample.read(measuring)
    scores = sample.scores(measuring, model, None)
    monitored = {label.name: MONITORED[label.task] for label in features.labels}
    return replace(
        facts,
        scores={task: (sample.labels[task], scores[task]) for task in scores},
        importance=importances(features, sample.measure(measuring, model), monitored),
        sampled=f"{len(sample.weights):,} examples",
        gates=measuring.gates(model),
        attention=attention(model, features, sample.inputs, names),
    )


def _slices(features: Features) -> list[str]:
    """Those that any data set of users and items has."""
    return ["user_events", "item_count"] if features.user_key and features.item_key else []


def _lists(measuring: TopKEvaluator, model: Any, names: Names) -> list[Listed]:
    features = measuring.features
    inputs, ids, targets = measuring.lists(model, _LISTS, _LENGTH)
    titles = names.of(features.feature(str(features.item_id)).table)
    found = []
    for row, taken in enumerate(targets):
        newest: list[str] = []
        for history in features.histories[:1]:
            event = history.mask_feature
            events = [i for i in inputs[event.name][row].numpy().tolist() if i]
            newest = [str(names.of(event.table)[i]) for i in reversed(events)]
        items = [(str(titles[i]), bool(i in taken)) for i in ids[row].tolist() if i]
        found.append(Listed(newest[:_LENGTH], items))
    return found
