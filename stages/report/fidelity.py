"""The section of a fidelity step: each set of pictures beside what untouched reconstructions of other images score."""

import json
from collections.abc import Sequence
from typing import Any

from schemas.measurements import OK, Measurement
from stages.report.figures import count, interval, within
from stages.report.markup import Markup, tag
from stages.report.strips import TITLES, strength_in_words

COLUMNS = (
    ("frechet_distance", "Fréchet distance"),
    ("kernel_distance", "kernel distance"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("density", "density"),
    ("coverage", "coverage"),
)
FORMULAS = (
    (
        "Fréchet distance",
        "‖μ₁−μ₂‖² + tr(Σ₁+Σ₂−2(Σ₁Σ₂)^½) of the features: FID where they are Inception's. Falls as 1/n",
    ),
    (
        "kernel distance",
        "unbiased squared MMD, kernel (xᵀy/d + 1)³, mean of blocks of 1,000 (with `group`: of all pairs from different groups): "
        "KID where they are Inception's",
    ),
    ("precision", "share of the pictures inside a ball, to the k-th neighbour, of a reconstruction"),
    ("recall", "share of the reconstructions inside such a ball of a picture"),
    ("density", "how many balls of reconstructions a picture lies in, over k"),
    ("coverage", "share of the reconstructions' balls that hold a picture"),
    (
        "path length",
        "mean of d(G(t), G(t+ε))/ε², ε = 1e-4, outer 1 % on both ends dropped; on straight lines between latents, or, of a "
        "codec whose latents lie near a centred shell, on great circles of unit vectors",
    ),
    (
        "interval",
        "95 %, by leaving out each of 20 groups of images in turn; of the kernel distance, from the spread of its blocks "
        "(with `group`: by leaving out groups too)",
    ),
    (
        "untouched",
        "the same number for reconstructions of images that the reference has not seen, as many as the set has",
    ),
)


def fidelity(rows: Sequence[Measurement]) -> Markup:
    """A row a set of pictures, a column a measure, what untouched pictures score under every value."""
    path = [row for row in rows if row.metric == "path_length"]
    rows = [row for row in rows if row.metric != "path_length"]
    sets = {row.subject: {r.metric: r for r in rows if r.subject == row.subject} for row in rows}
    extractor = rows[0].target if rows else ""
    head = tag("tr", [tag("th", h, scope="col") for h in ("pictures", *(title for _, title in COLUMNS))])
    table = tag(
        "table", tag("thead", head), tag("tbody", [_set(name, found) for name, found in sets.items()]), class_="facts"
    )
    why = (
        f"Features: {extractor.replace('_', ' ')}. Pictures are held against reconstructions, so what the codec itself loses "
        "does not count; small figures are what untouched reconstructions of other images score. Distances compare "
        "only at equal n."
    )
    titles = dict(COLUMNS)
    missing = sorted({f"{titles[row.metric]}: {row.message}" for row in rows if row.value is not None and row.message})
    entries = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    terms = tag("details", tag("summary", "How each measure is defined"), tag("dl", entries, class_="definitions"))
    return tag(
        "div",
        tag("div", table, class_="scroll"),
        tag("p", why, class_="more"),
        tag("ul", [tag("li", text) for text in missing], class_="notices") if missing else None,
        [_path(p) for p in path],
        terms,
        class_="card wide",
    )


def _path(row: Measurement) -> Markup:
    if row.value is None:
        return tag("p", f"Path length: {row.message}.")
    way = "great circles" if row.detail and json.loads(row.detail)["space"] == "z" else "straight lines"
    pairs = f"mean of {count(row.n or 0)} random pairs of images on {way}, by {row.target.replace('_', ' ')}"
    value = tag("b", within(row.value, row.low, row.high))
    return tag("p", "Path length ", value, f" ({interval(row.low, row.high)}): {pairs}. Smaller is smoother.")


def _set(name: str, found: dict[str, Measurement]) -> Markup:
    first = next(iter(found.values()))
    odd = tag("span", first.status.replace("_", " "), class_="note") if first.status != OK else None
    about = json.loads(first.detail) if first.detail else {}
    against = f" against {count(about['n_reference'])}" if "n_reference" in about else ""
    small = [tag("small", of) for of in (_drawn(about), f"{count(first.n or 0)} pictures{against}") if of]
    head = tag("th", about.get("code_set", name), small, odd, scope="row")
    if first.status != OK:
        return tag("tr", head, tag("td", first.message, colspan=len(COLUMNS)))
    return tag("tr", head, [_value(found[metric], title) for metric, title in COLUMNS])


def _drawn(about: dict[str, Any]) -> str:
    """Which codes of the set these are: `smiling, +1 σ`. Draws that are not truncated have no strength."""
    if not about:
        return ""
    title, at, unit = about["title"], about["strength"], about["unit"]
    title = TITLES.get(("sample", title), title).replace("Draws", "draws") if unit == "psi" else title
    return title if at is None or (unit, at) == ("psi", 1) else f"{title}, {strength_in_words(at, unit)}"


def _value(row: Measurement, title: str) -> Markup:
    near = None if row.threshold is None else tag("small", f"untouched {within(row.threshold, row.low, row.high)}")
    reach = interval(row.low, row.high)
    value = tag("b", within(row.value, row.low, row.high))
    return tag("td", tag("div", value, tag("small", reach) if reach else None, near), data_label=title)
