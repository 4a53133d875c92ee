"""Estimators that predict labels from latents by one statistic of second moments: the flows of ridge and LDA.

Both take one pass for all columns (stages/directions/row_sets.py), LDA with Ledoit-Wolf shrinkage a second, light one.
Each column stands on the rows that know it.
"""

from typing import Any

import numpy as np

from schemas.steps import FitStep
from stages.attributes import Column, Floats
from stages.directions.checks import folds_of
from stages.directions.closed_forms import class_evidence, class_status, hopeless_estimate
from stages.directions.direction import Estimate, Evidence, FitStatus
from stages.directions.discriminant import Classes, discriminant, fourth_powers, ledoit_wolf
from stages.directions.fitted import Fitted
from stages.directions.regression import in_sample
from stages.directions.ridge import Ridged, ridge
from stages.directions.row_sets import Group, RowSetPass, RowSets, grouped
from stages.moments import Moments
from stages.stage import Passes

Found = dict[int, tuple[Estimate, Estimate]]
"""By column: the estimate of all rows and that of the training rows."""


def predictive(step: FitStep, columns: tuple[Column, ...], dim: int) -> Passes[Any, Fitted]:
    """Ridge or LDA of every column."""
    state, groups = yield from grouped(RowSetPass(columns, dim, step.holdout, folds_of(step)))
    hopeless = {i: e for i, column in enumerate(columns) if (e := hopeless_estimate(state.counts, i, column))}
    if step.estimator == "ridge":
        found: Found = {i: pair for group in groups for i, pair in _ridge(group, step.l2, columns, state).items()}
    else:
        found = yield from _discriminants(step, groups, columns, state, set(hopeless))
    found |= {i: (e, e) for i, e in hopeless.items()}
    fitted = Fitted(
        columns,
        stored=[found[i][0] for i in range(len(columns))],
        trial=[found[i][1] for i in range(len(columns))],
        everything=state.everything,
        non_finite=state.non_finite,
    )
    if step.holdout == 0 and len(groups) == 1 and groups[0].parts[0].n and _complete(groups[0], columns, state):
        together = groups[0].together
        fitted.spreads = [in_sample(together, e, i, columns[i], step.confidence) for i, e in enumerate(fitted.stored)]
    return fitted


def _complete(group: Group, columns: tuple[Column, ...], state: RowSets) -> bool:
    """The group's rows are all rows and its labels all columns, so its moments tell σ and separation too."""
    return group.members == tuple(range(len(columns))) and sum(p.n for p in group.parts) == state.everything.n


# ----------------------------------------------------------------------------------------------- ridge regression


def _ridge(group: Group, l2: float | None, columns: tuple[Column, ...], state: RowSets) -> Found:
    stored, trial = ridge(group, l2=l2)
    together, training = group.together, group.training
    found: Found = {}
    for at, i in enumerate(group.members):
        no_trial = Estimate(FitStatus.TOO_FEW, Evidence(training.n))
        found[i] = (
            _regressed(stored, together, columns[i], at),
            no_trial if trial is None else _regressed(trial, training, columns[i], at),
        )
    return found


def _regressed(fit: Ridged, moments: Moments, column: Column, at: int) -> Estimate:
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
    elif moments.n < 3 or moments.yy[at, at] <= moments.n * (1e-13 * float(moments.y_mean[at])) ** 2:
        return Estimate(FitStatus.TOO_FEW if moments.n < 3 else FitStatus.CONSTANT, evidence)
    said = [f"l2 {fit.l2[at]:.3g}, the best in {fit.cv_folds}-fold cross-validation"] if fit.cv_folds else []
    if fit.at_edge[at]:
        said.append("at the edge of the tried penalties")
    if fit.rank < len(w):
        said.append(f"latents span {fit.rank} of {len(w)} dimensions, the least coefficients were taken")
    status = FitStatus.OK if w.any() else FitStatus.ZERO_NORM
    return Estimate(status, evidence, "; ".join(said), w, fit.standard_error[:, at], intercept)


# ----------------------------------------------------------------------------------------------- linear discriminants


def _discriminants(
    step: FitStep, groups: list[Group], columns: tuple[Column, ...], state: RowSets, hopeless: set[int]
) -> Passes[Any, Found]:
    shrinkage = "auto" if step.shrinkage is None else step.shrinkage
    problems: dict[tuple[int, bool], Classes] = {}
    for group in groups:
        for training, moments in ((False, group.together), (True, group.training))[: 2 if step.holdout else 1]:
            for at, i in enumerate(group.members):
                if i not in hopeless and (classes := Classes.of(moments, at)) and min(classes.n) > 1:
                    problems[i, training] = classes
    shares = dict.fromkeys(problems, 0.0 if shrinkage == "auto" else float(shrinkage))
    if shrinkage == "auto" and problems:
        powers: Floats = yield fourth_powers(
            columns, [(i, t, c) for (i, t), c in problems.items()], centre=state.everything.z_mean, holdout=step.holdout
        )
        shares = {k: ledoit_wolf(c, float(p)) for (k, c), p in zip(problems.items(), powers, strict=True)}

    def estimate(i: int, training: bool) -> Estimate:
        classes = problems.get((i, training))
        evidence = class_evidence(state.training if training else state.counts, i)
        if classes is None:
            return Estimate(class_status(evidence), evidence)
        auto = shrinkage == "auto"
        return _discriminated(classes, shares[i, training], evidence, auto=auto)

    stored = {i: estimate(i, False) for i in range(len(columns)) if i not in hopeless}
    return {i: (e, estimate(i, True) if step.holdout else e) for i, e in stored.items()}


def _discriminated(classes: Classes, share: float, evidence: Evidence, *, auto: bool) -> Estimate:
    w, rank = discriminant(classes, shrinkage=share, unit=classes.deviation if auto else 1.0)
    if not np.isfinite(w).all():
        return Estimate(FitStatus.NOT_CONVERGED, evidence, "the covariance is too near to singular; set shrinkage")
    said = [f"Ledoit-Wolf shrinkage {share:.3g}"] if auto else []
    if rank < len(w):
        said.append(f"latents span {rank} of {len(w)} dimensions within classes; shrinkage above 0 steadies it")
    return Estimate(
        FitStatus.OK if w.any() else FitStatus.ZERO_NORM,
        evidence,
        "; ".join(said),
        coefficients=w,
        intercept=float(-w @ (classes.positive + classes.negative) / 2),
    )
