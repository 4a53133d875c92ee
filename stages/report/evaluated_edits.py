"""What each edit is like: its numbers in one table, the scores along its strengths, how far its pictures drift."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.measurements import Measurement
from stages.report.charts import line_chart
from stages.report.data import Curve, LineChart
from stages.report.figures import MINUS, count, interval, plain, within
from stages.report.markup import Markup, tag

CURVES = 4
COLUMNS = (
    ("edit_strength", "strength", "σ of its own score"),
    ("hit_rate", "moved as asked", ""),
    ("monotonicity", "never back", ""),
    ("side_effect", "side effect", "σ of the others"),
    ("identity_cosine", "stays itself", "cosine"),
    ("step_ratio", "evenness", "1 is even"),
    ("second_difference", "bend", "0 is straight"),
    ("linearity", "straight", "R²"),
    ("locality_mask", "in its place", ""),
)
Found = Mapping[tuple[str, str, str], Measurement]


def details(m: Measurement) -> dict[str, Any]:
    """A measurement's detail, opened."""
    detail: dict[str, Any] = json.loads(m.detail) if m.detail else {}
    return detail


def own(found: Found, edit: str, score: str) -> bool:
    """Whether the edit is meant for this score."""
    return bool(details(found["effect", edit, score]).get("own"))


def facts(head: Sequence[str], body: Sequence[Markup], *, title: str = "", after: Sequence[Markup] = ()) -> Markup:
    """A table in a card, under a title."""
    columns = tag("thead", tag("tr", [tag("th", h, scope="col") for h in head]))
    table = tag("table", columns, tag("tbody", body), class_="facts")
    named = tag("h3", title, class_="inside") if title else None
    return tag("div", named, table, after, class_="card wide")


def table(found: Found, edits: Sequence[str]) -> Markup:
    """A row an edit, a column a question."""
    by: dict[tuple[str, str], Measurement] = {(metric, subject): m for (metric, subject, _), m in found.items()}
    # One strength asks nothing of the way: no column of that.
    asked = {metric for (metric, _), m in by.items() if m.status != "one_strength"}
    shown = [c for c in COLUMNS if c[0] in asked]
    head = [tag("th", title, tag("small", unit) if unit else None, scope="col") for _, title, unit in shown]
    body = []
    for edit in edits:
        cells = [_number(by.get((metric, edit)), title) for metric, title, _ in shown]
        body.append(tag("tr", tag("th", edit, scope="row"), cells))
    drawn = tag("table", tag("thead", tag("tr", tag("th"), head)), tag("tbody", body), class_="facts")
    return tag("div", tag("div", drawn, class_="scroll"), class_="card wide")


def _number(m: Measurement | None, title: str) -> Markup:
    if m is None or m.value is None:
        return tag("td", "–" if m is None else m.status.replace("_", " "), data_label=title)
    return tag(
        "td", tag("div", within(m.value, m.low, m.high), tag("small", interval(m.low, m.high))), data_label=title
    )


def curves(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup | None:
    """Scores over strengths; nothing to draw where there is one strength only."""
    charts = []
    for edit in edits:
        ranked = sorted(scores, key=lambda s: (not own(found, edit, s), -abs(found["effect", edit, s].value or 0.0)))
        lines = [_curve(found["effect", edit, s]) for s in ranked[:CURVES]]
        drawn = [c for c in lines if len(c.points) > 1]
        if len(drawn) and len(drawn[0].points) > 2:
            unit = found["effect", edit, ranked[0]].unit.removeprefix("σ a ")
            charts.append(
                line_chart(
                    LineChart(
                        f"Along {edit}",
                        f"strength, in {_plural(unit)}",
                        "change in σ",
                        tuple(drawn),
                    )
                )
            )
    note = tag("p", "Bands: the interval. Figures: the change at the greatest strength.", class_="more")
    return tag("div", tag("div", charts, class_="charts"), note, class_="card pad") if charts else None


def _curve(m: Measurement) -> Curve:
    detail = details(m)
    points = [
        (s, v) for s, v in zip(detail.get("strengths", ()), detail.get("curve", ()), strict=True) if v is not None
    ]
    ends = zip(*(detail.get(k, ()) for k in ("strengths", "low", "high")), strict=True)
    band = [(s, low, high) for s, low, high in ends if low is not None and high is not None]
    zero = (0.0, 0.0, 0.0)
    return Curve(
        m.target,
        tuple(sorted([*points, zero[:2]]) if points else ()),
        tuple(sorted([*band, zero])) if len(band) == len(points) > 0 else (),
    )


def _plural(unit: str) -> str:
    plural = {"σ of strength": "σ of the data along it", "unit of its own score": "units of its own score"}
    return plural.get(unit, "latent units")


def drift(rows: Sequence[Measurement]) -> Markup | None:
    """How far edited pictures lie from the unedited ones, edit by edit and strength by strength."""
    kernel = {(m.subject, m.target): m for m in rows if m.metric == "kernel_distance"}
    frechet = [m for m in rows if m.metric == "frechet_distance"]
    if not frechet:
        return None
    edits = list(dict.fromkeys(m.subject for m in frechet))
    columns = list(dict.fromkeys(m.target for m in frechet))
    titles = [c.replace("-", MINUS).replace(" sigma", " σ") for c in columns]
    by = {(m.subject, m.target): m for m in frechet}
    body = []
    for edit in edits:
        cells = [
            _drifted(by.get((edit, c)), kernel.get((edit, c)), title) for c, title in zip(columns, titles, strict=True)
        ]
        body.append(tag("tr", tag("th", edit, scope="row"), cells))
    first = details(frechet[0])
    name = str(first.get("extractor", "")).replace("_", " ")
    odd = sorted({m.message for m in frechet if m.message})
    note = (
        f"Fréchet distance of the pictures at each strength from the same {count(frechet[0].n or 0)} images unedited, with its interval, "
        f"and the kernel distance under it; {first.get('features', 0)} features, {name}. 0 is no change at all. Where it grows much faster on one "
        "side, pictures leave what the codec knows. It compares between edits of this table only."
    )
    after = [tag("p", text, class_="more") for text in (note, *odd)]
    return facts(("", *titles), body, title="How far edited pictures drift", after=after)


def _drifted(m: Measurement | None, kernel: Measurement | None, title: str) -> Markup:
    if m is None:
        return tag("td", "–", data_label=title)
    value = m.status.replace("_", " ") if m.value is None else tag("b", within(m.value, m.low, m.high))
    reach = tag("small", interval(m.low, m.high)) if m.low is not None else None
    below = (
        tag("small", f"kernel {plain(kernel.value, 2)}") if kernel is not None and kernel.value is not None else None
    )
    return tag("td", tag("div", value, reach, below), data_label=title)
