"""Pages of HTML that need nothing from elsewhere: style, tables, plots as SVG. No TensorFlow."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

COLOURS = 8  # that can be told apart, each with its own dashes and its own mark
WIDTH, HEIGHT = 400, 230  # of a plot, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 8, 38  # margins


@dataclass(frozen=True)
class Series:
    """A line of a plot.

    Attributes:
        name: for the tooltip of its points.
        points: x and y.
        colour: number of its colour, dashes and mark.
        marks: whether points are marked; each then has a tooltip.
        steps: whether y holds until the next x, as in a histogram.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    marks: bool = True
    steps: bool = False


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page, for light and dark screens of any width.

    Args:
        title: of the window; text.
        body: HTML.
        style: CSS beside what all pages have.
        script: JavaScript.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>\n"
        f"<body><main>\n{body}\n</main>{f'<script>{script}</script>' if script else ''}"
        "</body></html>\n"
    )


def number(value: float) -> str:
    """A number for people."""
    if abs(value) < 1e15 and (value == int(value) or abs(value) >= 1e4):
        return f"{round(value):,}"
    return f"{value:,.4g}"


def dot(colour: int) -> str:
    """The mark of a series, for legends and heads of tables."""
    return (
        f'<svg class="mark s{colour % COLOURS}" viewBox="-6 -6 12 12" aria-hidden="true">'
        f"{_mark(colour, 0, 0, 4.5)}</svg>"
    )


def legend(names: Iterable[str], first: int = 0) -> str:
    """What the colours and marks of a plot mean."""
    items = (f"<li>{dot(i)}{escape(name)}</li>" for i, name in enumerate(names, first))
    return f'<ul class="legend">{"".join(items)}</ul>'


def table(rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table whose first row is its head; it scrolls where the screen is too narrow.

    Args:
        rows: of text, all equally long.
        kind: CSS class.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{_breaking(first)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in others)}</tr>"
        for first, *others in rows[1:]
    )
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _breaking(name: str) -> str:
    """HTML of a name, which a narrow screen breaks where a word of it begins."""
    return re.sub(r"(?<=[._])(?=[a-z])", "<wbr>", escape(name))


def card(title: str, content: str, note: str = "") -> str:
    """A box with a heading.

    Args:
        title: text.
        content: HTML.
        note: text below it.
    """
    below = f'<p class="none">{escape(note)}</p>' if note else ""
    return f'<section class="card"><h3>{escape(title)}</h3>{content}{below}</section>'


def bars(rows: Iterable[tuple[str, float, tuple[float, float] | None, str]], colour: int) -> str:
    """Bars with intervals, from 0 to the right.

    Args:
        rows: name, value, interval if there is one, and the text to show beside.
        colour: of all.
    """
    rows = list(rows)
    most = max((max(value, *(ends or (value,))) for _, value, ends, _ in rows), default=0.0)
    lines = []
    for name, value, ends, text in rows:
        share = [max(v, 0) / most * 100 if most > 0 else 0 for v in (value, *(ends or ()))]
        whisker = ""
        if ends:
            whisker = (
                f'<b class="whisker" style="left:{share[1]:.1f}%;'
                f'width:{share[2] - share[1]:.1f}%"></b>'
            )
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="track"><div>'
            f'<i class="bar s{colour % COLOURS}" style="width:{share[0]:.1f}%"></i>{whisker}'
            f"</div></td><td>{escape(text)}</td></tr>"
        )
    return f'<div class="wide"><table class="bars">{"".join(lines)}</table></div>'


def ranges(rows: Iterable[tuple[str, float, tuple[float, float] | None, str]], whole: float) -> str:
    """Points with intervals, on one axis from the lowest end to the highest one.

    Args:
        rows: name, value, interval if there is one, and the text to show beside.
        whole: value that has a line through all rows.
    """
    rows = list(rows)
    every = [whole, *(v for _, value, ends, _ in rows for v in (value, *(ends or ())))]
    low, span = min(every), (max(every) - min(every)) or 1.0

    def place(value: float) -> float:
        return 2 + (value - low) / span * 96

    lines = []
    for name, value, ends, text in rows:
        whisker = ""
        if ends:
            left, right = place(ends[0]), place(ends[1])
            whisker = f'<b class="whisker" style="left:{left:.1f}%;width:{right - left:.1f}%"></b>'
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="track"><div>'
            f'<b class="whole" style="left:{place(whole):.1f}%"></b>{whisker}'
            f'<i class="at s0" style="left:{place(value):.1f}%"></i></div></td>'
            f"<td>{escape(text)}</td></tr>"
        )
    return f'<div class="wide"><table class="bars">{"".join(lines)}</table></div>'


def plot(
    series: Sequence[Series],
    x_name: str,
    y_name: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """Lines over axes.

    Args:
        series: at least one point in all.
        x_name, y_name: what the axes are.
        x_range, y_range: what they show; all points unless given.
        diagonal: whether there is a line where y is x.
    """
    xs, ys = (np.array([p[i] for s in series for p in s.points], float) for i in (0, 1))
    x_ticks, y_ticks = (
        _ticks(*(x_range or (xs.min(), xs.max()))),
        _ticks(*(y_range or (ys.min(), ys.max()))),
    )
    low_x, high_x = x_range or (xs.min(), xs.max())
    low_y, high_y = min(y_ticks[0], ys.min()), max(y_ticks[-1], ys.max())

    def x(value: float) -> float:
        return _LEFT + (value - low_x) / ((high_x - low_x) or 1) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return (
            HEIGHT - _BOTTOM - (value - low_y) / ((high_y - low_y) or 1) * (HEIGHT - _TOP - _BOTTOM)
        )

    parts = []
    for tick, text in zip(y_ticks, _exact(y_ticks), strict=True):
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">')
        parts.append(f"{text}</text>")
    for tick, text in zip(x_ticks, _exact(x_ticks), strict=True):
        if low_x <= tick <= high_x:
            at, under = f"{x(tick):.1f}", HEIGHT - _BOTTOM + 15
            parts.append(f'<text x="{at}" y="{under}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
    )
    if diagonal:
        ends = [max(low_x, low_y), min(high_x, high_y)]
        a, b = ((x(v), y(v)) for v in ends)
        parts.append(f'<path class="even" d="M{a[0]:.1f},{a[1]:.1f}L{b[0]:.1f},{b[1]:.1f}"/>')
    parts += [_line(s, x, y) for s in series]
    return (
        f'<p class="unit">{escape(y_name)}</p><svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(y_name)} over {escape(x_name)}">{"".join(parts)}</svg>'
    )


def _line(series: Series, x: object, y: object) -> str:
    assert callable(x) and callable(y)
    places = [(x(a), y(b)) for a, b in series.points]
    joint = "H{0:.1f}V{1:.1f}" if series.steps else "L{0:.1f},{1:.1f}"
    path = "M{:.1f},{:.1f}".format(*places[0]) + "".join(joint.format(*p) for p in places[1:])
    parts = [f'<path class="line s{series.colour % COLOURS}" d="{path}"/>']
    if series.marks:
        for (a, b), (left, top) in zip(series.points, places, strict=True):
            told = escape(f"{series.name}: {number(a)}, {number(b)}")
            mark = _mark(series.colour, left, top, 3)
            parts.append(f'<g class="s{series.colour % COLOURS}"><title>{told}</title>{mark}</g>')
    return "".join(parts)


def _mark(colour: int, x: float, y: float, r: float) -> str:
    """A shape that belongs to a colour."""
    if colour % COLOURS == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    outlines: list[list[tuple[float, float]]] = [
        [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        [(0, -1.2), (1.2, 1), (-1.2, 1)],
        [(0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)],
        [(-1.2, -1), (1.2, -1), (0, 1.2)],
        [(-1.5, -0.45), (1.5, -0.45), (1.5, 0.45), (-1.5, 0.45)],
        [(-0.45, -1.5), (0.45, -1.5), (0.45, 1.5), (-0.45, 1.5)],
        [(-1.3, -1.3), (0, -0.5), (1.3, -1.3), (0.5, 0), (1.3, 1.3), (0, 0.5), (-1.3, 1.3)],
    ]
    corners = outlines[colour % COLOURS - 1]
    points = " ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in corners)
    return f'<polygon points="{points}"/>'


def scatter(
    points: Sequence[tuple[float, float]],
    told: Sequence[str],
    colours: Sequence[int],
    labelled: Sequence[tuple[int, str]],
    name: str,
) -> str:
    """Points with tooltips, without axes.

    Args:
        points: x and y.
        told: tooltip of each.
        colours: of each.
        labelled: points that have a text beside them, the most wanted first; one that would cover
            another text is left out.
        name: of the plot.
    """
    side, margin = 440.0, 12.0
    places = np.asarray(points, float)
    low, high = places.min(axis=0), places.max(axis=0)
    places = margin + (places - low) / np.maximum(high - low, 1e-12) * (side - 2 * margin)
    parts = [
        f'<g class="s{colour % COLOURS}"><title>{escape(text)}</title>'
        f"{_mark(colour, x, y, 2.6)}</g>"
        for (x, y), text, colour in zip(places, told, colours, strict=True)
    ]
    boxes: list[tuple[float, float, float, float]] = []
    for index, text in labelled:
        (x, y), width = places[index], 6.2 * len(text)
        right = x + width + 6 <= side
        box = (x + 5 if right else x - 5 - width, y - 7, x + 5 + width if right else x - 5, y + 5)
        if box[0] < 0 or any(_overlap(box, other) for other in boxes):
            continue
        boxes.append(box)
        anchor = "start" if right else "end"
        parts.append(
            f'<text class="label" x="{x + (5 if right else -5):.1f}" y="{y + 4:.1f}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )
    return (
        f'<svg class="plot map" viewBox="0 0 {side:.0f} {side:.0f}" role="img" '
        f'aria-label="{escape(name)}">{"".join(parts)}</svg>'
    )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that hold a range."""
    span = high - low or abs(high) or 1.0
    rough = 10.0 ** math.floor(math.log10(span / 4))
    step = next(rough * k for k in (1, 2, 2.5, 5, 10) if span / (rough * k) <= 5)
    first = math.floor(low / step + 1e-9)
    ticks = (round((first + i) * step, 12) for i in itertools.count())
    found = [next(ticks)]
    while found[-1] < high - step * 1e-9:
        found.append(next(ticks))
    return found if len(found) > 1 else [*found, next(ticks)]


def _exact(ticks: Sequence[float]) -> list[str]:
    """Texts of ticks, with as many digits as these have."""
    texts, near = list(map(number, ticks)), (ticks[1] - ticks[0]) / 100
    for digits in range(5, 16):
        told = (float(text.replace(",", "")) for text in texts)
        if all(abs(a - b) < near for a, b in zip(told, ticks, strict=True)):
            break
        texts = [f"{tick:,.{digits}g}" for tick in ticks]
    return texts


_LIGHT = """--bg:#fbfbfa;--card:#fff;--ink:#1d2129;--soft:#5b6472;--rule:#e4e7ec;
--bad:#b42318;--warn:#b54708;--good:#067647;--s0:#2f6fdb;--s1:#c2700f;--s2:#1f8a5b;--s3:#9b51b5;
--s4:#9a7206;--s5:#c03a5e;--s6:#0e8296;--s7:#5d6470"""
_DARK = """--bg:#14171c;--card:#1c2128;--ink:#e6e9ee;--soft:#a3adbd;--rule:#303741;
--bad:#ff8a80;--warn:#f5b061;--good:#5fd3a0;--s0:#6ea8ff;--s1:#f0a35a;--s2:#5fcf9d;--s3:#cf8be6;
--s4:#e0bb4c;--s5:#ff8fae;--s6:#58cde0;--s7:#b4bcc9"""
_SERIES = "".join(f".s{i}{{--c:var(--s{i})}}" for i in range(COLOURS))
_DASHES = "".join(
    f".line.s{i}{{stroke-dasharray:{dashes}}}"
    for i, dashes in enumerate(("6 3", "2 2", "8 3 2 3", "10 4", "4 4", "1 3", "12 3 2 3 2 3"), 1)
)
_STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}
{_SERIES}{_DASHES}
*{{box-sizing:border-box}}
body{{margin:0;padding:24px;background:var(--bg);color:var(--ink);
font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
@media(max-width:600px){{body{{padding:14px}}}}
@media(min-width:601px){{wbr{{display:none}}}}
main{{max-width:1500px;margin:auto}}
h1{{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}}h2{{font-size:16px;margin:24px 0 8px}}
h3{{font-size:14px;margin:0 0 8px;overflow-wrap:anywhere}}
small,th{{font-weight:400;color:var(--soft)}}
ul.legend{{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:0;padding:0}}
.mark{{display:inline-block;width:11px;height:11px;margin:0 6px 0 0;vertical-align:-1px}}
.mark *,g[class^=s]>*{{fill:var(--c)}}
.bar{{background:var(--c)}}
.line{{fill:none;stroke:var(--c);stroke-width:1.6}}
.axis{{stroke:var(--rule)}}svg{{width:100%;display:block;margin-bottom:6px}}
svg text{{fill:var(--soft);font-size:11px}}
.grid{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(400px,100%),1fr));gap:14px}}
.card{{background:var(--card);border:1px solid var(--rule);border-radius:10px;
padding:14px;min-width:0}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%}}
td,th{{text-align:right;padding:2px 6px;white-space:nowrap;font-variant-numeric:tabular-nums}}
td:first-child,th:first-child{{text-align:left;padding-left:0}}
.none{{color:var(--soft)}}
"""
