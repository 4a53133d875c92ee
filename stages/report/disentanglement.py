"""The section of a disentanglement step: each score beside what shuffled labels score, and who knows which factor."""

import json
from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import heat_map, whisker
from stages.report.figures import count, interval, percent, plain
from stages.report.markup import Markup, join, tag

NAMES = {
    "mig": ("MIG", "Does one coordinate know a factor much better than every other coordinate does?"),
    "sap_continuous": ("SAP, continuous", "The same question, by correlation."),
    "sap_discrete": ("SAP, discrete", "The same question, by how often a classifier on one coordinate is right."),
    "dci": ("DCI", "Does each coordinate serve one factor, and is each factor held by one coordinate?"),
    "dci_disentanglement": ("DCI disentanglement", "Does each coordinate serve one factor only?"),
    "dci_completeness": ("DCI completeness", "Is each factor held by one coordinate only?"),
    "dci_informativeness": ("DCI informativeness", "Can the factors be read from the latents at all?"),
    "modularity": ("Modularity", "Does each coordinate tell of one factor only?"),
    "irs": ("IRS", "Does a coordinate hold still while everything but its own factor changes?"),
    "factor_vae": ("FactorVAE", "Can you tell which factor was held still from the coordinate that varies least?"),
    "beta_vae": ("β-VAE", "Can you tell which factor two images share from how far their coordinates lie apart?"),
}
FORMULAS = (
    ("MIG", "mean over factors of (I₁ − I₂)/H: mutual information of the two best coordinates, 20-bin histogram, nats"),
    (
        "SAP",
        "mean gap of the two best squared correlations, or of the two best test accuracies of a linear SVM (C = .01)",
    ),
    ("DCI", "1 − entropy of gradient-boosting importances, weighted; base: number of factors, or of coordinates"),
    ("Modularity", "1 − Σ other I² / (best I² · (factors − 1)), mean over coordinates"),
    ("IRS", "1 − mean 99 % deviation within a level / largest deviation, of the best factor, weighted by deviation"),
    ("FactorVAE", "accuracy of the majority vote on argmin(variance with a factor fixed / variance), 64 codes a vote"),
    ("β-VAE", "accuracy of a logistic regression on mean |Δz| of 64 pairs that share one factor"),
    (
        "interval",
        "95 %, by leaving out each of 20 groups of rows in turn (with `group`: of whole ones); none of scores that train a model",
    ),
    (
        "null",
        "the same score with labels moved to other rows (with `group`: as wholes); p counts the true order as one of the permutations",
    ),
)


def disentanglement(rows: Sequence[Measurement]) -> Markup:
    """Scores against their nulls, a map of coordinates and factors, and the definitions behind a click."""
    factors = [row for row in rows if row.metric == "information"]
    scores = [row for row in rows if row.metric != "information"]
    return join(_scores(scores), _map(factors), _definitions())


def _scores(rows: Sequence[Measurement]) -> Markup:
    head = ("score", "value; bracket: with labels shuffled", "with labels shuffled", "chance, p", "images")
    table = tag(
        "table",
        tag("thead", tag("tr", [tag("th", h, scope="col") for h in head])),
        tag("tbody", [_score(row) for row in rows]),
        class_="facts",
    )
    why = (
        "Scores of two models compare only at equal n. A score counts for as much as it stands above what shuffled labels "
        "reach, which for several scores is far above 0."
    )
    return tag("div", table, tag("p", why, class_="more"), class_="card wide")


def _score(row: Measurement) -> Markup:
    title, question = NAMES.get(row.metric, (row.metric, ""))
    odd = tag("span", row.status.replace("_", " "), class_="note") if row.status != OK else None
    name = tag("th", title, tag("small", question), odd, scope="row")
    if row.value is None:
        return tag("tr", name, tag("td", row.message, colspan=4))
    found = json.loads(row.detail)
    null = found["null"]
    reach = None if row.low is None else tag("small", f"95 %: {interval(row.low, row.high, 3)}")
    drawn = whisker(row.value, min(null), max(null), start=0.0, end=1.0)
    figure = tag("div", tag("b", f"{row.value:.3f}"), drawn, class_="figure")
    times = tag("small", f"{len(null)} times")
    return tag(
        "tr",
        name,
        tag("td", tag("div", figure, reach), data_label="value"),
        tag("td", tag("div", interval(min(null), max(null), 3), times), data_label="shuffled"),
        tag("td", plain(found["p"], 2), data_label="p"),
        tag("td", "" if row.n is None else count(row.n), class_="n", data_label="images"),
    )


def _map(rows: Sequence[Measurement]) -> Markup | None:
    """Coordinates across, factors down: the share of a factor's entropy that a coordinate knows."""
    good = [row for row in rows if row.value is not None]
    left = [tag("li", f"{row.target}: {row.status.replace('_', ' ')}") for row in rows if row.value is None]
    details = [json.loads(row.detail) for row in good]
    drawn = None
    if good:
        drawn = heat_map(
            "What each coordinate knows of each factor",
            [
                (row.target, f"{count(row.n or 0)} images, {d['levels']} values")
                for row, d in zip(good, details, strict=True)
            ],
            [f"z{j}" for j in details[0]["dimensions"]],
            [d["share"] for d in details],
            note="Percent of the factor's entropy (mutual information / entropy). A disentangled code has one dark cell a "
            f"row and a column. Of a label that has nothing to do with the code a cell has "
            f"{percent(max((r.threshold or 0) for r in good), 1)} on average, and the best of a row has more.",
        )
    return tag("div", drawn, tag("ul", left, class_="notices") if left else None, class_="card pad")


def _definitions() -> Markup:
    entries = [tag("div", tag("dt", name), tag("dd", text)) for name, text in FORMULAS]
    return tag(
        "div",
        tag("details", tag("summary", "How each score is defined"), tag("dl", entries, class_="definitions")),
        class_="card pad",
    )
