"""Histograms, sorted bars and maps as inline SVG, in the frame of the other charts: they stretch, and labels stay text."""

from collections.abc import Callable, Sequence

from stages.diagnosis.neighbours import is_hole
from stages.report.figures import plain, share, ticks
from stages.report.markup import Markup, tag

WIDTH, HEIGHT = 1000.0, 300.0


def histogram(
    title: str,
    edges: Sequence[float],
    rows: Sequence[float],
    *,
    expected: Sequence[float] | None = None,
    mark: tuple[float, str] | None = None,
    names: str,
) -> Markup:
    """Bars between `edges`, the counts `expected` in each as a line, and a place on the axis that is marked with a word."""
    top = max([*rows, *(expected or ()), 1e-300])
    low, high = edges[0], edges[-1]

    def across(x: float) -> float:
        return share(x - low, high - low)

    steps = ticks(0, top, about=4)
    bars = [
        _box(across(a), across(b), 0, share(n, steps[-1]), "part")
        for a, b, n in zip(edges, edges[1:], rows, strict=False)
        if n
    ]
    middle = [(across((a + b) / 2), e) for a, b, e in zip(edges, edges[1:], expected or (), strict=False)]
    legend = [tag("span", tag("i", class_="key ink0"), "rows")]
    drawn: list[Markup] = [*bars]
    if middle:
        points = " ".join(f"{WIDTH * x / 100:.1f},{HEIGHT * (1 - share(e, steps[-1]) / 100):.1f}" for x, e in middle)
        drawn.append(tag("polyline", points=points, class_="curve ink1", vector_effect="non-scaling-stroke"))
        legend.append(tag("span", tag("i", class_="key ink1"), "expected of N(0, I)"))
    if mark is not None and low <= mark[0] <= high:
        x = f"{WIDTH * across(mark[0]) / 100:.1f}"
        drawn.append(tag("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_="mark", vector_effect="non-scaling-stroke"))
        legend.append(tag("span", tag("i", class_="key mark-key"), f"{mark[1]} = {plain(mark[0])}"))
    columns = [t for t in ticks(low, high) if low <= t <= high]
    return _frame(
        title, drawn, legend, steps, lambda y: share(y, steps[-1]), [(across(t), plain(t)) for t in columns], names
    )


def sorted_bars(title: str, values: Sequence[float], *, line: tuple[float, str] | None, names: str) -> Markup:
    """Values from the greatest down, a bar each, and a threshold as a line across."""
    steps = ticks(0, max([*values, line[0] if line else 0, 1e-12]), about=4)
    width = 100 / max(len(values), 1)
    gap = 0.12 * width
    drawn = [
        _box(
            i * width + gap,
            (i + 1) * width - gap,
            0,
            share(v, steps[-1]),
            "part" if line is None or v >= line[0] else "under",
        )
        for i, v in enumerate(values)
    ]
    legend = []
    if line is not None:
        y = f"{HEIGHT * (1 - share(line[0], steps[-1]) / 100):.1f}"
        drawn.append(tag("line", x1=0, x2=WIDTH, y1=y, y2=y, class_="mark", vector_effect="non-scaling-stroke"))
        legend.append(tag("span", tag("i", class_="key mark-key"), f"{line[1]} {plain(line[0])}"))
    places = sorted({1, max(len(values) // 2, 1), len(values)})
    columns = [((p - 0.5) * width, str(p)) for p in places] if values else []
    return _frame(title, drawn, legend, steps, lambda y: share(y, steps[-1]), columns, names)


def coverage_grid(title: str, codes: Sequence[Sequence[int]], draws: Sequence[Sequence[int]], *, names: str) -> Markup:
    """Cells shaded by how many codes lie there; empty ones where draws fall are marked as holes. Rows from below."""
    size = len(codes)
    top = max((n for row in codes for n in row), default=1) or 1
    step = 100 / size
    drawn: list[Markup] = []
    for y in range(size):
        for x in range(size):
            code, draw = codes[y][x], draws[y][x]
            hole = is_hole(code, draw)
            if code or hole:
                told = f"{code} codes, {draw} draws"
                shade = None if hole else f"opacity:{0.15 + 0.85 * (code / top) ** 0.5:.2f}"
                drawn.append(
                    tag(
                        "rect",
                        tag("title", told),
                        x=f"{x * step:.3f}",
                        y=f"{100 - (y + 1) * step:.3f}",
                        width=f"{step * 0.94:.3f}",
                        height=f"{step * 0.94:.3f}",
                        class_="hole" if hole else "part",
                        style=shade,
                    )
                )
    legend = [
        tag("span", tag("i", class_="key ink0"), "images, the darker the more"),
        tag("span", tag("i", class_="key hole-key"), "draws fall here and hardly an image lies here: a hole"),
    ]
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", legend, class_="legend")),
        tag("svg", drawn, viewBox="0 0 100 100", role="img", aria_label=title, class_="map"),
        tag("p", names, class_="axis-names"),
        class_="chart",
    )


def _box(left: float, right: float, low: float, high: float, kind: str) -> Markup:
    return tag(
        "rect",
        x=f"{WIDTH * left / 100:.2f}",
        width=f"{max(WIDTH * (right - left) / 100, 0.5):.2f}",
        y=f"{HEIGHT * (1 - high / 100):.2f}",
        height=f"{HEIGHT * (high - low) / 100:.2f}",
        class_=kind,
    )


def _frame(
    title: str,
    drawn: Sequence[Markup],
    legend: Sequence[Markup],
    steps: Sequence[float],
    up: Callable[[float], float],
    columns: Sequence[tuple[float, str]],
    names: str,
) -> Markup:
    rules = []
    for y in steps:
        at = f"{HEIGHT * (1 - up(y) / 100):.1f}"
        rules.append(
            tag("line", x1=0, x2=f"{WIDTH:g}", y1=at, y2=at, class_="rule", vector_effect="non-scaling-stroke")
        )
    svg = tag(
        "svg",
        rules,
        drawn,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=title,
    )
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", legend, class_="legend")),
        tag(
            "div",
            tag("div", [tag("span", plain(y), style=f"bottom:{up(y):.2f}%") for y in steps], class_="y-axis"),
            tag("div", svg, class_="area"),
            tag("div", [tag("span", text, style=f"left:{x:.2f}%") for x, text in columns], class_="x-axis"),
            class_="plot",
        ),
        tag("p", names, class_="axis-names"),
        class_="chart",
    )
