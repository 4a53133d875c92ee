"""The section of an evaluate step: what each edit does, what else it does, who is to blame, where it fails, which is best.

Sentences and pictures first; formulas behind a click. Blue is less, orange is more, as everywhere in the report.
"""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import Signed, signed_map
from stages.report.evaluated_blame import blame, together
from stages.report.evaluated_edits import Found, curves, details, drift, own, table
from stages.report.evaluated_slices import ranking, where_it_works
from stages.report.figures import interval, percent, signed, within
from stages.report.markup import Markup, join, tag

FORMULAS = (
    ("effect R", "E[s_j(D(z+αd_i)) − s_j(D(z))]/(ασ_j) over images, paired; over a grid of α, the line through 0"),
    ("σ_j", "standard deviation of score j over the unedited pictures"),
    ("interval", "Poisson bootstrap over images (or groups); percentiles of the replicates, wider for few images"),
    (
        "label correlation",
        "Pearson's r, φ of two classes; artanh r ± 1.96 · deviation of r over the replicates / (1 − r²)",
    ),
    (
        "real",
        "Benjamini–Hochberg over all cells: of the effects called real, at most the stated share is expected to be false",
    ),
    (
        "better than chance",
        "a score fitted on d coordinates of n images tells its label by R² = d/(n−1) at chance; F test of R² against that",
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
        "R_tj/R_tt. Of what pictures show, a plain direction leaks ρμ₁/μ₀ + κ and a balanced one κ: the difference is the data's, κ the model's",
    ),
    (
        "scorer's part",
        "scores of untouched pictures regressed on all labels at once, s = Sy; an edit measured as r shows u = diag(S)S⁻¹r, and the leak of r less that of u is the scorer's",
    ),
    (
        "Fréchet distance",
        "‖μ₁−μ₂‖² + tr(Σ₁+Σ₂−2(Σ₁Σ₂)^½) of features of edited and unedited pictures of the same images; interval by delete-a-group jackknife",
    ),
    (
        "kernel distance",
        "unbiased squared MMD, kernel (xᵀy/d + 1)³, of the same pairs, without an image's pair with itself",
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
        table(found, edits),
        curves(found, edits, scores),
        drift(rows),
        together(found, edits, scores),
        blame(rows),
        where_it_works(rows),
        ranking(rows),
        _definitions(),
    )


def _answers(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup:
    """One sentence a direction."""
    return tag("ul", [tag("li", _answer(found, edit, scores)) for edit in edits], class_="answers")


def _answer(found: Found, edit: str, scores: Sequence[str]) -> Markup:
    meant = next((s for s in scores if own(found, edit, s)), None)
    others = [found["effect", edit, s] for s in scores if s != meant and details(found["effect", edit, s]).get("real")]
    others.sort(key=lambda m: -abs(m.value or 0.0))
    named = ", ".join(f"{m.target} {signed(m.value or 0.0, 2)} σ" for m in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    also = f"It also moves {named}{more}." if others else "No other score moves by more than chance would."
    if meant is None:
        return join(tag("b", edit), f": no score of its own. {also}")
    effect, hit = found["effect", edit, meant], found.get(("hit_rate", edit, meant))
    if effect.value is None:
        return join(tag("b", edit), f": no effect can be given ({effect.status.replace('_', ' ')}).")
    share = f", the asked way on {percent(hit.value, 1)} of the images" if hit and hit.value is not None else ""
    unit = effect.unit.removeprefix("σ a ")
    moves = f"{meant} by {within(effect.value, effect.low, effect.high, sign=True)} σ"
    reach = f" ({interval(effect.low, effect.high)})" if effect.low is not None else ""
    knows = found.get(("readout_r2", "", meant))
    blind = tag("span", f" {knows.message.capitalize()}.", class_="note") if knows and knows.status != OK else None
    return join(tag("b", edit), f": one {unit} moves ", tag("b", moves), f"{reach}{share}. {also}", blind)


def _effects(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup:
    cells = []
    for edit in edits:
        line = []
        for score in scores:
            m = found["effect", edit, score]
            detail = details(m)
            small = interval(m.low, m.high) if m.value is not None else m.status.replace("_", " ")
            strong, ringed = bool(detail.get("real")), bool(detail.get("own"))
            line.append(Signed(m.value, small, strong, ringed, text=within(m.value, m.low, m.high)))
        cells.append(line)
    rate = next((m.threshold for (metric, _, _), m in found.items() if metric == "effect"), None)
    note = (
        "How far one unit of strength of an edit (row) moves each score (column), in standard deviations of the score, with its "
        f"interval. Ringed: the score the edit is meant for. Pale: cannot be told from 0 (false discoveries ≤ {percent(rate or 0, 1)})."
    )
    return signed_map("What each edit moves", edits, scores, cells, note=note)


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


def _boxed(*content: Markup | None) -> Markup:
    return tag("div", *content, class_="card pad")
