"""Charts as inline SVG and plain boxes. Lines stretch with the page; labels are text of the page, so they stay readable."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.measurements import Measurement
from stages.report.data import Curve, LineChart
from stages.report.figures import percent, plain, share, ticks
from stages.report.markup import Markup, join, tag

WIDTH, HEIGHT = 1000.0, 300.0
Scale = Callable[[float], float]
INKS = 4
"""Curve colours in the style sheet; more curves than that start again."""


def line_chart(chart: LineChart) -> Markup:
    """Curves with axes, grid and legend; nothing when no point is finite."""
    curves = [
        Curve(c.name, tuple(p for p in c.points if math.isfinite(p[0]) and math.isfinite(p[1])), c.band)
        for c in chart.curves
    ]
    points = [p for c in curves for p in c.points]
    if not points:
        return Markup("")
    xs = [p[0] for p in points]
    ys = [*(p[1] for p in points), *(y for c in curves for _, *ends in c.band for y in ends)]
    x_low, x_high = min(xs), max(xs)
    rows = ticks(min(ys), max(ys), about=6)
    columns = [t for t in ticks(x_low, x_high) if x_low <= t <= x_high]

    def across(x: float) -> float:
        return share(x - x_low, x_high - x_low)

    def up(y: float) -> float:
        return share(y - rows[0], rows[-1] - rows[0])

    drawing = tag(
        "svg",
        [_rule(up(y)) for y in rows],
        [_band(c, i, across, up) for i, c in enumerate(curves) if c.band],
        [_curve(c, i, across, up) for i, c in enumerate(curves)],
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{chart.title}: {', '.join(c.name for c in curves)}",
    )
    legend = [tag("span", tag("i", class_=f"key ink{i % INKS}"), c.name, _last(c)) for i, c in enumerate(curves)]
    return tag(
        "figure",
        tag("figcaption", tag("b", chart.title), tag("span", legend, class_="legend") if chart.legend else None),
        tag(
            "div",
            tag("div", [tag("span", plain(y), style=f"bottom:{up(y):.2f}%") for y in rows], class_="y-axis"),
            tag("div", drawing, class_="area"),
            tag("div", [tag("span", plain(x), style=f"left:{across(x):.2f}%") for x in columns], class_="x-axis"),
            class_="plot",
        ),
        tag("p", f"{chart.y_label} over {chart.x_label}", class_="axis-names"),
        class_="chart",
    )


def bar(percent: float, *, tone: str = "") -> Markup:
    """A horizontal bar, `percent` of its place."""
    return tag("span", tag("span", style=f"width:{max(percent, 0.6):.2f}%", class_=tone or None), class_="bar")


def stacked(parts: list[tuple[str, int, str]]) -> Markup:
    """Shares of a whole in one bar: (name, count, tone)."""
    whole = sum(n for _, n, _ in parts)
    pieces = [tag("span", style=f"flex-grow:{n}", class_=tone, title=f"{name}: {n:,}") for name, n, tone in parts if n]
    legend = [
        tag("span", tag("i", class_=f"key {tone}"), f"{name} {percent(n, whole)}") for name, n, tone in parts if n
    ]
    return join(tag("div", pieces, class_="stacked"), tag("div", legend, class_="legend"))


def whisker(value: float, low: float | None, high: float | None, *, start: float, end: float) -> Markup:
    """A value as a bar from `start` (where it would say nothing: 0, or AUC .5) towards `end`, with its interval on top."""

    def at(x: float) -> float:
        return min(max(share(x - start, end - start), 0.0), 100.0)

    span = None
    if low is not None and high is not None:
        span = tag("span", class_="span", style=f"left:{at(low):.2f}%;width:{at(high) - at(low):.2f}%")
    return tag("span", tag("span", class_="fill", style=f"width:{at(value):.2f}%"), span, class_="whisker")


def size_whisker(m: Measurement, end: float) -> Markup:
    """How large a signed number is, with its interval; the figure beside it tells the sign."""
    low, high = (None, None) if m.low is None or m.high is None else sorted((abs(m.low), abs(m.high)))
    if m.low is not None and m.high is not None and m.low <= 0 <= m.high:
        low = 0.0
    return whisker(abs(m.value or 0.0), low, high, start=0.0, end=end)


def heat_map(
    title: str, rows: Sequence[tuple[str, str]], columns: Sequence[str], cells: Sequence[Sequence[float]], *, note: str
) -> Markup:
    """Shares in [0, 1] as a table of percents, darker where larger. `rows`: (name, what it stands on)."""
    head = tag("tr", tag("td"), [tag("th", c, scope="col") for c in columns])
    body = [
        tag("tr", tag("th", name, tag("small", on), scope="row"), [_cell(v) for v in values])
        for (name, on), values in zip(rows, cells, strict=True)
    ]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="heat")
    caption = tag("figcaption", tag("b", title))
    return tag("figure", caption, tag("div", table, class_="scroll"), tag("p", note, class_="more"), class_="chart")


@dataclass(frozen=True, slots=True)
class Signed:
    """A cell of a signed map: None is "not measured". `strong`: can be told from 0; `ringed`: where a large one is meant.

    `text`: the number as it is to be written, if not with two figures.
    """

    value: float | None
    small: str = ""
    strong: bool = True
    ringed: bool = False
    text: str = ""


def signed_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Signed]],
    *,
    note: str,
    deepest: float = 0.0,
) -> Markup:
    """Signed numbers as a table, blue below 0 and orange above, deeper where larger.

    `deepest` has the deepest colour, or the largest number where that is larger: 1 for what cannot pass 1.
    """
    largest = max((abs(c.value) for line in cells for c in line if c.value is not None), default=0.0)
    largest = max(largest, deepest) or 1.0
    head = tag("tr", tag("td"), [tag("th", c, scope="col") for c in columns])
    body = [
        tag("tr", tag("th", name, scope="row"), [_signed(c, largest) for c in line])
        for name, line in zip(rows, cells, strict=True)
    ]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="heat signed")
    caption = tag("figcaption", tag("b", title))
    return tag("figure", caption, tag("div", table, class_="scroll"), tag("p", note, class_="more"), class_="chart")


def _signed(cell: Signed, largest: float) -> Markup:
    small = tag("small", cell.small) if cell.small else None
    if cell.value is None:
        return tag("td", "–", small, class_="pale")
    tones = ["neg" if cell.value < 0 else "pos", "" if cell.strong else "pale", "ringed" if cell.ringed else ""]
    shade = f"--shade:{62 * abs(cell.value) / largest:.0f}%"
    return tag("td", cell.text or plain(cell.value, 2), small, style=shade, class_=" ".join(t for t in tones if t))


def _cell(value: float) -> Markup:
    shade = min(max(value, 0.0), 1.0)
    inverse = "deep" if shade > 0.55 else None
    return tag("td", f"{100 * value:.0f}", style=f"--shade:{100 * shade:.0f}%", class_=inverse)


def _rule(up: float) -> Markup:
    y = f"{HEIGHT * (1 - up / 100):.1f}"
    return tag("line", x1=0, x2=f"{WIDTH:g}", y1=y, y2=y, class_="rule", vector_effect="non-scaling-stroke")


def _band(curve: Curve, number: int, across: Scale, up: Scale) -> Markup:
    there = [(x, high) for x, _, high in curve.band]
    back = [(x, low) for x, low, _ in reversed(curve.band)]
    return tag("polygon", points=_places([*there, *back], across, up), class_=f"band ink{number % INKS}")


def _places(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    return " ".join(f"{WIDTH * across(x) / 100:.1f},{HEIGHT * (1 - up(y) / 100):.1f}" for x, y in points)


def _curve(curve: Curve, number: int, across: Scale, up: Scale) -> Markup:
    points = _places(curve.points, across, up)
    return tag("polyline", points=points, class_=f"curve ink{number % INKS}", vector_effect="non-scaling-stroke")


def _last(curve: Curve) -> Markup | None:
    return tag("em", plain(curve.points[-1][1])) if curve.points else None
