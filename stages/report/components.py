"""The section of a components step: how much each component holds, which of them are told apart, and what that means."""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import bar
from stages.report.figures import count, plain
from stages.report.markup import Markup, tag

METRICS = {
    "explained_variance": (
        "Variance of the rows along each component, and its share of the variance over all coordinates.",
        "λᵢ, vᵢ: eigenvalues and unit eigenvectors of Σ(z−μ)(z−μ)ᵀ/(n−1). Share: λᵢ over the trace. Components i and j are "
        "unresolved when |λᵢ−λⱼ| < 1.96·2·λᵢ/√n: another sample of rows would mix them.",
    ),
    "activation_variance": (
        "Variance of the decoder layer's activations along each component; the direction is what moves latents along it.",
        "PCA of activations a; with x = Vᵀ(a−ā), the directions are the columns of U in z ≈ z̄ + Ux by least squares (GANSpace).",
    ),
    "pullback": (
        "How much the decoded picture changes for a small step along each direction, on average over the rows.",
        "Eigenvalues of the mean over rows of JᵀJ, J the decoder's Jacobian in units of pixels/255: a step v changes the "
        "picture by √(vᵀJᵀJv) in L2.",
    ),
    "weight_energy": (
        "How strongly the decoder's first weights respond to each component, whatever the data.",
        "Eigenvalues of AAᵀ, A the first weights with every output's column of length one (SeFa).",
    ),
}
SHOWN = 60


def components(rows: Sequence[Measurement]) -> Markup:
    """A bar a component, in order; formulas behind a click."""
    by_metric = {m.metric for m in rows}
    metric = next((name for name in METRICS if name in by_metric), None)
    if metric is None:
        return tag("p", "No component was found: ", _why(rows), class_="card pad")
    told, formula = METRICS[metric]
    found = [m for m in rows if m.metric == metric]
    shares = {m.subject: m.value or 0.0 for m in rows if m.metric == f"{metric}_ratio"}
    largest = max(shares.values(), default=0.0) or 1.0
    left = len(found) - SHOWN
    mixed = "Unresolved: so close to another that a second sample of images would mix the two." if _mixed(found) else ""
    return tag(
        "div",
        tag("p", told, " ", _counted(rows, weights=metric == "weight_energy"), " ", mixed, class_="more"),
        tag("div", [_row(m, shares.get(m.subject, 0.0), largest) for m in found[:SHOWN]], class_="rows"),
        tag("p", f"and {count(left)} more: ", tag("code", "latentmill measurements"), class_="more")
        if left > 0
        else None,
        tag("details", tag("summary", "Formula"), tag("p", formula)),
        class_="card pad",
    )


def _mixed(found: Sequence[Measurement]) -> bool:
    return any(m.status == "unresolved" for m in found[:SHOWN])


def _row(found: Measurement, share: float, largest: float) -> Markup:
    name = tag("b", found.subject, tag("small", found.status.replace("_", " ")) if found.status != OK else None)
    value = tag("span", f"{100 * share:.1f} %", tag("small", plain(found.value or 0.0), " ", found.unit), class_="val")
    return tag("div", name, bar(100 * share / largest), value, class_="row", title=found.message or None)


def _counted(rows: Sequence[Measurement], *, weights: bool) -> str:
    counts = {m.metric: int(m.value or 0) for m in rows if m.metric in ("rows", "non_finite")}
    left = f", {count(counts['non_finite'])} non-finite ones left out" if counts.get("non_finite") else ""
    if weights:
        return f"No row takes part; σ along them is of {count(counts.get('rows', 0))} rows{left}."
    return f"From {count(counts.get('rows', 0))} rows{left}."


def _why(rows: Sequence[Measurement]) -> str:
    return next((m.status.replace("_", " ") for m in rows if m.metric == "rows"), "nothing was measured")
