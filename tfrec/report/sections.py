"""The page of a report, section by section."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tfrec.compare import configurations, differences, names
from tfrec.figures import with_interval
from tfrec.html import Series, card, legend, page, plot, table
from tfrec.report.gather import Facts
from tfrec.report.model import of_model
from tfrec.strict import UserError

_FOLLOWED = ("auc", "log_loss", "gauc", "rmse", "mae", "mrr")


def render(runs: Sequence[Path], facts: Sequence[Facts]) -> str:
    """The page.

    Args:
        runs: directories.
        facts: of each.
    """
    called = names(runs)
    sections = {
        "Runs": _table_of_runs(called, facts),
        "Training": _training(called, facts),
        "Comparison": _comparison(called, runs, facts) if len(runs) > 1 else "",
        "Figures": "".join(_figures(n, f) for n, f in zip(called, facts, strict=True)),
    }
    for name, of_run in zip(called, facts, strict=True):
        sections |= {f"{name}: {part}": text for part, text in of_model(of_run).items()}
    shown = {title: text for title, text in sections.items() if text}
    links = "".join(f'<li><a href="#s{i}">{escape(t)}</a></li>' for i, t in enumerate(shown))
    body = "".join(
        f'<h2 id="s{i}">{escape(title)}</h2>{text}' for i, (title, text) in enumerate(shown.items())
    )
    title = f"Report: {', '.join(called)}"
    about = escape("; ".join(dict.fromkeys(f.report.about for f in facts)))
    head = f'<h1>{escape(title)}</h1><p class="none">{about}</p><ul class="links">{links}</ul>'
    return page(title, head + body, _STYLE)


def _table_of_runs(called: Sequence[str], facts: Sequence[Facts]) -> str:
    rows = [["run", "model", "data set", "parameters", "epochs", "best", "seconds", "examples/s"]]
    for name, of_run in zip(called, facts, strict=True):
        found = of_run.run.metrics()
        history, best = found.get("history") or [], found.get("best")
        known = [found.get(key) for key in ("parameters", "seconds", "examples_per_second")]
        parameters, seconds, speed = ("—" if v is None else f"{v:,}" for v in known)
        rows.append(
            [
                name,
                of_run.config.model.id,
                of_run.run.features.name,
                parameters,
                f"{history[-1]['epoch']:.1f}" if history else "—",
                f"epoch {best['epoch']:.1f}" if best else "—",
                seconds,
                speed,
            ]
        )
    return card("What was trained", table(rows))


def _training(called: Sequence[str], facts: Sequence[Facts]) -> str:
    """Curves of the losses, of the main metrics and of the experts' shares."""
    curves: dict[tuple[str, str], list[Series]] = {}
    for number, (name, of_run) in enumerate(zip(called, facts, strict=True)):
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for validation in of_run.run.metrics().get("history") or []:
            for key, value in _values(validation, of_run.config.top_k.monitor).items():
                found.setdefault(key, []).append((validation["epoch"], value))
        for key, points in found.items():
            curves.setdefault(key, []).append(Series(name, points, number))
    if not curves:
        return ""
    cards = "".join(card(a, plot(lines, "epoch", b)) for (a, b), lines in curves.items())
    lines = legend(called) if len(called) > 1 else ""
    note = (
        '<p class="none">The training loss is a mean since the validation before, with dropout and '
        "auxiliary parts; losses of different kinds cannot be compared.</p>"
    )
    return f'{lines}{note}<div class="grid">{cards}</div>'


def _values(validation: dict[str, Any], monitor: str) -> dict[tuple[str, str], float]:
    """What of a validation is followed, by heading and unit."""
    cutoff = f"@{monitor.partition('@')[2]}"
    found = {("training loss", "loss"): validation["loss"]}
    found |= {(f"training, {name}", "loss"): mean for name, mean in validation["losses"].items()}
    for task, metrics in validation["metrics"].items():
        for name, value in metrics.items():
            of_lists = name.endswith(cutoff) and name.startswith(("ndcg", "recall", "hr"))
            if value is not None and (name in _FOLLOWED or of_lists):
                found[f"validation {name}, {task}", name] = value
    return found


def _comparison(called: Sequence[str], runs: Sequence[Path], facts: Sequence[Facts]) -> str:
    """Differences from the first run, of those that can be compared with it."""
    reports = [of_run.report for of_run in facts]
    alike, text = [0], ""
    for other in range(1, len(runs)):
        try:
            differences([called[0], called[other]], [reports[0], reports[other]])
            alike.append(other)
        except UserError as error:
            text += f'<p class="none">{escape(str(error))}</p>'
    if len(alike) > 1:
        tables = differences([called[i] for i in alike], [reports[i] for i in alike])
        whole = [record["task"] for record in facts[0].report.records if record["slice"] is None]
        cards = {
            rows[0][0]: card(rows[0][0], table([["", *rows[0][1:]], *rows[1:]])) for rows in tables
        }
        first = "".join(text for name, text in cards.items() if name in whole)
        others = [text for name, text in cards.items() if name not in whole]
        more = f"<details><summary>{len(others)} slices</summary>{''.join(others)}</details>"
        text += (
            '<p class="none">± is half of a 95% interval over resampled users (examples, where '
            "there are none), the same ones for both; * where it does not hold 0, as one "
            "difference in twenty does by chance where runs do not differ."
            f"</p>{first}{more if others else ''}"
        )
    rows = configurations(dict(zip(called, runs, strict=True)))
    return text + (card("What the configurations differ in", table(rows)) if rows else "")


def _figures(name: str, of_run: Facts) -> str:
    """Figures of a run beside baselines, by task."""
    whole = [record for record in of_run.report.records if record["slice"] is None]
    cards = []
    for task in dict.fromkeys(record["task"] for record in whole):
        mine = [record for record in whole if record["task"] == task]
        rows = [["", *(record["name"] for record in mine)]]
        for metric in mine[0]["metrics"]:
            cells = (
                with_interval(r["metrics"].get(metric), r["intervals"].get(metric)) for r in mine
            )
            rows.append([metric, *cells])
        known = mine[0]
        of = f"{known['examples']:,} {'users' if of_run.of_items else 'examples'}"
        users = f", {known['users']:,} users" if known["users"] and not of_run.of_items else ""
        cards.append(
            card(f"{name}, {task}", table(rows), f"{of}{users}; ± is half of a 95% interval")
        )
    return "".join(cards)


_STYLE = """
.links{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;padding:0;margin:8px 0}
a{color:var(--s0)}
.card{margin-bottom:14px}.grid>.card{margin:0}.grid+.card{margin-top:14px}
summary{cursor:pointer;padding:6px 0}details{margin-bottom:14px}
.unit{margin:0;color:var(--soft);font-size:12px}
.plot{max-width:640px;margin:0 auto;overflow:visible}.map{max-width:720px}
.plot text{font-size:12px}
.texts td,.texts th{text-align:left;white-space:normal;min-width:120px;vertical-align:top}
.map .label{fill:var(--ink);font-size:8.5px;paint-order:stroke;stroke:var(--card);stroke-width:3px}
.map g>*{stroke:var(--card);stroke-width:.5}
thead+tbody th{position:sticky;left:0;background:var(--card)}
.even{stroke:var(--soft);stroke-dasharray:2 3;fill:none}
thead th{border-bottom:1px solid var(--rule)}
.bars th{white-space:normal;overflow-wrap:break-word;color:var(--ink);min-width:110px;
max-width:220px}
.bars .track{width:50%;min-width:70px}
.track div{position:relative;height:12px}
.track .bar,.track .whisker,.track .at,.track .whole{position:absolute;top:0;height:12px}
.track .bar{left:0;border-radius:2px;min-width:1px;opacity:.75}
.track .whisker{top:5px;height:2px;background:var(--ink)}
.track .at{width:8px;height:8px;top:2px;margin-left:-4px;border-radius:50%;background:var(--c)}
.track .whole{width:1px;background:var(--soft)}
.shares td{color:var(--ink);background:color-mix(in srgb,var(--s0) var(--p),transparent)}
ol{margin:0;padding-left:22px}details ol{padding-left:40px}.took{font-weight:600}
@media(max-width:600px){.map .label{font-size:12px}
thead+tbody th{min-width:132px;white-space:normal;overflow-wrap:anywhere}
.bars th{min-width:88px}.bars .track{min-width:56px}}
"""
