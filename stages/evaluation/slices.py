"""Does an edit work on every kind of image? The effect inside each slice, and whether it differs from the effect outside.

The interaction is the slope inside less the slope on all other images whose label is known; its replicates come from the
same bootstrap, so images of one group never count twice. Benjamini–Hochberg over all slices and edits.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.measurements import OK, Measurement
from stages.evaluation.discovery import benjamini_hochberg, p_value
from stages.evaluation.replicates import CONSTANT_SCORE, FEW, REASONS, TOO_FEW, Results, ratio

DIFFERS = "differs"


def slices(found: Results, *, false_discoveries: float) -> Iterator[Measurement]:
    """`slice_effect` and `slice_interaction` of every edit that has a target, in every slice."""
    labels = [one.column.label for one in found.design.slices]
    names = [one.name for one in found.design.slices]
    weight, slope = found.sums("slice"), found.sums("slice_slope")
    cells = [
        (i, target, s) for i, target in enumerate(found.design.targets) if target is not None for s in range(len(names))
    ]
    tested = []
    for i, target, s in cells:
        siblings = [other for other, label in enumerate(labels) if label == labels[s] and other != s]
        inside = ratio(slope[:, s, i, target], weight[:, s]) / found.sigma[:, target]
        outside_weight = weight[:, siblings].sum(axis=1)
        outside = ratio(slope[:, siblings, i, target].sum(axis=1), outside_weight) / found.sigma[:, target]
        images = [found.independent(w) for w in (weight[:, s], outside_weight)]
        enough = min(images) >= FEW and np.isfinite(inside[0])
        p = p_value(float((inside - outside)[0]), (inside - outside)[1:], min(images)) if enough else None
        tested.append((inside, inside - outside, images[0], p))
    q_values = benjamini_hochberg([p for *_, p in tested])
    for (i, target, s), (inside, difference, images_inside, p), q in zip(cells, tested, q_values, strict=True):
        n = int(weight[0, s])
        about: dict[str, Any] = {"subject": found.design.edits[i].name, "target": names[s], "unit": "σ"}
        if p is None and n and not np.isfinite(found.sigma[0, target]):
            yield Measurement("slice_effect", n=n, status=CONSTANT_SCORE, message=REASONS[CONSTANT_SCORE], **about)
            continue
        if p is None:
            told = f"{n} images in this slice"
            if found.design.group is not None:
                told += f", of about {images_inside:.0f} values of {found.design.group}"
            yield Measurement("slice_effect", n=n, status=TOO_FEW, message=told, **about)
            continue
        differs = q is not None and q <= false_discoveries
        detail = {"p": p, "q": q, "attribute": found.design.attributes[target]}
        low, high = found.interval(inside, images_inside)
        yield Measurement("slice_effect", float(inside[0]), low=low, high=high, n=n, **about)
        low, high = found.interval(difference)
        yield found.measurement(
            "slice_interaction",
            difference,
            detail=detail,
            threshold=false_discoveries,
            status=DIFFERS if differs else OK,
            message=_said(found, i, target, float(difference[0])) if differs else "",
            **about,
        )


def _said(found: Results, i: int, target: int, difference: float) -> str:
    whole = float(found.effect[0, i, target])
    return f"the edit works {'less' if difference * whole < 0 else 'more'} here than on other images"
