"""The section of an interpolation along geodesics: did the paths settle, and what did looking for them bring?"""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.figures import count, percent, plain
from stages.report.markup import Markup, join, tag

FORMULAS = (
    ("energy", "n·Σ‖D(zᵢ₊₁) − D(zᵢ)‖² over the nodes of a path, D the decoder, pixels from 0 to 1; at least the length squared"),
    ("converged", "the largest part of the energy's gradient times the distance of the ends, over the energy: at most `tolerance`"),
)  # fmt: skip


def convergence(rows: Sequence[Measurement]) -> Markup:
    """In words what came of it, then the numbers, then the formulas."""
    by = {row.metric: row for row in rows}
    return join(tag("div", [tag("p", said) for said in _said(by)], class_="card pad"), _numbers(by), _definitions())


def _said(by: dict[str, Measurement]) -> list[Markup]:
    said = []
    settled, kept = by.get("converged"), by.get("energy_kept")
    if settled is not None and settled.value is not None:
        n = settled.n or 0
        done = round(settled.value * n)
        words = f"{count(done)} of {count(n)} paths converged" if done else f"None of {count(n)} paths converged"
        said.append(tag("b", words if settled.status == OK or not done else f"Only {words}"))
        if settled.status != OK:
            said.append(tag("span", settled.message, class_="note"))
    if kept is not None and kept.value is not None:
        said.append(
            tag("span", f"Half of the paths cost {percent(kept.value, 1)} or less of what the straight line costs.")
        )
    if "without_path" in by:
        lost = by["without_path"]
        said.append(tag("span", f"{count(int(lost.value or 0))} strips have no path: {lost.message}.", class_="note"))
    return said


def _numbers(by: dict[str, Measurement]) -> Markup | None:
    names = (
        ("iterations", "steps of the search, half of the paths took at most"),
        ("straight_energy", "energy of all straight lines together"),
        ("energy", "energy of all paths together"),
        ("worst_gradient", "furthest from converged; at most the tolerance is asked"),
    )
    body = []
    for metric, meaning in names:
        m = by.get(metric)
        if m is not None and m.value is not None:
            limit = "" if m.threshold is None else f"at most {plain(m.threshold)}"
            cells = [tag("td", text) for text in (plain(m.value), limit, m.subject)]
            body.append(tag("tr", tag("th", meaning, scope="row"), cells, class_=None if m.status == OK else "bad"))
    if not body:
        return None
    head = tag("thead", tag("tr", [tag("th", h, scope="col") for h in ("", "value", "asked", "images")]))
    return tag("div", tag("table", head, tag("tbody", body), class_="facts"), class_="card wide")


def _definitions() -> Markup:
    entries = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    listed = tag("details", tag("summary", "How each number is defined"), tag("dl", entries, class_="definitions"))
    return tag("div", listed, class_="card pad")
