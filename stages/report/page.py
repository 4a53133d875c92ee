"""The report page: head, cards, then a section a part. A part without data is left out, in the page and in its contents."""

from stages.report.charts import line_chart, stacked
from stages.report.data import Counts, Measured, ReportData
from stages.report.figures import count, rate, seconds
from stages.report.markup import Markup, join, tag, with_code
from stages.report.measured import measured
from stages.report.sections import directions, failures, provenance, timings
from stages.report.shell import page
from stages.report.strips import strips


def render_report(data: ReportData) -> str:
    """One self-contained HTML file: no scripts, no requests, everything escaped."""
    sections = [
        ("strips", "Along the directions", [strips(t) for t in data.strips if t.kind == "traverse"]),
        ("edits", "Edits and analogies", [strips(t) for t in data.strips if t.kind in ("edit", "analogy")]),
        ("draws", "Walks and samples", [strips(t) for t in data.strips if t.kind in ("walk", "sample")]),
        ("paths", "Between images", [strips(t) for t in data.strips if t.kind == "interpolate"]),
        ("directions", "Directions", directions(data.directions) if data.directions else None),
        *((f"measured-{m.step}", _title(m), measured(m)) for m in data.measured),
        ("training", "Training", [_boxed(line_chart(c)) for c in data.charts if any(k.points for k in c.curves)]),
        ("failures", "Failures", failures(data.failures) if data.failures else None),
        ("timings", "Timings", timings(data.timings) if data.timings else None),
        ("provenance", "Provenance", provenance(data)),
    ]
    shown = [(key, title, content) for key, title, content in sections if content]
    return page(
        f"{data.dataset} · Latentmill report",
        _header(data, [(key, title) for key, title, _ in shown]),
        _summary(data),
        [tag("section", tag("h2", title), content, id=key) for key, title, content in shown],
    )


def _title(found: Measured) -> str:
    """`Evaluate`, or `Components: pca` where the step was given a name of its own."""
    stage = found.stage.replace("_", " ").capitalize()
    return stage if found.step == found.stage else f"{stage}: {found.step}"


def _header(data: ReportData, contents: list[tuple[str, str]]) -> Markup:
    short = tag("code", data.fingerprint[:16], title=data.fingerprint)
    facts = [
        ("codec", join(data.codec_family, " ", short)),
        ("run", tag("code", data.run_id)),
        ("started", data.started_at.strftime("%-d %B %Y, %H:%M %Z").strip()),
    ]
    return tag(
        "header",
        tag("p", "Latentmill report", class_="over"),
        tag("h1", data.dataset),
        tag(
            "p",
            tag("span", data.state, class_=f"state {data.state}"),
            [tag("span", name, " ", tag("b", value)) for name, value in facts],
            class_="meta",
        ),
        tag("nav", [tag("a", title, href=f"#{key}") for key, title in contents], aria_label="Contents"),
    )


def _summary(data: ReportData) -> Markup:
    cells = [tag("div", tag("span", name), tag("b", value)) for name, value in data.figures.items()]
    shares = None
    if data.counts is not None:
        cells = _count_cells(data.counts) + cells
        parts = [("encoded in this run", data.counts.encoded, "good"), ("already there", data.counts.already, "idle")]
        shares = tag("div", stacked([*parts, ("failed", data.counts.failed, "bad-tone")]), class_="shares")
    notices = (
        tag("ul", [tag("li", with_code(text)) for text in data.notices], class_="notices") if data.notices else None
    )
    box = tag(
        "div", tag("div", cells, class_="cards"), shares, class_="card", style="overflow:hidden;margin-top:1.6rem"
    )
    return join(box if cells else None, notices)


def _count_cells(counts: Counts) -> list[Markup]:
    shown = [("listed", count(counts.listed), ""), ("encoded", count(counts.encoded), "")]
    shown += [
        ("already there", count(counts.already), ""),
        ("failed", count(counts.failed), "bad" if counts.failed else ""),
    ]
    shown.append(("encode time", seconds(counts.seconds), ""))
    if counts.rows_per_second is not None:
        shown.append(("images / s", rate(counts.rows_per_second), ""))
    return [tag("div", tag("span", name), tag("b", value), class_=tone or None) for name, value, tone in shown]


def _boxed(content: Markup) -> Markup:
    return tag("div", content, class_="card pad")
