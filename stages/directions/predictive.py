"""Estimators that predict labels from latents by one statistic of second moments: the flows of ridge and LDA.

Both take one pass for all columns (stages/directions/row_sets.py), LDA with Ledoit-Wolf shrinkage a second, light one; wide
latents take more for Σzzᵀ (stages/directions/group_scatter.py). Each column stands on the rows that know it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schemas.steps import FitStep
from stages.attributes import Column, Floats, LabelCounts
from stages.components.principal import Limits
from stages.directions.checks import folds_of
from stages.directions.closed_forms import class_evidence, class_status, hopeless_estimate
from stages.directions.direction import Estimate, Evidence, FitStatus
from stages.directions.discriminant import Classes, discriminant, fourth_powers, ledoit_wolf, wide_discriminants
from stages.directions.fitted import Fitted
from stages.directions.group_scatter import GroupScatter, Scatter, Subset, frame_of, scatter_of
from stages.directions.linearised import Linearised, linearised_discriminant, linearised_ridge
from stages.directions.regression import in_sample
from stages.directions.ridge import Penalty, Ridged, choose_penalty, given_penalty, ridge
from stages.directions.row_sets import Group, RowSetPass, RowSets, grouped
from stages.scatter.conjugate import MAX_ITERATIONS, PASSES_TOLERANCE, REACHED, TRIED_ITERATIONS
from stages.scatter.strips import Strips
from stages.scatter.whole import Whole
from stages.stage import Passes

MAX_KEPT_BYTES = 2**29
"""Of Σzzᵀ of all groups of columns, kept for a bootstrap."""
MAX_WHOLE = 4096
"""Above it no matrix is factored for an interval."""

Found = dict[int, tuple[Estimate, Estimate]]
"""By column: the estimate of all rows and that of the training rows."""


def predictive(step: FitStep, columns: tuple[Column, ...], dim: int, limits: Limits) -> Passes[Any, Fitted]:
    """Ridge or LDA of every column."""
    folds = folds_of(step)
    whole = dim <= limits.full and (folds + 1) * dim**2 <= limits.block_values
    stage = RowSetPass(columns, dim, step.holdout, folds, full=whole)
    state, groups = yield from grouped(stage)
    hopeless = {i: e for i, column in enumerate(columns) if (e := hopeless_estimate(state.counts, i, column))}
    groups = [group for group in groups if not hopeless.keys() >= set(group.members)]
    centre, auto = state.everything.z_mean, step.estimator == "lda" and step.shrinkage in (None, "auto")
    frame = None
    if groups and dim > limits.strips:
        unit = np.sqrt(state.everything.z_variance) if auto else np.ones(dim)
        frame = yield from frame_of(state.everything, np.where(unit > 0, unit, 1.0), limits)
    problems = yield from _problems(step, groups, columns, state, frame.unit if frame and auto else None)
    found: Found = {}
    linearised: dict[int, Linearised | str | None] = {}
    for number, group in enumerate(groups):
        rows = yield from scatter_of(group, stage, centre=centre, limits=limits, frame=frame)
        if step.estimator == "ridge":
            penalty = choose_penalty(rows) if step.l2 is None else given_penalty(step.l2, len(group.members))
            found |= yield from _ridge(rows, penalty, columns)
        else:
            penalty = None
            found |= yield from _discriminants(rows, problems, step, state)
        if step.bootstrap:
            room = MAX_KEPT_BYTES // (8 * dim**2) > number
            linearised |= _linearised(rows, found, penalty, problems, step, room=room)
        del rows
    found |= {i: (e, e) for i, e in hopeless.items()}
    fitted = Fitted(
        columns,
        stored=[found[i][0] for i in range(len(columns))],
        trial=[found[i][1] for i in range(len(columns))],
        everything=state.everything,
        non_finite=state.non_finite,
    )
    fitted.linearised = [linearised.get(i) for i in range(len(columns))]
    if whole and step.holdout == 0 and len(groups) == 1 and _complete(groups[0], columns, state):
        together = groups[0].merged(groups[0].every)
        fitted.spreads = [in_sample(together, e, i, columns[i], step.confidence) for i, e in enumerate(fitted.stored)]
    return fitted


def _complete(group: Group, columns: tuple[Column, ...], state: RowSets) -> bool:
    """The group's rows are all rows and its labels all columns, so its moments tell σ and separation too."""
    return group.members == tuple(range(len(columns))) and sum(p.n for p in group.parts) == state.everything.n


# ----------------------------------------------------------------------------------------------- ridge regression


def _ridge(rows: GroupScatter, penalty: Penalty, columns: tuple[Column, ...]) -> Passes[Any, Found]:
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
    elif moments.n < 3 or moments.yy[at, at] <= moments.n * (1e-13 * float(moments.y_mean[at])) ** 2:
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
    said.extend(_approximate(fit.residual[at]))
    status = FitStatus.OK if w.any() else FitStatus.ZERO_NORM
    error = None if fit.standard_error is None else fit.standard_error[:, at]
    return Estimate(status, evidence, "; ".join(said), w, error, intercept)


def _approximate(residual: float) -> Iterator[str]:
    """A word for a solution by passes that ended early."""
    if residual > PASSES_TOLERANCE:
        yield f"approximate: passes ended at a residual of {residual:.1g}"


# ----------------------------------------------------------------------------------------------- linear discriminants


@dataclass(frozen=True, slots=True)
class _Problem:
    """A column's classes among all rows or the training rows; `unit` (d,) of coordinates, and what Ledoit and Wolf need."""

    classes: Classes
    unit: Floats
    fourth: float = 0.0


Problems = dict[tuple[int, bool], _Problem]
"""By column, and whether it stands on training rows alone."""


def _problems(
    step: FitStep, groups: Sequence[Group], columns: tuple[Column, ...], state: RowSets, unit: Floats | None
) -> Passes[Any, Problems]:
    """What can be told apart, by one more pass where the shrinkage is to be estimated. `unit`: of all problems alike."""
    if step.estimator != "lda":
        return {}
    auto = step.shrinkage in (None, "auto")
    found: Problems = {}
    for group in groups:
        for training, parts in ((False, group.every), (True, group.training))[: 2 if step.holdout else 1]:
            moments = group.merged(parts)
            for at, i in enumerate(group.members):
                if (classes := Classes.of(moments, at)) and min(classes.n) > 1:
                    own = classes.deviation if auto else np.ones(moments.dim)
                    found[i, training] = _Problem(classes, own if unit is None else unit)
    if not auto or not found:
        return found
    asked = [(i, training, p.classes, p.unit) for (i, training), p in found.items()]
    powers: Floats = yield fourth_powers(columns, asked, centre=state.everything.z_mean, holdout=step.holdout)
    return {key: replace(p, fourth=float(power)) for (key, p), power in zip(found.items(), powers, strict=True)}


def _discriminants(rows: GroupScatter, problems: Problems, step: FitStep, state: RowSets) -> Passes[Any, Found]:
    group = rows.group

    def estimates(parts: Sequence[int], counts: LabelCounts, *, training: bool) -> Passes[Any, list[Estimate]]:
        told = {i: p for i in group.members if (p := problems.get((i, training)))}
        solved = (yield from _discriminated(rows.of(parts), told, step)) if told else {}
        evidence = {i: class_evidence(counts, i) for i in group.members}
        return [solved.get(i) or Estimate(class_status(evidence[i]), evidence[i]) for i in group.members]

    trial = stored = yield from estimates(group.every, state.counts, training=False)
    if step.holdout:
        trial = yield from estimates(group.training, state.training, training=True)
    return {i: (stored[at], trial[at]) for at, i in enumerate(group.members)}


def _share(problem: _Problem, scatter: Scatter, step: FitStep) -> float:
    """The shrinkage, given or estimated."""
    if step.shrinkage not in (None, "auto"):
        return float(step.shrinkage)
    return ledoit_wolf(problem.classes, scatter, problem.fourth, unit=problem.unit)


def _discriminated(rows: Subset, problems: dict[int, _Problem], step: FitStep) -> Passes[Any, dict[int, Estimate]]:
    """An estimate for every column of `problems`, which all stand on these rows."""
    scatter, auto = rows.scatter, step.shrinkage in (None, "auto")
    shares, said = {}, {}
    for i, p in problems.items():
        shares[i] = _share(p, scatter, step)
        said[i] = [f"Ledoit-Wolf shrinkage {shares[i]:.3g}{scatter.note}"] if auto else []
    if not isinstance(scatter, Whole):
        return (yield from _widely_discriminated(rows, problems, shares, said))
    found = {}
    for i, problem in problems.items():
        w, rank = discriminant(problem.classes, scatter.matrix, shrinkage=shares[i], unit=problem.unit)
        if rank < len(w):
            said[i].append(f"latents span {rank} of {len(w)} dimensions within classes; shrinkage above 0 steadies it")
        found[i] = _discriminating(w, problem.classes, said[i])
    return found


def _widely_discriminated(
    rows: Subset, problems: dict[int, _Problem], shares: dict[int, float], said: dict[int, list[str]]
) -> Passes[Any, dict[int, Estimate]]:
    n, dim = rows.moments.n, rows.moments.dim
    singular = {i: p for i, p in problems.items() if shares[i] == 0 and n < dim + 2}
    reason = f"{n} rows leave the covariance of {dim} latents singular; set shrinkage above 0"
    found = {i: Estimate(FitStatus.TOO_FEW, Evidence.of_classes(*p.classes.n), reason) for i, p in singular.items()}
    left = {i: p for i, p in problems.items() if i not in found}
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
    for at, (i, problem) in enumerate(left.items()):
        coefficients = w[:, at] if reached[at] else np.full(dim, np.nan)
        found[i] = _discriminating(coefficients, problem.classes, [*said[i], *_approximate(residual[at])])
    return found


def _discriminating(w: Floats, classes: Classes, said: Sequence[str]) -> Estimate:
    """Coefficients that are not finite were not found."""
    evidence = Evidence.of_classes(*classes.n)
    if not np.isfinite(w).all():
        return Estimate(FitStatus.NOT_CONVERGED, evidence, "the covariance is too near to singular; set shrinkage")
    middle = (classes.positive + classes.negative) / 2
    status = FitStatus.OK if w.any() else FitStatus.ZERO_NORM
    return Estimate(status, evidence, "; ".join(said), coefficients=w, intercept=float(-w @ middle))


# ----------------------------------------------------------------------------------------------- for a bootstrap


def _linearised(
    rows: GroupScatter, found: Found, penalty: Penalty | None, problems: Problems, step: FitStep, *, room: bool
) -> dict[int, Linearised | str | None]:
    """By column of the group its fit ready for one step, or why there is none. `penalty`: of ridge. `room` to keep Σzzᵀ."""
    members = [i for i in rows.group.members if found[i][0].status is FitStatus.OK]
    if not room:
        return dict.fromkeys(
            members, "labels are missing in too many ways to keep their second moments; fit fewer at a time"
        )
    if rows.group.parts[0].dim > MAX_WHOLE:
        return dict.fromkeys(members, f"not measured above {MAX_WHOLE:,} dimensions")
    subset = rows.of(rows.group.every)
    scatter, moments = subset.scatter, subset.moments
    if not isinstance(scatter, Whole):
        return dict.fromkeys(members, "not measured where second moments do not fit in memory")
    ready: dict[int, Linearised | str | None] = {}
    for i in members:
        estimate, at = found[i][0], rows.group.members.index(i)
        if penalty is not None:
            ready[i] = linearised_ridge(estimate, moments, scatter.matrix, at, float(penalty.l2[at]))
        else:
            problem, own = problems[i, False], step.shrinkage in (None, "auto")
            share = _share(problem, scatter, step)
            ready[i] = linearised_discriminant(
                estimate, problem.classes, scatter.matrix, shrinkage=share, own_units=own
            )
    return ready
