"""The fit step: directions of all attributes from labelled latents, whatever the rows' order and however they are split.

Closed forms take one pass over the data for all attributes, logistic regression one a Newton step; one more measures σ,
separation and held-out AUC. The stored direction uses every row; what is measured on held-out rows belongs to a fit
without them. `fit` is a generator of passes (stages/stage.py): whoever drives it decides where they run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.errors import JobError, Problem
from schemas.source import LabelType
from schemas.steps import FitStep
from stages.attributes import MAX_VALUES, Census, Column, LabelCounts, columns_of
from stages.components.principal import Limits
from stages.directions.cells import MAX_CELLS, CellPass, Cells, CellTable, class_pairs, classes_with
from stages.directions.checks import DEFAULT_SVM_L2, check_fit
from stages.directions.closed_forms import (
    centred_class_mean,
    class_evidence,
    class_status,
    difference_of_means,
    hopeless_estimate,
    least_squares,
)
from stages.directions.direction import MEANING, Direction, Estimate, Evidence, FitStatus
from stages.directions.extremes import extreme_columns, without_ends
from stages.directions.fitted import Fitted
from stages.directions.logistic import LogisticFit, logistic
from stages.directions.losses import Loss
from stages.directions.measured import direction_of, measured, without_values
from stages.directions.pairwise import Paired, PairwisePass, pairwise_least_squares
from stages.directions.pattern import patterned
from stages.directions.predictive import predictive
from stages.directions.regression import Regressed, Regression, in_sample
from stages.directions.resampling import resampled
from stages.directions.survey import Survey, Surveyed
from stages.grouping import with_groups
from stages.moments import Moments
from stages.sample import Sample
from stages.stage import Passes

FULL_MOMENTS_DIM = 2048
"""Up to this dimension a least-squares fit without a holdout keeps Σzzᵀ, three times over, and needs no second pass."""


def fit(
    step: FitStep,
    attributes: Mapping[str, LabelType],
    *,
    dim: int,
    labels: Mapping[str, LabelType] | None = None,
    limits: Limits | None = None,
) -> Passes[Any, list[Direction]]:
    """A generator of reduce stages over batches with `id`, `latent` (dim numbers) and `labels`; returns one Direction a column.

    `attributes`: what to fit, in order; `labels`: types of all labels, needed when `step.controls` names others. `limits`: the
    widths at which ridge and LDA change how they keep Σzzᵀ.
    Raises JobError for what can never be fitted; what these rows cannot tell becomes a typed status.
    """
    if problems := check_fit(step, {**(labels or {}), **attributes}, list(attributes)):
        raise JobError(problems)
    return (yield from with_groups(_fit(step, attributes, dim, limits or Limits()), step.group))


def _fit(step: FitStep, attributes: Mapping[str, LabelType], dim: int, limits: Limits) -> Passes[Any, list[Direction]]:
    columns = yield from _columns(step, attributes)
    if step.extremes is not None:
        columns = yield from extreme_columns(columns, step.extremes)
    match step.estimator:
        case "ols" if step.missing == "pairwise":
            fitted = yield from _pairwise(step, columns, dim)
        case "ols":
            fitted = yield from _least_squares(step, columns, dim)
        case "ridge" | "lda":
            fitted = yield from predictive(step, columns, dim, limits)
        case "logistic" | "svm":
            fitted = yield from _logistic(step, columns, dim)
        case _:
            fitted = yield from _differences(step, columns, dim, _controls(step, list(attributes)))
    if step.pattern:
        fitted = yield from patterned(fitted, holdout=step.holdout)
    fitted.stored = without_ends(fitted.columns, fitted.stored)
    if fitted.spreads is None:
        fitted.spreads = yield from measured(step, fitted)
    found = [direction_of(step, fitted, i, tuple(attributes)) for i in range(len(fitted.columns))]
    if step.bootstrap:
        found = yield from resampled(step, fitted, found)
    return found + without_values(step, fitted, attributes)


def _controls(step: FitStep, attributes: Sequence[str]) -> tuple[str, ...]:
    if step.estimator != "balanced_mean_difference":
        return ()
    return tuple(attributes) if step.controls is None else step.controls


def _columns(step: FitStep, attributes: Mapping[str, LabelType]) -> Passes[Any, tuple[Column, ...]]:
    """One pass to learn the values of categories, where there are any."""
    categories = tuple(name for name, kind in attributes.items() if kind == "category")
    counts = (yield Census(categories)) if categories else {}
    if crowded := [name for name in categories if counts[name] is None]:
        fix = "fit fewer, coarser categories"
        reason = f"more than {MAX_VALUES} values: one direction a value would be meaningless."
        raise JobError([Problem(f"{step.name}.attributes", name, reason, fix) for name in crowded])
    return columns_of(attributes, {name: sorted(counts[name]) for name in categories})


# ----------------------------------------------------------------------------------------------- differences of means


def _differences(
    step: FitStep, columns: tuple[Column, ...], dim: int, controls: tuple[str, ...]
) -> Passes[Any, Fitted]:
    stage = CellPass(columns, controls, dim, step.holdout)
    table: CellTable = yield stage
    if table.overflow:
        reason = f"their combinations make more than {MAX_CELLS} cells, or more than fits in memory."
        fix = "name the few that matter, such as `controls: [age_group]`; or use estimator: ols"
        raise JobError.one(f"{step.name}.controls", list(controls), reason, fix)

    def estimates(cells: Cells) -> list[Estimate]:
        pairs = [class_pairs(cells, stage, i) for i in range(len(columns))]
        if step.estimator != "class_means":
            return [_beside(difference_of_means(pair), columns[i].label, controls) for i, pair in enumerate(pairs)]
        if not cells:
            return [Estimate(FitStatus.NO_LABELS, Evidence.of_classes(0, 0)) for _ in columns]
        return [centred_class_mean(*classes_with(columns, pairs, i), pairs[i].negative) for i in range(len(columns))]

    both = table.all_rows()
    fitted = Fitted(columns, estimates(both), estimates(table.train), table.everything, table.non_finite)
    fitted.controls, fitted.cells = controls, tuple(both)
    return fitted


def _beside(found: Estimate, attribute: str, controls: Sequence[str]) -> Estimate:
    """Only rows that have every control are counted: what looks like a lack of labels may be a lack of theirs."""
    others = [name for name in controls if name != attribute]
    if found.status is FitStatus.OK or found.message or not others:
        return found
    return replace(found, message=f"of the rows that have {', '.join(others)} too: {MEANING[found.status]}")


# ----------------------------------------------------------------------------------------------- forward least squares


def _least_squares(step: FitStep, columns: tuple[Column, ...], dim: int) -> Passes[Any, Fitted]:
    full = step.holdout == 0 and dim <= FULL_MOMENTS_DIM
    members = tuple(range(len(columns)))
    state: Regressed = yield Regression(columns, members, dim, step.holdout, full)
    hopeless = {i: e for i, column in enumerate(columns) if (e := hopeless_estimate(state.counts, i, column))}
    if any(state.counts.known[i] < state.counts.rows for i in hopeless):
        # A column that cannot be fitted must not cost the others the rows on which it alone is missing.
        members = tuple(i for i in members if i not in hopeless)
        state = yield Regression(columns, members, dim, step.holdout, full)
    train, held_out = state.complete
    together = train.merged(held_out)

    def estimates(moments: Moments) -> list[Estimate]:
        found = dict(
            zip(members, least_squares(moments, [columns[i] for i in members], l2=step.l2 or 0.0), strict=True)
        )
        return [hopeless.get(i) or found[i] for i in range(len(columns))]

    everything = together.latents_only().merged(state.incomplete)
    fitted = Fitted(columns, estimates(together), estimates(train), everything, state.non_finite)
    fitted.label_means = np.zeros(len(columns))
    fitted.label_means[list(members)] = together.y_mean
    if full and len(members) == len(columns) and state.incomplete.n == 0:
        fitted.spreads = [in_sample(together, e, i, columns[i], step.confidence) for i, e in enumerate(fitted.stored)]
    return fitted


def _pairwise(step: FitStep, columns: tuple[Column, ...], dim: int) -> Passes[Any, Fitted]:
    state: Paired = yield PairwisePass(columns, dim, step.holdout)
    train, held_out = state.folds
    l2 = step.l2 or 0.0
    together, spread = train.merged(held_out), np.sqrt(state.everything.z_variance)
    stored = pairwise_least_squares(together, state.counts, columns, l2=l2, spread=spread)
    trial = pairwise_least_squares(train, state.training, columns, l2=l2, spread=spread) if step.holdout else stored
    means = np.diagonal(together.mean).copy()
    return Fitted(columns, stored, trial, state.everything, state.non_finite, label_means=means)


# ----------------------------------------------------------------------------------------------- logistic regression


def _logistic(step: FitStep, columns: tuple[Column, ...], dim: int) -> Passes[Any, Fitted]:
    survey: Surveyed = yield Survey(columns, dim, step.holdout)
    hopeless = {i: e for i, column in enumerate(columns) if (e := hopeless_estimate(survey.counts, i, column))}
    usable = [i for i in range(len(columns)) if i not in hopeless]
    trained = survey.training.pick(usable)
    training = (np.minimum(trained.positive, trained.known - trained.positive) >= 2) & (step.holdout > 0)
    chosen, survey.sample = survey.pick(usable), Sample.empty(dim, columns=0)  # held once: tens of megabytes
    fits = yield from logistic(
        [columns[i] for i in usable],
        chosen,
        training=training,
        l2=(step.l2 or 0.0) if step.estimator == "logistic" else step.l2 or DEFAULT_SVM_L2,
        holdout=step.holdout,
        loss=Loss.LOGISTIC if step.estimator == "logistic" else Loss.SQUARED_HINGE,
        bootstrap=step.bootstrap is not None,
    )
    found = dict(zip(usable, fits, strict=True))
    stored = [hopeless.get(i) or _estimate(found[i][0], survey.counts, i) for i in range(len(columns))]
    trial = [hopeless.get(i) or _estimate(found[i][1], survey.training, i) for i in range(len(columns))]
    fitted = Fitted(columns, stored, trial if step.holdout else stored, survey.everything, survey.non_finite)
    if step.bootstrap:
        fitted.linearised = [
            found[i][0].linearised(stored[i].evidence) if stored[i].status is FitStatus.OK else None
            for i in range(len(columns))
        ]
    return fitted


def _estimate(fit: LogisticFit | None, counts: LabelCounts, i: int) -> Estimate:
    evidence = class_evidence(counts, i)
    if fit is None:
        return Estimate(class_status(evidence), evidence)
    if fit.parted:
        fix = "a plane parts the classes, so there is no optimum; set l2 above 0"
        return Estimate(FitStatus.SEPARABLE, evidence, fix)
    if not fit.converged:
        fix = "the classes are nearly parted, or latents collinear; set l2 above 0"
        return Estimate(FitStatus.NOT_CONVERGED, evidence, fix)
    status = FitStatus.OK if fit.coefficients.any() else FitStatus.ZERO_NORM
    return Estimate(status, evidence, "", fit.coefficients, fit.standard_error, fit.intercept)
