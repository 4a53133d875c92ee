"""The section of a project step: its maps side by side, coloured by a label, each with how far it can be trusted."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from schemas.measurements import OK, Measurement
from stages.report.figures import count, percent
from stages.report.markup import Markup, join, tag

NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
SIDE, MARGIN = 400.0, 10.0
HUES = ("#4464d4", "#d9762b", "#2c9a66", "#b3419a", "#c9a227", "#3aa6b9", "#8a5a3c", "#d4526e")
REST = "#9a968e"
FORMULA = (
    "Trustworthiness: 1 − 2/(nk(2n−3k−1)) · Σᵢ Σ_j max(0, r(i,j) − k), over the k nearest neighbours j of i on the map, r(i,j) "
    "their rank in the latent space (Venna and Kaski 2001). 1: no neighbour on the map is a stranger; a random map has about ½. "
    "Distances between far groups, and their sizes, mean little on UMAP and t-SNE maps; PCA keeps both, and only two directions."
)


def projection(rows: Sequence[Measurement]) -> Markup:
    """One scatter a method; a method without a map says why."""
    found = [m for m in rows if m.metric == "trustworthiness"]
    maps = [_map(m, json.loads(m.detail)) for m in found if m.status == OK]
    left = [
        tag("li", NAMES[m.subject], ": ", m.status.replace("_", " "), ", ", m.message) for m in found if m.status != OK
    ]
    return join(
        tag(
            "div",
            maps,
            class_="card pad",
            style="display:grid;gap:1.6rem;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr))",
        )
        if maps
        else None,
        tag("ul", left, class_="notices") if left else None,
        tag("div", tag("details", tag("summary", "What trustworthiness is"), tag("p", FORMULA)), class_="card pad"),
    )


def _map(found: Measurement, detail: dict[str, Any]) -> Markup:
    hues = _hues(detail["groups"])
    title = NAMES[found.subject]
    shares = detail.get("shares")
    told = f"trustworthiness {found.value:.3f} of {count(found.n or 0)} images"
    told += f", {percent(sum(shares), 1)} of the variance" if shares else ""
    return tag(
        "figure",
        tag("figcaption", tag("b", title)),
        tag(
            "svg",
            _points(detail["points"], [hues[g] for g in detail["groups"]]),
            viewBox=f"0 0 {SIDE:g} {SIDE:g}",
            role="img",
            aria_label=f"{title}, {told}",
            style="width:100%;height:auto;display:block",
        ),
        _legend(detail["by"], hues) if detail["by"] else None,
        tag("p", told, class_="more"),
        style="margin:0 auto;min-width:0;width:100%;max-width:40rem",
    )


def _hues(groups: Sequence[str]) -> dict[str, str]:
    """A colour a group, the largest groups first; what is left over, and rows without a label, are grey."""
    common = [g for g, _ in sorted(Counter(groups).items(), key=lambda item: (-item[1], item[0])) if g]
    return {g: HUES[common.index(g)] if g in common[: len(HUES)] else REST for g in groups}


def _points(points: Sequence[tuple[float, float]], hues: Sequence[str]) -> list[Markup]:
    """Circles on one scale for both axes: on a map distances have one unit."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIDE - 2 * MARGIN) / span
    across = MARGIN + (SIDE - 2 * MARGIN - scale * (max(xs) - min(xs))) / 2
    up = MARGIN + (SIDE - 2 * MARGIN - scale * (max(ys) - min(ys))) / 2
    left, bottom = min(xs), min(ys)
    return [
        tag(
            "circle",
            cx=f"{across + scale * (x - left):.1f}",
            cy=f"{SIDE - up - scale * (y - bottom):.1f}",
            r="2.4",
            fill=hue,
            fill_opacity=".75",
        )
        for (x, y), hue in zip(points, hues, strict=True)
    ]


def _legend(by: str, hues: dict[str, str]) -> Markup:
    named = sorted((g for g, hue in hues.items() if g and hue != REST), key=lambda g: HUES.index(hues[g]))
    keys = [tag("span", tag("i", class_="key", style=f"background:{hues[g]}"), f"{by}: {g}") for g in named]
    if REST in hues.values():
        keys.append(tag("span", tag("i", class_="key", style=f"background:{REST}"), "other or no label"))
    return tag("div", keys, class_="legend")
