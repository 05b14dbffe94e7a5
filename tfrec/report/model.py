"""What a report says of one model: scores, slices, importance, and what is inside."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from tfrec.evaluation import MONITORED
from tfrec.features import Label
from tfrec.figures import with_interval
from tfrec.html import Series, bars, card, legend, number, plot, ranges, scatter, table
from tfrec.report.attention import Attended
from tfrec.report.gather import Facts, Listed
from tfrec.report.importance import REPEATS
from tfrec.report.items import ItemMap

_BINS = 30
_EVENTS, _PAIRS, _LABELS = 8, 12, 16  # that are shown


def of_model(facts: Facts) -> dict[str, str]:
    """Sections by title; empty where one does not apply."""
    return {
        "calibration and scores": _grid(_scores(facts)),
        "recommendations": _grid(_recommendations(facts)),
        "slices": _slices(facts),
        "feature importance": _grid(_importance(facts)),
        "attention": _grid(_attention(facts)),
        "gates": _grid(_gates(facts)),
        "items": _items(facts.items) if facts.items else "",
    }


def _grid(cards: Iterator[str]) -> str:
    found = "".join(cards)
    return f'<div class="grid">{found}</div>' if found else ""


def _own(facts: Facts) -> list[dict[str, Any]]:
    return [r for r in facts.report.records if r["name"] == facts.report.model]


def _scores(facts: Facts) -> Iterator[str]:
    for label in facts.run.features.labels if not facts.of_items else ():
        for record in _own(facts):
            if record["task"] == label.name and record["slice"] is None and record["curve"]:
                yield _reliability(label.name, record)
        labels, scores = facts.scores[label.name]
        if np.isfinite(labels).any():  # else there is nothing to tell of the task
            yield _distribution(label, labels, scores)


def _reliability(task: str, record: dict[str, Any]) -> str:
    points = [(bin["predicted"], bin["observed"]) for bin in record["curve"]]
    most = max(max(point) for point in points)
    edge = min(1.0, np.ceil(most * 10) / 10 if most > 0.1 else most)
    ends = 0.0, float(edge)
    drawn = plot([Series("bin", points)], "mean prediction", "share of positives", ends, ends, True)
    note = (
        f"{len(points)} bins of equal weight. On the dotted line, what is predicted comes true; "
        "below it, predictions are too high."
    )
    return card(f"Reliability, {task}", drawn, note)


def _distribution(label: Label, labels: Any, scores: Any) -> str:
    known = np.isfinite(labels)
    labels, scores = labels[known], scores[known]
    if label.task == "binary":
        parts = {"label 0": scores[labels < 0.5], "label 1": scores[labels >= 0.5]}
        edges = np.linspace(0, 1, _BINS + 1)
        note = "Shares of the examples of each label; the less the two overlap, the higher AUC is."
    else:
        parts = {"labels": labels, "predictions": scores}
        both = np.concatenate([labels, scores])
        edges = np.linspace(both.min(), both.max() + 1e-6, _BINS + 1)
        note = "Shares of the examples."
    series = []
    for colour, (name, values) in enumerate(parts.items()):
        shares = np.histogram(values, edges)[0] / max(len(values), 1)
        points = list(zip(edges.tolist(), [*shares.tolist(), 0.0], strict=True))
        series.append(Series(name, points, colour, marks=False, steps=True))
    called = [f"{name} ({len(values):,})" for name, values in parts.items()]
    x_name = "probability" if label.task == "binary" else "value"
    drawn = legend(called) + plot(series, x_name, "share of examples")
    return card(f"Scores, {label.name}", drawn, note)


def _recommendations(facts: Facts) -> Iterator[str]:
    """Figures over the cutoffs, beside popularity, and what some users are given."""
    if not facts.of_items:
        return
    whole = [r for r in facts.report.records if r["slice"] is None]
    for task in dict.fromkeys(record["task"] for record in whole):
        mine = [record for record in whole if record["task"] == task]
        kinds = dict.fromkeys(n.partition("@")[0] for n in mine[0]["metrics"] if "@" in n)
        for kind in kinds:
            series = []
            for colour, record in enumerate(mine):
                points = [
                    (float(name.partition("@")[2]), value)
                    for name, value in record["metrics"].items()
                    if name.startswith(f"{kind}@") and value is not None
                ]
                series.append(Series(record["name"], points, colour))
            if all(s.points for s in series):
                names = legend(record["name"] for record in mine)
                drawn = plot(series, "items recommended, K", f"{kind}@K")
                yield card(f"{kind}, {task}", names + drawn, _MEANING.get(kind, ""))
    for count, listed in enumerate(facts.lists, start=1):
        yield _list(count, listed)


_MEANING = {
    "coverage": "Share of all items that are recommended to somebody.",
    "novelty": "Mean of −log₂ of the item's share of the training events.",
    "popularity_lift": "How much more popular recommended items are than what users take.",
}


def _list(count: int, listed: Listed) -> str:
    items = "".join(
        f'<li class="took">{escape(t)} ✓</li>' if took else f"<li>{escape(t)}</li>"
        for t, took in listed.items
    )
    before = " · ".join(listed.history) or "nothing"
    note = "✓: the user took it afterwards. Users are the first ones of the split."
    text = f'<p class="none">after {escape(before)} (the newest first)</p><ol>{items}</ol>'
    return card(f"What user {count} is recommended", text, note)


def _slices(facts: Facts) -> str:
    """The main metric of every part, and all figures."""
    plots, tables = [], []
    mine = _own(facts)
    tasks = {label.name: label.task for label in facts.run.features.labels}
    for task in dict.fromkeys(record["task"] for record in mine):
        of_task = [record for record in mine if record["task"] == task]
        whole = next(record for record in of_task if record["slice"] is None)
        parts = [record for record in of_task if record["slice"]]
        wanted = [m for m, _ in MONITORED[tasks[task]]] if task in tasks else []
        metrics = wanted or [facts.config.top_k.monitor, *whole["metrics"]]
        metric = next((m for m in metrics if whole["metrics"].get(m) is not None), None)
        if not parts or metric is None:
            continue
        rows = [
            (r["slice"], r["metrics"][metric], r["intervals"].get(metric), _told(r, metric))
            for r in parts
            if r["metrics"].get(metric) is not None
        ]
        drawn = ranges(rows, whole["metrics"][metric])
        note = f"{metric}, with 95% intervals; the line is the whole, {_told(whole, metric)}."
        plots.append(card(f"{metric} by slice, {task}", drawn, note))
        shown = list(whole["metrics"])
        cells = [
            [
                r["slice"],
                f"{r['examples']:,}",
                "—" if r["users"] is None else f"{r['users']:,}",
                *(with_interval(r["metrics"][m], r["intervals"].get(m)) for m in shown),
            ]
            for r in parts
        ]
        head = ["slice", "examples", "users", *shown]
        tables.append(card(f"Slices, {task}", table([head, *cells])))
    return _grid(iter(plots)) + "".join(tables)


def _told(record: dict[str, Any], metric: str) -> str:
    return with_interval(record["metrics"][metric], record["intervals"].get(metric))


def _importance(facts: Facts) -> Iterator[str]:
    for task, found in facts.importance.items():
        rows = [
            (p.name, p.loss, p.interval, with_interval(p.loss, p.interval)) for p in found.parts
        ]
        note = (
            f"How much worse {found.metric} ({found.whole:.4f} of {facts.sampled}) gets when a "
            f"part of the inputs has the values of other examples: mean of {REPEATS} shuffles and "
            "its 95% interval over them. A feature is shuffled with the crosses that it is in, a "
            "history as a whole. Near 0: not used, or told by other features, too."
        )
        yield card(f"What {found.metric} of {task} loses", bars(rows, 0), note)


def _attention(facts: Facts) -> Iterator[str]:
    if facts.attention is None:
        return
    for history, examples in facts.attention.examples.items():
        for example in examples:
            yield _attended(history, example)
    pairs = facts.attention.pairs
    if pairs:
        rows = [(name, weight, None, f"{weight:.4f}") for name, weight in pairs[:_PAIRS]]
        note = f"Mean weights over examples; the greatest {len(rows)} of {len(pairs)} pairs."
        yield card("Attention to pairs of fields", bars(rows, 0), note)


def _attended(history: str, example: Attended) -> str:
    rows = [(name, weight, None, number(weight)) for name, weight in example.weights[:_EVENTS]]
    note = (
        f"Weights of the events of {history}: the greatest {len(rows)} of {len(example.weights)}. "
        "Examples are the first ones of the split with a history, not chosen; what is unknown is "
        "not in the vocabulary."
    )
    return card(f"For {example.title}", bars(rows, 0), note)


def _gates(facts: Facts) -> Iterator[str]:
    if not facts.gates:
        return
    most = max(len(shares) for shares in facts.gates.values())
    rows = "".join(
        f'<tr><th scope="row">{escape(gate)}</th>'
        + "".join(f'<td style="--p:{s:.0%}">{s:.1%}</td>' for s in shares)
        + "<td></td>" * (most - len(shares))
        + "</tr>"
        for gate, shares in facts.gates.items()
    )
    head = "".join(f'<th scope="col">expert {n}</th>' for n in range(1, most + 1))
    shown = (
        f'<div class="wide" tabindex="0"><table class="shares"><thead><tr><th>gate</th>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
    yield card("Mean share of every expert", shown, "Over examples of the split.")
    history = [v for v in facts.run.metrics().get("history") or [] if v["gates"]]
    for gate in facts.gates if history else ():
        series = [
            Series(f"expert {n + 1}", [(v["epoch"], v["gates"][gate][n]) for v in history], n)
            for n in range(len(facts.gates[gate]))
        ]
        names = legend(s.name for s in series)
        yield card(f"Gate {gate} in training", names + plot(series, "epoch", "share, validation"))


def _items(found: ItemMap) -> str:
    groups = [*found.groups, "others"] if found.feature else []
    told = [
        f"{title} ({groups[group]})" if groups else title
        for title, group in zip(found.titles, found.group, strict=True)
    ]
    points = [(float(x), float(y)) for x, y in found.points]
    labelled = [(i, _short(title)) for i, title in enumerate(found.titles[:_LABELS])]
    drawn = scatter(points, told, found.group, labelled, "items in two dimensions")
    named = "".join(f"<li>{escape(title)}</li>" for title in told)
    every = f"<details><summary>All {len(told):,} items</summary><ol>{named}</ol></details>"
    colours = f"<small>{escape(found.feature)}:</small> {legend(groups)}" if groups else ""
    note = (
        f"t-SNE of the model's vectors of the {len(points):,} items with most training events, by "
        "cosine. Near points are alike to the model; directions and far distances mean nothing. "
        "Titles are told where the pointer rests, and in the list."
    )
    rows = [["item", *(f"nearest {n}" for n in range(1, 1 + len(found.near[0])))]]
    rows += [[t, *near] for t, near in zip(found.titles, found.near, strict=False)]
    near = card(
        "Nearest items", table(rows, "texts"), "By the cosine of the vectors, among these items."
    )
    return card("Items in two dimensions", colours + drawn + every, note) + near


def _short(title: str) -> str:
    return title if len(title) <= 22 else f"{title[:21]}…"
