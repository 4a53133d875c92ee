"""The questions of latent-science §6 that an α grid answers, each with its interval, and the re-scoring matrix R.

edit strength  slope of the target score; share of images that moved the asked way; share of steps that never fall back
preservation   E|Δs_i|/σ_i of every other score; cosine of what should have stayed
smoothness     longest step of a path over its mean step; change of direction between steps over their mean
linearity      R² of each image's Δ of the target on α; α² term of the mean curve
locality       change inside the mask over all change; 1 − |R_tt|/Σ|R_ti|
R              E[s_j(D(z+αd_i)) − s_j(D(z))]/(ασ_j), signed, Benjamini–Hochberg over its cells
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.measurements import Measurement
from stages.attributes import Floats
from stages.evaluation.discovery import benjamini_hochberg, p_value
from stages.evaluation.replicates import FEW, NO_CHANGE, NO_TARGET, Results, ratio

ONE_STRENGTH = "one_strength"
"""The status of what is asked of the way between strengths, where there is one: any answer would be even and straight."""
ONE_SAID = "of one strength any way is even and straight: ask for two or more"
NOTHING_BESIDE = "nothing_beside"
"""The status of an identity cosine where all that a code is lies along the direction."""


def questions(found: Results, *, false_discoveries: float) -> Iterator[Measurement]:
    """Every answer of one evaluation."""
    yield from score_spread(found)
    for i, target in enumerate(found.design.targets):
        if target is None:
            name = found.design.edits[i].name
            reason = "no score of this attribute: only what else it moves can be said"
            yield Measurement("edit_strength", subject=name, status=NO_TARGET, message=reason)
        else:
            yield from strength(found, i, target)
            yield from linearity(found, i, target)
        yield from preservation(found, i, target)
        yield from smoothness(found, i)
        yield from locality(found, i, target)
    yield from matrix(found, false_discoveries=false_discoveries)


def score_spread(found: Results) -> Iterator[Measurement]:
    """σ_j, the unit of every effect."""
    for j, attribute in enumerate(found.design.attributes):
        yield found.measurement("score_sigma", found.sigma[:, j], target=attribute)


def strength(found: Results, i: int, target: int) -> Iterator[Measurement]:
    """How far one unit of strength moves the target."""
    edit, attribute = found.design.edits[i], found.design.attributes[target]
    about = {"subject": edit.name, "target": attribute}
    yield found.measurement(
        "edit_strength",
        found.effect[:, i, target],
        unit=f"σ a {_unit(found)}",
        detail=curve(found, i, target) | {"hit_rate": found.mean("hit")[0, i]},
        **about,
    )
    yield found.share("hit_rate", found.mean("hit")[:, i].mean(axis=1), **about)
    yield found.share("monotonicity", found.mean("upward")[:, i], **about)


def linearity(found: Results, i: int, target: int) -> Iterator[Measurement]:
    """R² within images, so images that respond more than others do not count as bent; and the bend of the mean curve."""
    edit, attribute = found.design.edits[i], found.design.attributes[target]
    about: dict[str, Any] = {"subject": edit.name, "target": attribute}
    alphas = np.asarray(found.design.strengths)
    if len(alphas) == 1:
        yield from (Measurement(m, status=ONE_STRENGTH, message=ONE_SAID, **about) for m in ("linearity", "curvature"))
        return
    about["missing"] = found.why_none(target)
    yield found.measurement("linearity", ratio(found.sums("explained")[:, i], found.sums("total")[:, i]), **about)
    design = np.linalg.pinv(np.stack([alphas, alphas**2], axis=1))
    line, bend = np.moveaxis(found.mean("delta")[:, i, :, target] @ design.T, 1, 0)
    # What α² adds at the end of the grid, as a share of what α does there.
    yield found.measurement("curvature", ratio(bend * np.abs(alphas).max(), line), **about)


def preservation(found: Results, i: int, target: int | None) -> Iterator[Measurement]:
    """What else moves, whatever its sign: mean over the grid."""
    edit = found.design.edits[i]
    moved = found.mean("moved")[:, i] / found.sigma[:, None]
    others = [j for j in range(len(found.design.attributes)) if j != target]
    for j in others:
        yield found.measurement(
            "preservation", moved[:, :, j].mean(axis=1), subject=edit.name, target=found.design.attributes[j], unit="σ"
        )
    if others:
        # Scores that never vary have no unit; a replicate may have none that varies, and says nothing.
        known = np.isfinite(moved[:, :, others])
        mean = ratio(np.where(known, moved[:, :, others], 0.0).sum(axis=(1, 2)), known.sum(axis=(1, 2)))
        yield found.measurement("side_effect", mean, subject=edit.name, unit="σ")
    if found.design.identity:
        yield _identity(found, i)


def _identity(found: Results, i: int) -> Measurement:
    """Of the pictures in which something stands beside the direction; `left_out` counts the others."""
    name = found.design.edits[i].name
    sums, counted = found.sums("identity")[:, i], found.sums("beside")[:, i]
    pictures = found.weight[0] * len(found.design.strengths)
    left = round(float(pictures - counted[0].sum()))
    said = f"{left} of {pictures:.0f} pictures left out: nothing stands beside the direction" if left else ""
    if not counted[0].any():
        return Measurement("identity_cosine", subject=name, n=0, status=NOTHING_BESIDE, message=said)
    return found.measurement(
        "identity_cosine",
        ratio(sums.sum(axis=1), counted.sum(axis=1)),
        subject=name,
        detail={"curve": ratio(sums[0], counted[0]), "left_out": left},
        **({"message": said} if said else {}),
    )


def smoothness(found: Results, i: int) -> Iterator[Measurement]:
    """In pixels, between neighbouring strengths; an image whose path changes no pixel has none."""
    name = found.design.edits[i].name
    moving = found.sums("moving")[:, i]
    if moving[0] == 0:
        yield Measurement("step_ratio", subject=name, n=0, status=NO_CHANGE, message="the edit changes no pixel")
        return
    for metric, kept in (("step_ratio", "step_ratio"), ("second_difference", "bend")):
        if len(found.design.strengths) == 1:
            yield Measurement(metric, subject=name, status=ONE_STRENGTH, message=ONE_SAID)
        else:
            yield found.measurement(metric, ratio(found.sums(kept)[:, i], moving), subject=name)


def locality(found: Results, i: int, target: int | None) -> Iterator[Measurement]:
    """Where in the picture, and where among the scores."""
    edit = found.design.edits[i]
    if edit.mask is not None:
        inside, change = found.sums("inside")[:, i].sum(axis=1), found.sums("change")[:, i].sum(axis=1)
        if change[0] > 0:
            yield found.measurement("locality_mask", ratio(inside, change), subject=edit.name)
        else:
            yield Measurement("locality_mask", subject=edit.name, status=NO_CHANGE, message="the edit changes no pixel")
    if target is not None and len(found.design.attributes) > 1:
        yield found.measurement(
            "leak_share",
            1 - own_share(found, i, target),
            missing=found.why_none(target),
            subject=edit.name,
            target=found.design.attributes[target],
        )


def own_share(found: Results, i: int, target: int) -> Floats:
    """|R_tt|/Σ|R_tj| over the scores that vary, (1 + replicates,)."""
    effect = np.abs(found.effect[:, i])
    return ratio(effect[:, target], np.nansum(effect, axis=1))


def matrix(found: Results, *, false_discoveries: float) -> Iterator[Measurement]:
    """R, a measurement a cell; its detail has p, q, whether it counts as real, and the mean curve over the grid."""
    cells = [(i, j) for i in range(len(found.design.edits)) for j in range(len(found.design.attributes))]
    few = found.images < FEW
    p_values = [None if few else p_value(found.effect[0, i, j], found.effect[1:, i, j], found.images) for i, j in cells]
    q_values = benjamini_hochberg(p_values)
    for (i, j), p, q in zip(cells, p_values, q_values, strict=True):
        real = q is not None and q <= false_discoveries
        yield found.measurement(
            "effect",
            found.effect[:, i, j],
            subject=found.design.edits[i].name,
            target=found.design.attributes[j],
            unit=f"σ a {_unit(found)}",
            threshold=false_discoveries,
            detail=curve(found, i, j) | {"p": p, "q": q, "real": real, "own": found.design.targets[i] == j},
        )


def curve(found: Results, i: int, j: int) -> dict[str, object]:
    """Mean Δs_j/σ_j at every strength, with its interval."""
    values = found.mean("delta")[:, i, :, j] / found.sigma[:, j, None]
    bounds = [found.interval(values[:, a]) for a in range(values.shape[1])]
    return {
        "strengths": list(found.design.strengths),
        "curve": values[0],
        "low": [low for low, _ in bounds],
        "high": [high for _, high in bounds],
    }


def _unit(found: Results) -> str:
    return {"sigma": "σ of strength", "effect": "unit of its own score"}.get(found.design.unit, "unit of strength")
