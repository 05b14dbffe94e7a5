"""Statistics and anomalies as one HTML file, which needs nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from pipeline.distances import Histogram, by_quantile, quantile, share_below
from pipeline.statistics import Proto, common, features_of
from pipeline.validation import Anomaly, DataSet
from tfrec.features import LABEL_PREFIX
from tfrec.html import dot, legend, number, page

SHOWN_VALUES = 8
BARS = 25
WIDTH, HEIGHT = 320, 90  # of a plot, in its own units


def render(title: str, splits: Mapping[str, DataSet], anomalies: Iterable[Anomaly]) -> str:
    """The page.

    Args:
        title: name of the data set.
        splits: statistics by split, in the order in which they are shown.
        anomalies: that were found.
    """
    by_split = {name: features_of(dataset) for name, dataset in splits.items()}
    columns = list(dict.fromkeys(name for columns in by_split.values() for name in columns))
    found = list(anomalies)
    cards = "\n".join(_card(name, by_split, found) for name in columns)
    rows = legend(f"{name}, {dataset.num_examples:,} rows" for name, dataset in splits.items())
    body = _BODY.format(
        title=escape(title), legend=rows, columns=len(columns), anomalies=_anomalies(found),
        cards=cards,
    )  # fmt: skip
    return page(f"{title}: statistics", body, _STYLE, _SCRIPT)


def _anomalies(found: list[Anomaly]) -> str:
    if not found:
        return '<p class="fine">No anomalies: the data are as the schema says.</p>'
    rows = "".join(
        f'<tr class="{"error" if a.error else "warning"}">'
        f"<td>{'error' if a.error else 'warning'}</td><td>{escape(a.split)}</td>"
        f"<td><b>{escape(a.column or 'all columns')}</b></td><td>{escape(a.reason)}</td>"
        f"<td>{escape(a.remedy)}</td></tr>"
        for a in found
    )
    head = "".join(f"<th>{name}</th>" for name in ("", "data", "column", "what", "remedy"))
    return f'<div class="wide"><table class="anomalies"><tr>{head}</tr>{rows}</table></div>'


def _card(name: str, by_split: Mapping[str, Mapping[str, Proto]], found: list[Anomaly]) -> str:
    columns = {split: columns.get(name) for split, columns in by_split.items()}
    present = [column for column in columns.values() if column is not None]
    text = present[0].type == Proto.STRING
    kind = "text" if text else "number"
    if name.startswith(LABEL_PREFIX):
        kind = "label"
    lists = any(common(column).max_num_values > 1 for column in present)
    odd = any(anomaly.column == name for anomaly in found)
    plot = _top_values(columns) if text else _histogram(columns)
    if lists:
        plot += f"<small>values per row</small>{_lengths(columns)}"
    missing = max(_missing(column) for column in present)
    return (
        f'<section class="card{" odd" if odd else ""}" data-name="{escape(name.lower())}" '
        f'data-kind="{kind}" data-odd="{int(odd)}" data-missing="{missing:.6f}">'
        f"<h3>{escape(name)} <small>{kind}{', lists' if lists else ''}</small></h3>{plot}"
        f'<div class="wide">{_figures(columns, kind == "label")}</div></section>'
    )


def _figures(columns: Mapping[str, Proto | None], label: bool) -> str:
    """A table with a column for each split; the mean of a binary label is its rate."""
    heads, figures = [], []
    for index, (split, column) in enumerate(columns.items()):
        if column is not None:
            heads.append(f"<th>{dot(index)}{escape(split)}</th>")
            own = {"missing": f"{_missing(column):.1%}"}
            stats = common(column)
            if stats.num_non_missing:
                own |= _text(column) if column.type == Proto.STRING else _numbers(column, label)
            if stats.max_num_values > 1:
                own["values, least"] = f"{stats.min_num_values:,}"
                own["values, mean"] = f"{stats.avg_num_values:.1f}"
                own["values, most"] = f"{stats.max_num_values:,}"
            figures.append(own)
    rows = []
    for name in dict.fromkeys(name for own in figures for name in own):
        cells = "".join(f"<td>{own.get(name, '')}</td>" for own in figures)
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return f"<table><tr><th></th>{''.join(heads)}</tr>{''.join(rows)}</table>"


def _missing(column: Proto) -> float:
    """Share of the rows without a value."""
    stats = common(column)
    return stats.num_missing / max(stats.num_missing + stats.num_non_missing, 1)


def _numbers(column: Proto, label: bool) -> dict[str, str]:
    stats, values = column.num_stats, by_quantile(column)
    rate = label and stats.min >= 0 and stats.max <= 1
    figures = {"rate" if rate else "mean": stats.mean, "std": stats.std_dev, "min": stats.min}
    figures |= {"5%": quantile(values, 0.05), "median": stats.median, "95%": quantile(values, 0.95)}
    shown = {name: number(value) for name, value in {**figures, "max": stats.max}.items()}
    return {**shown, "zeros": f"{stats.num_zeros / common(column).tot_num_values:.1%}"}


def _text(column: Proto) -> dict[str, str]:
    stats = column.string_stats
    return {"distinct": f"{stats.unique:,}", "mean length": f"{stats.avg_length:.1f}"}


def _histogram(columns: Mapping[str, Proto | None]) -> str:
    histograms = {
        index: by_quantile(column)
        for index, column in enumerate(columns.values())
        if column is not None and common(column).num_non_missing
    }
    return _steps(histograms)


def _lengths(columns: Mapping[str, Proto | None]) -> str:
    histograms = {
        index: common(column).num_values_histogram
        for index, column in enumerate(columns.values())
        if column is not None and common(column).num_non_missing
    }
    return _steps(histograms)


def _steps(histograms: Mapping[int, Histogram]) -> str:
    """Shares of the values between bounds at equal distances, a line for each split.

    From the 1st to the 99th percentile, so that a few extreme values leave something to be seen.
    """
    if not histograms:
        return '<p class="none">no values</p>'
    low = min(quantile(histogram, 0.01) for histogram in histograms.values())
    high = max(quantile(histogram, 0.99) for histogram in histograms.values())
    ends = [bucket.high_value for histogram in histograms.values() for bucket in histogram.buckets]
    if all(end == round(end) for end in ends):  # every bar has as many whole numbers
        width = math.ceil((high - low + 1) / BARS)
        bounds = np.arange(low - 1, high + width, width)
    else:
        bounds = np.linspace(low, high, BARS + 1)
        bounds[0] = np.nextafter(low, -np.inf)  # so that the first bar has the lowest value, too
    bars = len(bounds) - 1
    shares = {i: np.diff(share_below(histogram, bounds)) for i, histogram in histograms.items()}
    tallest = max(share.max() for share in shares.values()) or 1.0
    paths = []
    for index, heights in shares.items():
        steps = "".join(
            f"V{HEIGHT - height / tallest * (HEIGHT - 4):.1f}H{(bar + 1) / bars * WIDTH:.1f}"
            for bar, height in enumerate(heights)
        )
        paths.append(f'<path class="line s{index}" d="M0,{HEIGHT}{steps}V{HEIGHT}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 16}" role="img">{"".join(paths)}'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f'<text x="0" y="{HEIGHT + 13}">{number(low)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">{number(high)}</text></svg>'
    )


def _top_values(columns: Mapping[str, Proto | None]) -> str:
    """Bars of the shares of the first split's most frequent values, a bar for each split."""
    shares: list[dict[str, float]] = []
    for column in columns.values():
        total = common(column).tot_num_values if column is not None else 0
        top = column.string_stats.top_values if column is not None else ()
        shares.append({entry.value: entry.frequency / total for entry in top})
    first = next((share for share in shares if share), {})
    if not first:
        return '<p class="none">no values</p>'
    values = list(first)[:SHOWN_VALUES]
    tallest = max(share.get(value, 0.0) for share in shares for value in values)
    rows = []
    for value in values:
        bars = "".join(
            f'<i class="bar s{index}" style="width:{share.get(value, 0.0) / tallest:.1%}"></i>'
            for index, share in enumerate(shares)
            if share
        )
        rows.append(
            f'<tr><td class="value" title="{escape(value)}">{escape(value)}</td>'
            f'<td class="bars">{bars}</td><td>{first[value]:.1%}</td></tr>'
        )
    return f'<table class="top">{"".join(rows)}</table>'


_STYLE = """
.tools{position:sticky;top:0;z-index:1;background:var(--bg);padding:8px 0;display:flex;gap:8px;
flex-wrap:wrap}
input,select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--rule);
border-radius:6px;padding:6px 10px}
input{flex:1;min-width:160px;max-width:360px}
.card.odd{border-color:var(--warn)}
.anomalies td,.anomalies th{text-align:left;white-space:normal;border-top:1px solid var(--rule);
padding:6px;vertical-align:top}
.error td:first-child{color:var(--bad);font-weight:600}
.warning td:first-child{color:var(--warn);font-weight:600}
.fine{color:var(--good)}
.top{table-layout:fixed;margin-bottom:6px}.top td:last-child{width:56px}
.value{width:34%;overflow:hidden;text-overflow:ellipsis}
.bars{width:auto}.bar{display:block;height:4px;border-radius:2px;margin:1px 0;min-width:1px}
"""

_SCRIPT = """
const [find,kind,order]=['find','kind','order'].map(id=>document.getElementById(id));
const cards=[...document.querySelectorAll('.card')];
function show(){const q=find.value.toLowerCase(),k=kind.value;for(const c of cards){
const d=c.dataset;c.hidden=!(d.name.includes(q)&&(!k||d.kind===k||(k==='odd'&&d.odd==='1')));}}
function sort(){const k=order.value,by={'':()=>0,name:(a,b)=>a.dataset.name<b.dataset.name?-1:1,
missing:(a,b)=>b.dataset.missing-a.dataset.missing,odd:(a,b)=>b.dataset.odd-a.dataset.odd}[k];
document.querySelector('.grid').append(...[...cards].sort(by));}
find.addEventListener('input',show);kind.addEventListener('change',show);
order.addEventListener('change',sort);
"""

_BODY = """<h1>{title}</h1>{legend}
<h2>Anomalies</h2>{anomalies}
<h2>{columns} columns</h2>
<p class="none">Plots go from the 1st to the 99th percentile of the numbers.</p>
<div class="tools"><input id="find" type="search" placeholder="Find a column" aria-label="Find">
<select id="kind" aria-label="Kind"><option value="">all kinds</option><option>number</option>
<option>text</option><option>label</option><option value="odd">with anomalies</option></select>
<select id="order" aria-label="Order"><option value="">as they are</option>
<option value="name">by name</option><option value="missing">most missing</option>
<option value="odd">anomalies first</option></select>
</div>
<div class="grid">
{cards}
</div>"""
