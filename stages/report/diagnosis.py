"""The section of a diagnose step: flags first, then the norms, what each coordinate says, and the map of holes."""

import json
from collections.abc import Sequence
from typing import Any

from schemas.measurements import OK, Measurement
from stages.report.distributions import coverage_grid, histogram, sorted_bars
from stages.report.figures import interval, plain, within
from stages.report.markup import Markup, join, tag

FORMULAS = (
    ("norm", "‖z‖ of N(0, I) in d dimensions is √d with a standard deviation of .707 at any d. Typicality is (‖z‖² − d)/√(2d), "
     "about N(0, 1). With a posterior, the norm of its draws: √(‖μ‖² + Σσ²)."),
    ("kl", "½(μ² + σ² − 1 − log σ²) a coordinate, in nats, averaged over images."),
    ("active units", "Coordinates with Var over images of E[z|x] above the threshold (Burda et al. 2016). The interval is the count "
     "at three times the threshold and at a third of it."),
    ("collapsed dimensions", "KL and decoder sensitivity both under the threshold. Sensitivity: ½ log(1 + ‖D(z + σe) − D(z)‖²/v), v = 1/12 "
     "squared grey levels, the variance of rounding."),
    ("aggregate kl", "KL of a Gaussian with the codes' moments from N(0, I). It cannot see two modes: hence the others."),
    ("ks, w1", "Per coordinate against N(0, 1): greatest difference of distribution functions, and mean distance of quantiles."),
    ("sliced w2, mmd, two sample accuracy", "Over random projections; kernel distance with permutations; held-out accuracy of boosted trees "
     "that tell codes from draws (.5: they cannot)."),
    ("precision, recall, density, coverage", "k-nearest-neighbour balls of codes and of draws (Kynkäänniemi 2019, Naeem 2020), beside what two "
     "sets of draws give. Precision low: draws fall into holes."),
    ("codebook perplexity", "exp of the entropy of how often each code occurs: K where all K codes are used alike, 1 where one is."),
    ("dead codes", "Codes that no token uses. Equal use of K codes by N tokens leaves K(1 − 1/K)^N of them unused by chance."),
    ("indexed precision", "Of draws, looked up in the index of all images: the share no further from the nearest image than 95 % of images are "
     "from theirs. Hole depth: the emptiest draws' distance over that of two neighbouring images."),
    ("cycle error", "‖E(D(z)) − z‖ over the root of the codes' total variance."),
    ("intrinsic dimension", "TwoNN (Facco et al. 2017), from the ratio of the distances to the two nearest codes. Participation ratio: (Σλ)²/Σλ²."),
)  # fmt: skip
SHOWN_HOLES = 6


def diagnosis(rows: Sequence[Measurement]) -> Markup:
    """Readable from the top: what is wrong, what it was held against, then the pictures, then every number."""
    by_metric = {m.metric: m for m in rows}
    cards = [_norms(by_metric), _use(by_metric), _codebook(by_metric), _map(by_metric)]
    return join(
        _flags(rows),
        [tag("div", chart, class_="card pad") for chart in cards if chart is not None],
        tag("div", tag("div", _table(rows), class_="scroll"), _formulas(), class_="card pad"),
    )


def _flags(rows: Sequence[Measurement]) -> Markup:
    flags = [m for m in rows if m.status != OK]
    if not flags:
        told = f"No flag: {sum(m.threshold is not None for m in rows)} numbers were held against a threshold and none crossed it."
        return tag("p", told, class_="notices good-news")
    items = [
        tag("li", tag("b", f"{m.status.replace('_', ' ')} · {m.metric.replace('_', ' ')}"), " — ", m.message)
        for m in flags
    ]
    return tag("ul", items, class_="notices flags")


def _norms(found: dict[str, Measurement]) -> Markup | None:
    detail = _detail(found.get("norm"))
    if not detail:
        return None
    return histogram(
        "How far codes lie from the origin",
        detail["edges"],
        detail["rows"],
        expected=detail.get("expected"),
        mark=(detail["root_d"], "√d"),
        names="images over ‖z‖",
    )


def _use(found: dict[str, Measurement]) -> Markup | None:
    kl, units, collapse = found.get("kl"), found.get("active_units"), found.get("collapsed_dimensions")
    if kl is not None and (detail := _detail(kl)):
        told = f" — {collapse.value:g} of {collapse.n} collapsed" if collapse and collapse.value is not None else ""
        return sorted_bars(
            f"What each coordinate says{told}", detail["per_dimension"], line=None, names="KL in nats, greatest first"
        )
    if units is not None and units.threshold is not None and (detail := _detail(units)):
        return sorted_bars(
            "How much each coordinate varies over images",
            detail["variances"],
            line=(units.threshold, "active above"),
            names="variance of the code, greatest first",
        )
    return None


def _codebook(found: dict[str, Measurement]) -> Markup | None:
    use, dead = found.get("codebook_perplexity"), found.get("dead_codes")
    if use is None or use.value is None or use.n is None or not (detail := _detail(use)):
        return None
    told = f"{plain(use.value)} of {detail['codes']:,} by perplexity"
    unused = f", {plain(dead.value)} never" if dead is not None and dead.value else ""
    return sorted_bars(
        f"How evenly the codes are used — {told}{unused}",
        detail["tokens"],
        line=(use.n / detail["codes"], "if all were used alike"),
        names="tokens a code, the most used first",
    )


def _map(found: dict[str, Measurement]) -> Markup | None:
    cells = found.get("hole_cells")
    detail = _detail(cells)
    if cells is None or not detail:
        return None
    draws = "the prior" if cells.target == "prior" else "a Gaussian fitted to the codes"
    grid = coverage_grid(
        f"Where images are, and where only draws of {draws} fall",
        detail["codes"],
        detail["draws"],
        names="the codes' two main axes; hover a cell for its counts",
    )
    worst = [
        tag("li", f"{w['gap']:.3g} times its neighbours' radius from ", tag("code", w["nearest"]))
        for w in detail["worst"][:SHOWN_HOLES]
    ]
    told = tag(
        "details", tag("summary", "Draws furthest from any image, and the image nearest to each"), tag("ul", worst)
    )
    holes = f"{cells.value:g} holes {cells.message}" if cells.value is not None else ""
    return join(grid, tag("p", holes, class_="more"), told)


def _table(rows: Sequence[Measurement]) -> Markup:
    head = ("measure", "on", "value", "interval", "held against", "n", "")
    body = [tag("tr", [tag("td", cell) for cell in _cells(m)], class_=None if m.status == OK else "bad") for m in rows]
    return tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )


def _cells(row: Measurement) -> list[str]:
    value = f"{within(row.value, row.low, row.high)} {row.unit}".strip()
    held = "" if row.threshold is None else plain(row.threshold)
    count = "" if row.n is None else f"{row.n:,}"
    note = "" if row.status == OK else row.status.replace("_", " ")
    on = " ".join(filter(None, (row.subject, row.target)))
    return [row.metric.replace("_", " "), on, value, interval(row.low, row.high), held, count, note]


def _formulas() -> Markup:
    pairs = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    return tag("details", tag("summary", "What each number is"), tag("dl", pairs, class_="definitions"))


def _detail(row: Measurement | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.detail) if row is not None and row.detail else {}
    return found
