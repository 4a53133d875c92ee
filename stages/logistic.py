"""Logistic regression of many attributes at once, by passes over the dataset.

Objective of each attribute, as scikit-learn's with C = 1/l2:  Σ log(1 + exp(−s·(w·z + b))) + l2/2 ‖w‖², s = ±1; b is not
penalised. A first pass counts and takes a sample; the sample's own optimum is the start, and its curvature the first
metric. Every further pass gives the exact gradient of all attributes, and now and then their curvature from more telling
rows, until all are at their optima (stages/newton.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stages.attributes import Bools, Column
from stages.curvature import Curvature
from stages.logistic_pass import LogisticPass, Summed
from stages.newton import Floats, Minimisation, Minimum, Precondition, Slope, minimise
from stages.sampled_logistic import Metric, SampledProblems, sample_optimum
from stages.stage import Passes
from stages.survey import Surveyed

MAX_PASSES = 60
TOLERANCE = 2e-6
"""Relative size of the last step; what it leaves is a tenth of it."""
TRIAL_TOLERANCE = 1e-2
"""For fits that only score held-out rows: what their last step leaves turns the direction by a thousandth."""
CURVATURE_EVERY = 6
"""Passes from one estimate of the curvature to the next, for what has not converged by then."""


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """The optimum of one problem in the latents' own coordinates; `converged` or `parted`, or passes ran out."""

    coefficients: Floats
    intercept: float
    standard_error: Floats | None
    converged: bool
    parted: bool


@dataclass(slots=True)
class _Fitting:
    """What a fit carries from pass to pass. Problems are all columns, then those of them with a fit on training rows."""

    stage: LogisticPass
    sample: SampledProblems
    metric: Metric
    penalty: Floats
    share: Floats
    exact: bool
    """The metric's Hessians come from enough rows for standard errors."""

    def precondition(self) -> Precondition:
        metric, of, share = self.metric, self.stage.of, self.share
        return lambda gradients: metric.solve(gradients, of) / share


def logistic(
    columns: Sequence[Column], survey: Surveyed, *, training: Bools, l2: float, holdout: float
) -> Passes[Any, list[tuple[LogisticFit, LogisticFit | None]]]:
    """For each column its fit on all rows, and where `training` (columns,) says so one on the training rows.

    Every column must have both classes; so must the training rows of those in `training`.
    """
    if not columns:
        return []
    centre = survey.everything.z_mean.astype(np.float32).astype(np.float64)
    deviation = np.sqrt(survey.everything.z_variance)
    units = np.append(deviation, 1.0)
    sample = SampledProblems.of(survey.sample.rows(), centre=centre, units=deviation, l2=l2, total=survey.everything.n)
    start, metric = sample_optimum(sample, survey.counts, units=units, tolerance=TOLERANCE, may_part=l2 == 0)
    of = np.concatenate([np.arange(len(columns)), np.flatnonzero(training)])
    on_training = np.arange(len(of)) >= len(columns)
    fitting = _Fitting(
        stage=LogisticPass(tuple(columns), of, on_training, start[:, of], centre, holdout, may_part=l2 == 0),
        sample=sample,
        metric=metric,
        penalty=np.append(np.full(len(centre), l2), 0.0),
        share=np.where(on_training, survey.training.known[of] / survey.counts.known[of], 1.0),
        exact=sample.complete,
    )
    descent = minimise(
        start[:, of],
        precondition=fitting.precondition(),
        units=units,
        tolerance=np.where(on_training, TRIAL_TOLERANCE, TOLERANCE),
        max_evaluations=MAX_PASSES,
        precise=sample.complete,
    )
    found = yield from _distributed(descent, fitting)
    fits = [_in_latents(found, i, fitting) for i in range(len(of))]
    trials = dict(zip(of[len(columns) :].tolist(), fits[len(columns) :], strict=True))
    return [(fits[i], trials.get(i)) for i in range(len(columns))]


def _distributed(descent: Minimisation, fitting: _Fitting) -> Passes[Any, Minimum]:
    """Answers the trials of a descent by passes over the dataset."""
    trial, number = next(descent), 0
    due = CURVATURE_EVERY if fitting.exact else 1
    while True:
        p, base = trial.problems, fitting.stage
        stage = replace(base, of=base.of[p], training=base.training[p], weights=trial.weights, precise=trial.precise)
        if number == due and isinstance(fitting.metric, Curvature):
            own = int((~stage.training).sum())
            stage = replace(stage, curvature=tuple(_totals(fitting.sample, stage, own)))
            due += CURVATURE_EVERY
        summed: Summed = yield stage
        better = _refined(fitting, stage, summed)
        gradient = summed.gradient + fitting.penalty[:, None] * trial.weights
        try:
            trial = descent.send(Slope(gradient, summed.parted, better))
        except StopIteration as end:
            minimum: Minimum = end.value
            return minimum
        number += 1


def _totals(sample: SampledProblems, stage: LogisticPass, own: int) -> Floats:
    """About Σp(1 − p) over all rows of the first `own` problems of a pass."""
    columns = stage.of[:own]
    some = replace(sample, rows=replace(sample.rows, classes=sample.rows.classes[:, columns]))
    sums: Floats = some.curvatures(stage.weights[:, :own]).sum(0, dtype=np.float64)
    return sample.scale * sums


def _refined(fitting: _Fitting, stage: LogisticPass, summed: Summed) -> Precondition | None:
    """The metric with the Hessians that a pass brought, if it brought any."""
    if not stage.curvature or not isinstance(fitting.metric, Curvature):
        return None
    columns = stage.of[: len(stage.curvature)]
    fitting.metric = fitting.metric.replaced(columns, list(summed.hessians), fitting.penalty)
    fitting.exact = True
    return fitting.precondition()


def _in_latents(found: Minimum, i: int, fitting: _Fitting) -> LogisticFit:
    w, metric = found.weights[:-1, i], fitting.metric
    own = not fitting.stage.training[i]
    errors = metric.standard_errors(i)[:-1] if own and fitting.exact and isinstance(metric, Curvature) else None
    return LogisticFit(
        coefficients=w,
        intercept=float(found.weights[-1, i] - w @ fitting.stage.centre),
        standard_error=errors,
        converged=bool(found.converged[i]),
        parted=bool(found.parted[i]),
    )
