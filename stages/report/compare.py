"""The section of a compare step: are these two codecs the same space, turned? And which directions came over."""

import json
from collections.abc import Sequence
from typing import Any

from schemas.measurements import OK, Measurement
from stages.report.charts import line_chart, whisker
from stages.report.data import Curve, LineChart
from stages.report.figures import MINUS, count, interval, percent, plain
from stages.report.markup import Markup, join, tag

QUESTIONS = (
    (
        "row_cosine",
        "Same image, same place?",
        "mean cosine of an image's two latents, laid over each other; 1 is the same",
    ),
    (
        "disparity",
        "What is lost?",
        "share of the variance on held-out images that turning and scaling does not explain",
    ),
    ("chance", "Could it be chance?", "share of random dealings of the images that do as well"),
    ("cka", "Same geometry?", "linear CKA: likeness of the distances between images; 1 is the same up to a turn"),
    ("latent_fid_aligned", "Same cloud?", "Fréchet distance of the two clouds, laid over each other; 0 is the same"),
    ("latent_fid", "Same cloud, as stored?", "the same without turning: what a reader who mixes them up would see"),
)
FORMULAS = (
    (
        "alignment",
        "orthogonal Procrustes: x ≈ μ_x + s(y − μ_y)R, R = UVᵀ of Σ_yx = USVᵀ, s = ΣS/tr RᵀΣ_yyR, on the training images",
    ),
    ("disparity", "Σ‖x − x̂‖²/Σ‖x − μ_x‖² over held-out images; bootstrap interval"),
    ("chance", "the rows of one codec dealt to the images anew; p = (1 + those that do as well)/(1 + dealings)"),
    ("CKA", "‖Σ_xy‖²/(‖Σ_xx‖‖Σ_yy‖), Frobenius norms of the centred scatters"),
    (
        "its interval",
        "about CKA of U-statistics, which has no bias; θ ± t·deviation of θ(2α/a − β/b − γ/c)/√n, the share each image has in the three norms",
    ),
    ("Fréchet distance", "‖μ₁−μ₂‖² + tr(Σ₁+Σ₂−2(Σ₁Σ₂)^½)"),
    (
        "its interval",
        "jackknife: each group of images left out in turn, Gθ − Σ(1 − m_j/n)θ₋ⱼ; about the value without its 1/n bias",
    ),
    ("a direction carried over", "vR, made unit again; its score keeps the zero and the scale of the old one"),
)


def compare(rows: Sequence[Measurement]) -> Markup:
    """The verdict, the questions, the angles, the directions."""
    by = {row.metric: row for row in rows}
    ported = [row for row in rows if row.metric == "ported_agreement"]
    return join(
        _verdict(by, ported), _questions(by), _angles(by.get("row_cosine")), _directions(ported), _definitions()
    )


def _verdict(by: dict[str, Measurement], ported: Sequence[Measurement]) -> Markup:
    about = by["compared"]
    good = sum(m.status == OK for m in ported)
    said = (
        f"The spaces match: {good} of {len(ported)} directions were carried over."
        if about.status == OK
        else f"Nothing was carried over: {about.message}."
    )
    other = tag("code", about.subject[:16], title=about.subject)
    images = f" {count(about.n or 0)} images have latents of both."
    words = [tag("b", said), f"{images} Compared with codec ", other, "."]
    return tag("div", tag("p", words, class_=None if about.status == OK else "refused"), class_="card pad")


def _questions(by: dict[str, Measurement]) -> Markup:
    body = []
    for metric, question, meaning in QUESTIONS:
        m = by.get(metric)
        if m is None:
            continue
        name = tag("th", question, tag("small", meaning), scope="row")
        bounds = interval(m.low, m.high, 3)
        limit = "" if m.threshold is None else f"at most {plain(m.threshold)}"
        said = tag("small", m.message) if m.status == OK else tag("span", m.message, class_="note")
        note = said if m.message else None
        value = m.status.replace("_", " ") if m.value is None else plain(m.value)
        cells = [(value, "value"), (bounds, "interval"), (limit, "allowed"), ("" if m.n is None else count(m.n), "n")]
        body.append(tag("tr", name, [tag("td", text, data_label=label) for text, label in cells], tag("td", note)))
    head = ("", "value", "interval", "allowed", "images or dealings", "")
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )
    return tag("div", table, class_="card wide")


def _angles(m: Measurement | None) -> Markup | None:
    if m is None or not m.detail:
        return None
    detail: dict[str, Any] = json.loads(m.detail)
    histogram = detail["histogram"]
    width = 2 / len(histogram)
    total = sum(histogram)
    first = next(i for i, n in enumerate(histogram) if n)
    points = [(-1 + (i + 0.5) * width, 100 * n / total) for i, n in enumerate(histogram) if i >= first - 1]
    quantiles = detail["quantiles"]
    said = f"99 % of the held-out images are at {plain(quantiles['0.01'])} or above, half at {plain(quantiles['0.5'])} or above."
    chart = line_chart(
        LineChart(
            "Cosine of each image's two latents",
            "cosine",
            "% of the images",
            (Curve("images", tuple(points)),),
            legend=False,
        )
    )
    return tag("div", chart, tag("p", said, class_="more"), class_="card pad")


def _directions(ported: Sequence[Measurement]) -> Markup | None:
    if not ported:
        return None
    body = []
    for m in ported:
        odd = tag("span", m.status.replace("_", " "), class_="note") if m.status != OK else None
        if m.value is None:
            body.append(tag("tr", tag("th", m.subject, odd, scope="row"), tag("td", m.message, colspan=2)))
            continue
        drawn = whisker(m.value, m.low, m.high, start=0.0, end=1.0)
        kept = json.loads(m.detail)["kept"] if m.detail else None
        figure = tag("div", tag("b", f"{m.value:.3f}".replace("-", MINUS)), drawn, class_="figure")
        body.append(
            tag(
                "tr",
                tag("th", m.subject, odd, scope="row"),
                tag("td", figure, data_label="agreement"),
                tag("td", "" if kept is None else percent(kept, 1), data_label="kept"),
            )
        )
    head = ("direction", "agreement of old and new score on held-out images", "of its length kept")
    table = tag(
        "table", tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])), tag("tbody", body), class_="facts"
    )
    return tag("div", table, class_="card wide")


def _definitions() -> Markup:
    entries = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    listed = tag("details", tag("summary", "How each number is defined"), tag("dl", entries, class_="definitions"))
    return tag("div", listed, class_="card pad")
