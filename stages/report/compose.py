"""The section of a compose step: what each new direction kept of the ones it was made of, and how near those were to one another."""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import Signed, signed_map
from stages.report.figures import count, plain
from stages.report.markup import Markup, join, tag

ROUNDING = 1e-9
READ = (
    "Each new direction (row) beside the directions it was made of (column), as a cosine: 1 is the same direction, 0 is at right angles "
    "to it. At right angles is not unconfounded: what a fit mixed up, composing does not take apart."
)
CONDITION = (
    "how much larger an error of the old directions may come out in the new ones. 1: they stood at right angles before; above 10 or so "
    "they nearly depend on one another, and the new ones are uncertain."
)
FORMULA = (
    "D holds the old unit directions as columns. Projection: d − S S⁺ d, S those that are taken out. Löwdin: D (DᵀD)^(−½), the "
    "orthonormal set nearest to all. Dual basis: D (DᵀD)⁻¹, so that a step along one changes its own score by 1 and the others by 0. "
    "Condition: largest over smallest singular value of D."
)


def compose(rows: Sequence[Measurement]) -> Markup:
    """A map of cosines, new by old, and the condition of the old ones."""
    cosines = [m for m in rows if m.metric == "cosine"]
    parts = [_map(cosines) if cosines else None, *_condition(rows), _counted(rows)]
    return tag(
        "div",
        parts,
        tag("details", tag("summary", "How each number is defined"), tag("p", FORMULA)),
        class_="card pad",
    )


def _map(cosines: Sequence[Measurement]) -> Markup:
    new = list(dict.fromkeys(m.subject for m in cosines))
    old = list(dict.fromkeys(m.target for m in cosines))
    by = {(m.subject, m.target): m.value for m in cosines}
    cells = [[_cell(by.get((a, b))) for b in old] for a in new]
    drawn = signed_map("New directions beside the old", new, old, cells, note="cosine", deepest=1.0)
    return join(drawn, tag("p", READ, class_="more"))


def _cell(value: float | None) -> Signed:
    rounded = 0.0 if value is not None and abs(value) < ROUNDING else value
    return Signed(rounded, strong=bool(rounded))


def _condition(rows: Sequence[Measurement]) -> list[Markup]:
    found = [m for m in rows if m.metric == "condition"]
    good = [tag("p", tag("b", f"Condition {plain(m.value)}"), ": ", CONDITION) for m in found if m.value is not None]
    odd = [tag("p", f"{m.status.replace('_', ' ')}: {m.message}", class_="note") for m in found if m.status != OK]
    return good + odd


def _counted(rows: Sequence[Measurement]) -> Markup | None:
    counts = {m.metric: int(m.value or 0) for m in rows if m.metric in ("rows", "non_finite")}
    if not counts:
        return None
    left = f", {count(counts['non_finite'])} non-finite ones left out" if counts.get("non_finite") else ""
    return tag("p", f"σ and the mean along them are of {count(counts.get('rows', 0))} rows{left}.", class_="more")
