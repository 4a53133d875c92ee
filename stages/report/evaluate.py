"""The section of an evaluate step: what each edit does, what else it does, who is to blame, where it fails, which is best.

Sentences and pictures first; formulas behind a click. Blue is less, orange is more, as everywhere in the report.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.measurements import OK, Measurement
from stages.report.charts import Signed, line_chart, signed_map, whisker
from stages.report.data import Curve, LineChart
from stages.report.figures import MINUS, count, interval, percent, plain, signed
from stages.report.markup import Markup, join, tag

Found = Mapping[tuple[str, str, str], Measurement]
CURVES = 4
FORMULAS = (
    ("effect R", "E[s_j(D(z+αd_i)) − s_j(D(z))]/(ασ_j) over images, paired; over a grid of α, the line through 0"),
    ("σ_j", "standard deviation of score j over the unedited pictures"),
    ("interval", "Poisson bootstrap over images (or groups); percentiles of the replicates"),
    (
        "real",
        "Benjamini–Hochberg over all cells: of the effects called real, at most the stated share is expected to be false",
    ),
    ("moved as asked", "share of (image, strength) pairs whose own score went the asked way"),
    ("never back", "share of the steps along the strengths on which the own score did not fall"),
    ("side effect", "E|Δs_j|/σ_j, mean over the other scores and over the grid"),
    (
        "stays itself",
        "cosine of the re-encoded picture to the re-encoded original, about the mean, without the part along d",
    ),
    ("evenness", "longest step of the path over its mean step, in pixels; 1 is even"),
    (
        "bend",
        "|change of direction between steps| over the mean step, in pixels; 0 is straight, 8-bit rounding adds a little",
    ),
    ("straight", "R² of each image's own Δs on α; curvature: α² term at the end of the grid over the α term"),
    ("in its place", "change of the picture inside the mask over all change"),
    (
        "leak",
        "R_tj/R_tt. Of a plain direction ρμ₁/μ₀ + κ, of a balanced one κ: the difference is the data's; the rest is the model's, or the scorer's where it mistakes one for the other",
    ),
    ("slices", "slope inside less slope on the label's other images; Benjamini–Hochberg over all of them"),
    ("share on target", "max(R_tt, 0)/Σ_j|R_tj|; first: share of bootstrap replicates in which it ranks first"),
)


def evaluate(rows: Sequence[Measurement]) -> Markup:
    """Every part that has something to show."""
    found = {(row.metric, row.subject, row.target): row for row in rows}
    edits = list(dict.fromkeys(row.subject for row in rows if row.metric == "effect"))
    scores = list(dict.fromkeys(row.target for row in rows if row.metric == "effect"))
    return join(
        _boxed(_answers(found, edits, scores)),
        _boxed(_effects(found, edits, scores), _left(rows)),
        _table(found, edits),
        _curves(found, edits, scores),
        _triptych(found, edits, scores),
        _blame(rows),
        _slices(rows),
        _ranking(rows),
        _definitions(),
    )


def _answers(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup:
    """One sentence a direction."""
    return tag("ul", [tag("li", _answer(found, edit, scores)) for edit in edits], class_="answers")


def _answer(found: Found, edit: str, scores: Sequence[str]) -> Markup:
    own = next((s for s in scores if _own(found, edit, s)), None)
    others = [found["effect", edit, s] for s in scores if s != own and _detail(found["effect", edit, s]).get("real")]
    others.sort(key=lambda m: -abs(m.value or 0.0))
    named = ", ".join(f"{m.target} {signed(m.value or 0.0, 2)} σ" for m in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    also = f"It also moves {named}{more}." if others else "No other score moves by more than chance would."
    if own is None:
        return join(tag("b", edit), f": no score of its own. {also}")
    effect, hit = found["effect", edit, own], found.get(("hit_rate", edit, own))
    if effect.value is None:
        return join(tag("b", edit), f": no effect can be given ({effect.status.replace('_', ' ')}).")
    share = f", the asked way on {percent(hit.value, 1)} of the images" if hit and hit.value is not None else ""
    unit = effect.unit.removeprefix("σ a ")
    moves = f"{own} by {signed(effect.value, 2)} σ"
    within = f" ({interval(effect.low, effect.high)})" if effect.low is not None else ""
    return join(tag("b", edit), f": one {unit} moves ", tag("b", moves), f"{within}{share}. {also}")


def _effects(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup:
    cells = []
    for edit in edits:
        line = []
        for score in scores:
            m = found["effect", edit, score]
            detail = _detail(m)
            small = interval(m.low, m.high) if m.value is not None else m.status.replace("_", " ")
            line.append(Signed(m.value, small, strong=bool(detail.get("real")), ringed=bool(detail.get("own"))))
        cells.append(line)
    rate = next((m.threshold for (metric, _, _), m in found.items() if metric == "effect"), None)
    note = (
        "How far one unit of strength of an edit (row) moves each score (column), in standard deviations of the score, with its "
        f"interval. Ringed: the score the edit is meant for. Pale: cannot be told from 0 (false discoveries ≤ {percent(rate or 0, 1)})."
    )
    return signed_map("What each edit moves", edits, scores, cells, note=note)


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


def _table(found: Found, edits: Sequence[str]) -> Markup:
    by: dict[tuple[str, str], Measurement] = {(metric, subject): m for (metric, subject, _), m in found.items()}
    shown = [c for c in COLUMNS if any((c[0], edit) in by for edit in edits)]
    head = [tag("th", title, tag("small", unit) if unit else None, scope="col") for _, title, unit in shown]
    body = []
    for edit in edits:
        cells = [_number(by.get((metric, edit)), title) for metric, title, _ in shown]
        body.append(tag("tr", tag("th", edit, scope="row"), cells))
    table = tag("table", tag("thead", tag("tr", tag("th"), head)), tag("tbody", body), class_="facts")
    return tag("div", tag("div", table, class_="scroll"), class_="card wide")


def _number(m: Measurement | None, title: str) -> Markup:
    if m is None or m.value is None:
        return tag("td", "–" if m is None else m.status.replace("_", " "), data_label=title)
    return tag("td", tag("div", plain(m.value), tag("small", interval(m.low, m.high))), data_label=title)


def _curves(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup | None:
    charts = []
    for edit in edits:
        ranked = sorted(scores, key=lambda s: (not _own(found, edit, s), -abs(found["effect", edit, s].value or 0.0)))
        curves = [_curve(found["effect", edit, s]) for s in ranked[:CURVES]]
        drawn = [c for c in curves if len(c.points) > 1]
        if len(drawn) and len(drawn[0].points) > 2:
            unit = found["effect", edit, ranked[0]].unit.removeprefix("σ a ")
            charts.append(
                line_chart(
                    LineChart(f"Along {edit}", f"strength, in {_plural(unit)}", "change of the scores, σ", tuple(drawn))
                )
            )
    return tag("div", charts, class_="card pad charts") if charts else None


def _curve(m: Measurement) -> Curve:
    detail = _detail(m)
    points = [
        (s, v) for s, v in zip(detail.get("strengths", ()), detail.get("curve", ()), strict=True) if v is not None
    ]
    return Curve(m.target, tuple(sorted([*points, (0.0, 0.0)]) if points else ()))


def _plural(unit: str) -> str:
    return "σ of the data along it" if unit.startswith("σ") else "latent units"


def _triptych(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup | None:
    """Labels, directions, pictures: the same question asked three times."""
    labels = [m for (metric, _, _), m in found.items() if metric == "label_correlation"]
    cosines = [m for (metric, _, _), m in found.items() if metric == "direction_cosine"]
    if not labels and not cosines:
        return None
    effects = [[Signed(found["effect", e, s].value, "", strong=True) for s in scores] for e in edits]
    parts = [
        _square("Labels: which go together", labels) if labels else None,
        _square("Directions: which point the same way", cosines) if cosines else None,
        signed_map("Pictures: what moves with what", edits, scores, effects, note="effect, σ"),
    ]
    why = (
        "Correlated labels with orthogonal directions and clean pictures: the data is entangled, the model is not. Clean labels with "
        "effects off the target: the model, or the scorer, ties them together."
    )
    return tag("div", tag("div", parts, class_="triptych"), tag("p", why, class_="more"), class_="card pad")


def _square(title: str, pairs: Sequence[Measurement]) -> Markup:
    names = list(dict.fromkeys(name for m in pairs for name in (m.subject, m.target)))
    value = {frozenset((m.subject, m.target)): m.value for m in pairs}
    cells = [[Signed(value.get(frozenset((a, b)))) for b in names] for a in names]
    return signed_map(title, names, names, cells, note="correlation" if "Labels" in title else "cosine", deepest=1.0)


def _blame(rows: Sequence[Measurement]) -> Markup | None:
    data = [m for m in rows if m.metric == "leak_data"]
    model = {(m.subject, m.target): m for m in rows if m.metric == "leak_model"}
    if not data:
        return None
    widest = max((abs(m.value or 0.0) for m in [*data, *model.values()]), default=1.0) or 1.0
    body = []
    for mine in data:
        other = model[mine.subject, mine.target]
        name = tag("th", f"{mine.subject} → {mine.target}", tag("small", _said(mine, other)), scope="row")
        body.append(tag("tr", name, _part(mine, widest, "from the data"), _part(other, widest, "model or scorer")))
    head = (
        "of one step towards the first, how much goes to the second",
        "because their labels go together",
        "left: the model, or the scorer",
    )
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )
    odd = sorted({m.message for m in [*data, *model.values()] if m.message})
    return tag(
        "div",
        tag("h3", "Data or model?", class_="inside"),
        table,
        [tag("p", o, class_="more") for o in odd],
        class_="card wide",
    )


def _said(data: Measurement, model: Measurement) -> str:
    if data.value is None or model.value is None:
        return "cannot be told"
    real = [
        word
        for word, m in (("data", data), ("model or the scorer", model))
        if m.low is None or m.high is None or not m.low <= 0 <= m.high
    ]
    return {0: "neither can be told from 0", 1: f"the {' and '.join(real)}", 2: "both"}[len(real)]


def _part(m: Measurement, widest: float, label: str) -> Markup:
    if m.value is None:
        return tag("td", m.status.replace("_", " "), data_label=label)
    low, high = (None, None) if m.low is None or m.high is None else sorted((abs(m.low), abs(m.high)))
    if m.low is not None and m.high is not None and m.low < 0 < m.high:
        low = 0.0
    drawn = whisker(abs(m.value), low, high, start=0.0, end=widest * 1.2)
    cell = tag("div", tag("b", plain(m.value, 2)), drawn, class_="figure")
    return tag("td", tag("div", cell, tag("small", interval(m.low, m.high))), data_label=label)


def _slices(rows: Sequence[Measurement]) -> Markup | None:
    effects = [m for m in rows if m.metric == "slice_effect"]
    tests = {(m.subject, m.target): m for m in rows if m.metric == "slice_interaction"}
    if not effects:
        return None
    widest = max((max(m.value or 0.0, m.high or 0.0) for m in effects), default=1.0) or 1.0
    body = []
    for m in effects:
        test = tests.get((m.subject, m.target))
        said = m.message or ("" if test is None else test.message)
        differs = test is not None and test.status != OK
        figure = (
            tag("td", "–")
            if m.value is None
            else tag(
                "td",
                tag(
                    "div",
                    tag("b", plain(m.value, 2)),
                    whisker(m.value, m.low, m.high, start=0.0, end=widest),
                    class_="figure",
                ),
                data_label="effect, σ",
            )
        )
        gap = (
            ""
            if test is None or test.value is None
            else f"{test.value:+.2f} ({interval(test.low, test.high)})".replace("-", MINUS)
        )
        note = tag("span", said, class_="note") if differs else said
        body.append(
            tag(
                "tr",
                tag("th", m.subject, tag("small", m.target), scope="row"),
                tag("td", count(m.n or 0), data_label="images", class_="n"),
                figure,
                tag("td", gap, " ", note, data_label="against others"),
            )
        )
    head = ("edit, on images where", "images", "effect on its own score, σ", "against the other images")
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )
    return tag("div", tag("h3", "Where it works, and where not", class_="inside"), table, class_="card wide")


def _ranking(rows: Sequence[Measurement]) -> Markup | None:
    rivals = [m for m in rows if m.metric == "bake_off"]
    if not rivals:
        return None
    ordered = sorted(rivals, key=lambda m: (m.target, _detail(m).get("rank", 0)))
    body = [_rival(m) for m in ordered]
    head = (
        "",
        "direction",
        "share of its effect that is on target",
        "effect over leak",
        "effect, σ",
        "AUC, for comparison",
    )
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )
    return tag("div", tag("h3", "Which direction does it best", class_="inside"), table, class_="card wide")


def _rival(m: Measurement) -> Markup:
    detail = _detail(m)
    over, auc, effect = detail.get("effect_over_leak"), detail.get("auc"), detail.get("effect")
    drawn = whisker(m.value or 0.0, m.low, m.high, start=0.0, end=1.0)
    share = tag("div", tag("b", percent(m.value or 0.0, 1)), drawn, class_="figure")
    first = f"first in {percent(detail.get('first') or 0.0, 1)} of replicates"
    return tag(
        "tr",
        tag("td", f"{detail.get('rank', '')}.", class_="n"),
        tag(
            "th",
            m.subject,
            tag("small", f"{m.target}, {str(detail.get('estimator', '')).replace('_', ' ')}"),
            scope="row",
        ),
        tag("td", tag("div", share, tag("small", first)), data_label="on target"),
        tag("td", "no leak" if over is None else plain(over, 2), data_label="over leak"),
        tag("td", "–" if effect is None else signed(effect, 2), data_label="effect"),
        tag("td", "–" if auc is None else f"{auc:.3f}", data_label="AUC"),
    )


def _left(rows: Sequence[Measurement]) -> Markup | None:
    left = [
        f"{int(m.value)} images left out: {m.target.replace('_', ' ')}"
        for m in rows
        if m.metric == "left_out" and m.value
    ]
    left += [
        f"{m.target}: {m.message} ({m.status.replace('_', ' ')})"
        for m in rows
        if m.metric == "score_sigma" and m.message and m.value is None
    ]
    return tag("ul", [tag("li", text) for text in left], class_="notices") if left else None


def _definitions() -> Markup:
    entries = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    listed = tag("details", tag("summary", "How each number is defined"), tag("dl", entries, class_="definitions"))
    return tag("div", listed, class_="card pad")


def _own(found: Found, edit: str, score: str) -> bool:
    return bool(_detail(found["effect", edit, score]).get("own"))


def _detail(m: Measurement) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(m.detail) if m.detail else {}
    return detail


def _boxed(*content: Markup | None) -> Markup:
    return tag("div", *content, class_="card pad")
