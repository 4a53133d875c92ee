"""Where edits work and where not, and which of several directions of one attribute does it best."""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import size_whisker, whisker
from stages.report.evaluated_edits import details, facts
from stages.report.figures import count, interval, percent, plain, signed, within
from stages.report.markup import Markup, tag


def where_it_works(rows: Sequence[Measurement]) -> Markup | None:
    """A row an edit and slice."""
    effects = [m for m in rows if m.metric == "slice_effect"]
    tests = {(m.subject, m.target): m for m in rows if m.metric == "slice_interaction"}
    if not effects:
        return None
    widest = max(abs(x or 0.0) for m in effects for x in (m.value, m.low, m.high)) or 1.0
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
                    tag("b", within(m.value, m.low, m.high)),
                    size_whisker(m, widest),
                    class_="figure",
                ),
                data_label="effect, σ",
            )
        )
        gap = (
            ""
            if test is None or test.value is None
            else f"{within(test.value, test.low, test.high, sign=True)} ({interval(test.low, test.high)})"
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
    return facts(head, body, title="Where it works, and where not")


def ranking(rows: Sequence[Measurement]) -> Markup | None:
    """A row a direction, the best first."""
    rivals = [m for m in rows if m.metric == "bake_off"]
    if not rivals:
        return None
    ordered = sorted(rivals, key=lambda m: (m.target, details(m).get("rank", 0)))
    body = [_rival(m) for m in ordered]
    head = (
        "",
        "direction",
        "share of its effect that is on target",
        "effect over leak",
        "effect, σ",
        "AUC, for comparison",
    )
    return facts(head, body, title="Which direction does it best")


def _rival(m: Measurement) -> Markup:
    detail = details(m)
    over, auc, effect = detail.get("effect_over_leak"), detail.get("auc"), detail.get("effect")
    drawn = whisker(m.value or 0.0, m.low, m.high, start=0.0, end=1.0)
    share = tag("div", tag("b", f"{100 * (m.value or 0.0):.1f} %"), drawn, class_="figure")
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
