"""Sections for what steps measured. A stage that wants more than a table of numbers has its own module and a case here."""

from collections.abc import Callable, Sequence

from schemas.measurements import OK, Measurement
from stages.report.compare import compare
from stages.report.components import components
from stages.report.compose import compose
from stages.report.convergence import convergence
from stages.report.data import Measured
from stages.report.diagnosis import diagnosis
from stages.report.disentanglement import disentanglement
from stages.report.evaluate import evaluate
from stages.report.fidelity import fidelity
from stages.report.figures import interval, plain, within
from stages.report.markup import Markup, join, tag
from stages.report.projection import projection


def measured(found: Measured) -> Markup:
    """The section of one step."""
    match found.stage:
        case "diagnose":
            return diagnosis(found.measurements)
        case "components":
            return components(found.measurements)
        case "compose":
            return compose(found.measurements)
        case "disentanglement":
            return _beside(disentanglement, found.measurements)
        case "evaluate":
            return evaluate(found.measurements)
        case "compare":
            return compare(found.measurements)
        case "fidelity":
            return _beside(fidelity, found.measurements)
        case "interpolate":
            return _beside(convergence, found.measurements)
        case "project":
            return _beside(projection, found.measurements)
        case _:
            return _beside(numbers, found.measurements)


def _beside(section: Callable[[Sequence[Measurement]], Markup], rows: Sequence[Measurement]) -> Markup:
    """A section of what was measured, and under it how many rows took no part."""
    gone = [row for row in rows if row.metric == "left_out"]
    told = tag("p", "; ".join(map(_left, gone)), class_="more") if gone else None
    kept = [row for row in rows if row.metric != "left_out"]
    return join(section(kept) if kept or not gone else None, told)


def _left(row: Measurement) -> str:
    of = f" of the {row.subject}" if row.subject else ""
    return f"{plain(row.value or 0)} left out{of}: {row.target.replace('_', ' ')}"


def numbers(rows: Sequence[Measurement]) -> Markup:
    """Every number with its interval, its n and what it was held against."""
    head = ("measure", "of", "on", "value", "interval", "n", "")
    body = [
        tag("tr", [tag("td", cell) for cell in _cells(row)], class_=None if row.status == OK else "bad") for row in rows
    ]
    columns = tag("thead", tag("tr", [tag("th", h, scope="col") for h in head]))
    return tag(
        "div",
        tag("div", tag("table", columns, tag("tbody", body), class_="facts"), class_="scroll"),
        class_="card wide",
    )


def _cells(row: Measurement) -> list[str]:
    value = f"{within(row.value, row.low, row.high)} {row.unit}".strip()
    count = "" if row.n is None else f"{row.n:,}"
    why = row.message or (row.status.replace("_", " ") if row.status != OK else "")
    return [row.metric.replace("_", " "), row.subject, row.target, value, interval(row.low, row.high), count, why]
