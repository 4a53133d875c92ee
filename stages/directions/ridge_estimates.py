"""Ridge regressions of a group's columns as estimates: a typed status where there is none, and a word on what was chosen and solved."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.attributes import Column
from stages.directions.closed_forms import class_status, is_constant
from stages.directions.direction import Estimate, Evidence, FitStatus, is_rounding
from stages.directions.fitted import Found
from stages.directions.group_scatter import GroupScatter, Subset
from stages.directions.ridge import Penalty, Ridged, ridge
from stages.scatter.conjugate import MAX_ITERATIONS, REACHED, TRIED_ITERATIONS, residual_words
from stages.scatter.strips import Strips
from stages.stage import Passes


def ridge_estimates(rows: GroupScatter, penalty: Penalty, columns: tuple[Column, ...]) -> Passes[Any, Found]:
    """Of every column of the group."""
    group = rows.group
    trial = stored = yield from _regressed(rows, group.every, penalty, columns)
    if group.training != group.every:
        trial = yield from _regressed(rows, group.training, penalty, columns)
    return {i: (stored[at], trial[at]) for at, i in enumerate(group.members)}


def _regressed(
    rows: GroupScatter, parts: Sequence[int], penalty: Penalty, columns: tuple[Column, ...]
) -> Passes[Any, list[Estimate]]:
    """An estimate for every column of the group, on some of its parts."""
    n = sum(rows.group.parts[p].n for p in parts)
    if n < 2:
        return [Estimate(FitStatus.TOO_FEW, Evidence(n)) for _ in rows.group.members]
    subset = rows.of(parts)
    fit = yield from ridge(subset, penalty)
    return [_regression(fit, penalty, subset, columns[i], at) for at, i in enumerate(rows.group.members)]


def _regression(fit: Ridged, penalty: Penalty, rows: Subset, column: Column, at: int) -> Estimate:
    moments = rows.moments
    evidence = Evidence(moments.n)
    intercept = float(fit.intercept[at])
    w = fit.coefficients[:, at]
    if column.binary:
        positive = round(moments.n * float(moments.y_mean[at])) if moments.n else 0
        evidence = Evidence.of_classes(positive, moments.n - positive)
        if (status := class_status(evidence)) is not FitStatus.OK:
            return Estimate(status, evidence)
        gap = moments.zy[:, at] * (1 / positive - 1 / (moments.n - positive)) / 2
        intercept = float(-w @ (moments.z_mean + gap))
    elif moments.n < 3 or is_constant(float(moments.yy[at, at]), moments.n, float(moments.y_mean[at])):
        return Estimate(FitStatus.TOO_FEW if moments.n < 3 else FitStatus.CONSTANT, evidence)
    if isinstance(rows.scatter, Strips) and fit.residual[at] > REACHED:
        fix = f"not solved in {MAX_ITERATIONS} iterations: latents are nearly collinear; set a larger l2"
        return Estimate(FitStatus.NOT_CONVERGED, evidence, fix)
    said = []
    if penalty.cv_folds:
        how = f"{penalty.cv_folds}-fold cross-validation{penalty.note}"
        said.append(f"l2 {penalty.l2[at]:.3g}, the best in {how}")
    if penalty.at_edge[at]:
        said.append("at the edge of the tried penalties")
    if penalty.out_of_reach[at]:
        said.append(f"{penalty.out_of_reach[at]} smaller penalties not solved in {TRIED_ITERATIONS} iterations")
    if fit.rank is not None and fit.rank < len(w):
        said.append(f"latents span {fit.rank} of {len(w)} dimensions, the least coefficients were taken")
    said.extend(residual_words(fit.residual[at]))
    # Asked of what it is solved for: a solution's rounding may have grown by the condition of Σzz.
    unit = np.sqrt(np.maximum(moments.squares, 0) * moments.yy[at, at])
    status = FitStatus.ZERO_NORM if is_rounding(moments.zy[:, at], unit) or not w.any() else FitStatus.OK
    error = None if fit.standard_error is None else fit.standard_error[:, at]
    return Estimate(status, evidence, "; ".join(said), w, error, intercept)
