"""Linear discriminants of a group's columns as estimates: which classes can be told apart, the shrinkage of each, and a typed status
where the covariance is singular.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schemas.steps import FitStep
from stages.attributes import Column, Floats, LabelCounts
from stages.directions.closed_forms import class_evidence, class_status
from stages.directions.direction import Estimate, Evidence, FitStatus, is_rounding
from stages.directions.discriminant import (
    MIN_LEFT,
    Classes,
    discriminant,
    fourth_powers,
    ledoit_wolf,
    wide_discriminants,
)
from stages.directions.fitted import Found
from stages.directions.group_scatter import GroupScatter, Scatter, Subset
from stages.directions.row_sets import Group, RowSets
from stages.scatter.conjugate import REACHED, residual_words
from stages.scatter.strips import Strips
from stages.scatter.whole import Whole
from stages.stage import Passes


@dataclass(frozen=True, slots=True)
class Contrast:
    """A column's classes among all rows or the training rows; `unit` (d,) of coordinates, and what Ledoit and Wolf need."""

    classes: Classes
    unit: Floats
    fourth: float = 0.0


Contrasts = dict[tuple[int, bool], Contrast]
"""By column, and whether it stands on training rows alone."""


def contrasts_of(
    step: FitStep, groups: Sequence[Group], columns: tuple[Column, ...], state: RowSets, unit: Floats | None
) -> Passes[Any, Contrasts]:
    """What can be told apart, by one more pass where the shrinkage is to be estimated. `unit`: of all contrasts alike."""
    if step.estimator != "lda":
        return {}
    auto = step.shrinkage in (None, "auto")
    found: Contrasts = {}
    for group in groups:
        for training, parts in ((False, group.every), (True, group.training))[: 2 if step.holdout else 1]:
            moments = group.merged(parts)
            for at, i in enumerate(group.members):
                if (classes := Classes.of(moments, at)) and min(classes.n) > 1:
                    own = classes.deviation if auto else np.ones(moments.dim)
                    found[i, training] = Contrast(classes, own if unit is None else unit)
    if not auto or not found:
        return found
    asked = [(i, training, p.classes, p.unit) for (i, training), p in found.items()]
    powers: Floats = yield fourth_powers(columns, asked, centre=state.everything.z_mean, holdout=step.holdout)
    return {key: replace(p, fourth=float(power)) for (key, p), power in zip(found.items(), powers, strict=True)}


def discriminant_estimates(
    rows: GroupScatter, contrasts: Contrasts, step: FitStep, state: RowSets
) -> Passes[Any, Found]:
    """Of every column of the group."""
    group = rows.group

    def estimates(parts: Sequence[int], counts: LabelCounts, *, training: bool) -> Passes[Any, list[Estimate]]:
        told = {i: p for i in group.members if (p := contrasts.get((i, training)))}
        solved = (yield from _discriminated(rows.of(parts), told, step)) if told else {}
        evidence = {i: class_evidence(counts, i) for i in group.members}
        return [solved.get(i) or Estimate(class_status(evidence[i]), evidence[i]) for i in group.members]

    trial = stored = yield from estimates(group.every, state.counts, training=False)
    if step.holdout:
        trial = yield from estimates(group.training, state.training, training=True)
    return {i: (stored[at], trial[at]) for at, i in enumerate(group.members)}


def share_of(contrast: Contrast, scatter: Scatter, step: FitStep) -> float:
    """The shrinkage, given or estimated."""
    if step.shrinkage not in (None, "auto"):
        return float(step.shrinkage)
    return ledoit_wolf(contrast.classes, scatter, contrast.fourth, unit=contrast.unit)


def _discriminated(rows: Subset, contrasts: dict[int, Contrast], step: FitStep) -> Passes[Any, dict[int, Estimate]]:
    """An estimate for every column of `contrasts`, which all stand on these rows."""
    scatter, auto = rows.scatter, step.shrinkage in (None, "auto")
    shares, said = {}, {}
    for i, p in contrasts.items():
        shares[i] = share_of(p, scatter, step)
        said[i] = [f"Ledoit-Wolf shrinkage {shares[i]:.3g}{scatter.note}"] if auto else []
    if not isinstance(scatter, Whole):
        return (yield from _widely_discriminated(rows, contrasts, shares, said))
    found = {}
    for i, contrast in contrasts.items():
        w, rank, outside = discriminant(contrast.classes, scatter.matrix, shrinkage=shares[i], unit=contrast.unit)
        if outside > MIN_LEFT and not _alike(contrast.classes):
            found[i] = Estimate(
                FitStatus.SEPARABLE, Evidence.of_classes(*contrast.classes.n), _parted(contrast.classes)
            )
            continue
        if rank < len(w):
            said[i].append(f"latents span {rank} of {len(w)} dimensions within classes; shrinkage above 0 steadies it")
        found[i] = _discriminating(w, contrast.classes, said[i])
    return found


def _widely_discriminated(
    rows: Subset, contrasts: dict[int, Contrast], shares: dict[int, float], said: dict[int, list[str]]
) -> Passes[Any, dict[int, Estimate]]:
    n, dim = rows.moments.n, rows.moments.dim
    singular = {i: p for i, p in contrasts.items() if shares[i] == 0 and n < dim + 2}
    reason = f"{n} rows leave the covariance of {dim} latents singular; set shrinkage above 0"
    found = {i: Estimate(FitStatus.TOO_FEW, Evidence.of_classes(*p.classes.n), reason) for i, p in singular.items()}
    left = {i: p for i, p in contrasts.items() if i not in found}
    if not left:
        return found
    in_strips = isinstance(rows.scatter, Strips)
    # Without shrinkage the scale is free, and coordinates of unit deviation converge fastest.
    units = [p.classes.deviation if in_strips and shares[i] == 0 else p.unit for i, p in left.items()]
    w, residual = yield from wide_discriminants(
        rows,
        [p.classes for p in left.values()],
        shrinkage=np.array([shares[i] for i in left]),
        unit=np.stack(units, axis=1),
    )
    reached = residual <= (REACHED if in_strips else np.finfo(np.float64).max)
    for at, (i, contrast) in enumerate(left.items()):
        coefficients = w[:, at] if reached[at] else np.full(dim, np.nan)
        found[i] = _discriminating(coefficients, contrast.classes, [*said[i], *residual_words(residual[at])])
    return found


def _parted(classes: Classes) -> str:
    """Why classes that differ where they do not vary have no discriminant, and what would help."""
    where = "the classes differ where latents do not vary within them, so there is no optimum"
    return f"{where}; {'set shrinkage above 0' if classes.scatter.any() else 'use mean_difference'}"


def _alike(classes: Classes) -> bool:
    """Whether the class means are the same but for rounding."""
    return is_rounding(classes.along, np.sqrt(classes.scatter / classes.bond + classes.along**2))


def _discriminating(w: Floats, classes: Classes, said: Sequence[str]) -> Estimate:
    """Coefficients that are not finite were not found."""
    evidence = Evidence.of_classes(*classes.n)
    if not np.isfinite(w).all():
        return Estimate(FitStatus.NOT_CONVERGED, evidence, "the covariance is too near to singular; set shrinkage")
    middle = (classes.positive + classes.negative) / 2
    status = FitStatus.ZERO_NORM if _alike(classes) or not w.any() else FitStatus.OK
    return Estimate(status, evidence, "; ".join(said), coefficients=w, intercept=float(-w @ middle))
