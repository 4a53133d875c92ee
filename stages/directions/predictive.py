"""Estimators that predict labels from latents by one statistic of second moments: the flows of ridge and LDA.

Both take one pass for all columns (stages/directions/row_sets.py), LDA with Ledoit-Wolf shrinkage a second, light one; wide
latents take more for Σzzᵀ (stages/directions/group_scatter.py). Each column stands on the rows that know it.
"""

from typing import Any

import numpy as np

from schemas.steps import FitStep
from stages.attributes import Column
from stages.components.principal import Limits
from stages.directions.checks import folds_of
from stages.directions.closed_forms import hopeless_estimate
from stages.directions.direction import FitStatus
from stages.directions.discriminants import Contrasts, contrasts_of, discriminant_estimates, share_of
from stages.directions.fitted import Fitted, Found
from stages.directions.group_scatter import GroupScatter, frame_of, scatter_of
from stages.directions.linearised import Linearised, linearised_discriminant, linearised_ridge
from stages.directions.regression import in_sample
from stages.directions.ridge import Penalty, choose_penalty, given_penalty
from stages.directions.ridge_estimates import ridge_estimates
from stages.directions.row_sets import Group, RowSetPass, RowSets, grouped
from stages.scatter.whole import Whole
from stages.stage import Passes

MAX_KEPT_BYTES = 2**29
"""Of Σzzᵀ of all groups of columns, kept for a bootstrap."""
MAX_WHOLE = 4096
"""Above it no matrix is factored for an interval."""


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
    contrasts = yield from contrasts_of(step, groups, columns, state, frame.unit if frame and auto else None)
    found: Found = {}
    linearised: dict[int, Linearised | str | None] = {}
    for number, group in enumerate(groups):
        rows = yield from scatter_of(group, stage, centre=centre, limits=limits, frame=frame)
        if step.estimator == "ridge":
            penalty = choose_penalty(rows) if step.l2 is None else given_penalty(step.l2, len(group.members))
            found |= yield from ridge_estimates(rows, penalty, columns)
        else:
            penalty = None
            found |= yield from discriminant_estimates(rows, contrasts, step, state)
        if step.bootstrap:
            room = MAX_KEPT_BYTES // (8 * dim**2) > number
            linearised |= _linearised(rows, found, penalty, contrasts, step, room=room)
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


def _linearised(
    rows: GroupScatter, found: Found, penalty: Penalty | None, contrasts: Contrasts, step: FitStep, *, room: bool
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
            contrast, own = contrasts[i, False], step.shrinkage in (None, "auto")
            share = share_of(contrast, scatter, step)
            ready[i] = linearised_discriminant(
                estimate, contrast.classes, scatter.matrix, shrinkage=share, own_units=own
            )
    return ready
