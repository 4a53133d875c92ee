"""Logistic regression of many attributes at once, by passes over the dataset.

Objective of each attribute, as scikit-learn's with C = 1/l2:  Σ log(1 + exp(−s·(w·z + b))) + l2/2 ‖w‖², s = ±1; b is not
penalised. A linear SVM takes the same way with the squared hinge max(0, 1 − s·(w·z + b))² for its loss
(stages/directions/losses.py). A first pass counts and takes a sample. A sample that holds all rows is solved in memory. Otherwise its own
optimum is the start, and its curvature the first metric; every further pass gives the exact gradient of all attributes,
and now and then their curvature from more telling rows, until all are at their optima (stages/directions/newton.py). A sample of
fewer rows than latents have numbers is no start, and where memory holds no matrix an attribute, one of all rows is the metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.attributes import Bools, Column
from stages.directions.curvature import Curvature, Inverses, estimated_hessian, hessians_at_once
from stages.directions.direction import Evidence
from stages.directions.linearised import Linearised, linearised_margin
from stages.directions.logistic_pass import LogisticPass, Summed
from stages.directions.losses import Loss
from stages.directions.newton import Floats, Minimum, Precondition, Slope, Trial, minimise
from stages.directions.sampled_logistic import PART_TOLERANCE, Metric, SampledProblems, sample_optima
from stages.directions.shared_curvature import SharedCurvature, SharedCurvaturePass
from stages.directions.survey import Surveyed
from stages.stage import Passes

MAX_PASSES = 60
TOLERANCE = 2e-6
"""Relative size of the last step; what it leaves is a tenth of it."""
TRIAL_TOLERANCE = 1e-2
"""For fits that only score held-out rows: what their last step leaves turns the direction by a thousandth."""
CURVATURE_EVERY = 3
"""At least so many passes lie between two estimates of a problem's curvature."""
SLOW = 0.2
"""Steps that shrink less than to this share call for better curvature."""
FEW_SAMPLED = 5
"""With fewer rows in a class, a sample says nothing of an optimum."""

NO_INFORMATION = 1e-6
"""Of a direction's information without an effect: with less, no optimum can be told from one at infinity."""


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """The optimum of one problem in the latents' own coordinates; `converged` or `parted`, or passes ran out.

    `centre` (d,): where it was solved about. `metric`: the curvature there, of the problem at `place`, for
    a bootstrap; training fits have none.
    """

    coefficients: Floats
    intercept: float
    standard_error: Floats | None
    converged: bool
    parted: bool
    centre: Floats
    loss: Loss
    metric: Metric | Inverses | None = None
    place: int = 0

    def linearised(self, evidence: Evidence) -> Linearised | str:
        """One step from here, for a bootstrap; or why there is none."""
        if self.metric is None or isinstance(self.metric, SharedCurvature):
            return "the curvature of all attributes does not fit in memory; fit fewer at a time"
        weights = np.append(self.coefficients, self.intercept + self.coefficients @ self.centre)
        return linearised_margin(
            weights,
            self.centre,
            self.loss,
            solve=partial(self.metric.solve_all, self.place),
            parameters=self.metric.parameters(self.place),
            evidence=evidence,
        )


def logistic(
    columns: Sequence[Column],
    survey: Surveyed,
    *,
    training: Bools,
    l2: float,
    holdout: float,
    loss: Loss = Loss.LOGISTIC,
    bootstrap: bool = False,
) -> Passes[Any, list[tuple[LogisticFit, LogisticFit | None]]]:
    """For each column its fit on all rows, and where `training` (columns,) says so one on the training rows.

    `bootstrap`: fits will be asked for one step, so each needs a curvature of its own. Standard errors are the likelihood's, so
    only the logistic loss has them. The squared hinge needs l2 > 0. Every column must have both classes; so must the training
    rows of those in `training`.
    """
    if not columns:
        return []
    centre = survey.everything.z_mean.astype(np.float32).astype(np.float64)
    deviation = np.sqrt(survey.everything.z_variance)
    sample = SampledProblems.of(
        survey.sample.release(),
        training=training,
        centre=centre,
        deviation=deviation,
        l2=l2,
        total=survey.everything.n,
        loss=loss,
    )
    units, of = np.append(deviation, 1.0), np.concatenate([np.arange(len(columns)), np.flatnonzero(training)])
    fitting = _Fitting(sample, units, _intercepts(sample, survey), np.append(np.full(len(centre), l2), 0.0))
    stage = None
    if sample.complete:
        found, metric = fitting.in_memory(len(columns))
    else:
        on_training, start = np.arange(len(of)) >= len(columns), fitting.start()
        stage = LogisticPass(
            tuple(columns), of, on_training, start[:, of], centre, holdout, may_part=l2 == 0, loss=loss
        )
        share = np.where(on_training, survey.training.known[of] / survey.counts.known[of], 1.0)
        found, metric = yield from fitting.by_passes(stage, share)
    if l2 == 0:
        found.converged[: len(columns)] &= _finite(found, metric, sample, survey)
    steps: Metric | Inverses = metric
    if bootstrap and isinstance(metric, SharedCurvature):
        steps = (yield from fitting.own_curvatures(stage, found.weights[:, : len(columns)])) or metric
    fits = [_in_latents(found, i, steps if i < len(columns) else None, centre, loss) for i in range(len(of))]
    if not bootstrap:  # as large as all attributes' matrices, and nobody will ask for a step
        fits = [replace(one, metric=None) for one in fits]
    trials = dict(zip(of[len(columns) :].tolist(), fits[len(columns) :], strict=True))
    return [(fits[i], trials.get(i)) for i in range(len(columns))]


def _intercepts(sample: SampledProblems, survey: Surveyed) -> Floats:
    """Weights (d + 1, problems) of no effect at all: the log odds of each problem's classes."""
    weights = np.zeros((sample.coefficients, sample.classes.shape[1]))
    positive, negative = (sample.classes == 1).sum(0), (sample.classes == 0).sum(0)
    if not sample.complete:
        positive, negative = survey.counts.positive, survey.counts.known - survey.counts.positive
    weights[-1] = np.log(positive / negative)
    return weights


@dataclass(frozen=True, slots=True)
class _Fitting:
    """What both ways to the optima need: `units` as in `minimise`, weights without an effect, and the objective's penalty."""

    sample: SampledProblems
    units: Floats
    no_effect: Floats
    penalty: Floats

    @property
    def may_part(self) -> bool:
        return not self.penalty.any()

    def in_memory(self, columns: int) -> tuple[Minimum, Metric]:
        """The optima of a complete sample, and the curvature at those of the first `columns` problems."""
        found = sample_optima(
            self.sample, start=self.no_effect, units=self.units, tolerance=TOLERANCE, may_part=self.may_part
        )
        own = replace(self.sample, classes=self.sample.classes[:, :columns])
        return found, own.metric(found.weights[:, :columns])

    def start(self) -> Floats:
        """Weights (d + 1, columns) near the optima, as far as a part of the rows can tell."""
        classes = self.sample.classes
        if len(classes) < self.sample.coefficients:
            return self.no_effect
        found = sample_optima(
            self.sample, start=self.no_effect, units=self.units, tolerance=PART_TOLERANCE, may_part=False
        )
        few = np.minimum((classes == 1).sum(0), (classes == 0).sum(0)) < FEW_SAMPLED
        return np.where(few, self.no_effect, found.weights)

    def by_passes(self, stage: LogisticPass, share: Floats) -> Passes[Any, tuple[Minimum, Metric]]:
        """The optima by passes over the dataset. `share` (problems,): how much of a column's rows a problem has."""
        weights = stage.weights[:, ~stage.training]
        own = weights.shape[1] <= hessians_at_once(len(weights))
        shared = not own and hessians_at_once(len(weights) - 1) > 0
        metric = (yield from self.shared(stage, weights)) if shared else self.sample.metric(weights)
        descent = minimise(
            stage.weights,
            precondition=_inverse(metric, stage.of, share),
            units=self.units,
            tolerance=np.where(stage.training, TRIAL_TOLERANCE, TOLERANCE),
            max_evaluations=MAX_PASSES,
        )
        trial, number, due = next(descent), 0, np.ones(len(stage.of))
        while True:
            number += 1
            poor = np.flatnonzero(self._is_poor(stage, trial, due < number))
            due[trial.problems[poor]] = number + CURVATURE_EVERY
            asked = self._pass(stage, trial, poor if own else poor[:0])
            summed: Summed = yield asked
            better = None
            if summed.hessians and isinstance(metric, Curvature):
                metric = metric.replaced({int(asked.of[i]): h for i, h in summed.hessians.items()}, self.penalty)
                better = _inverse(metric, stage.of, share)
            gradient = summed.gradient + self.penalty[:, None] * trial.weights
            try:
                trial = descent.send(Slope(gradient, summed.parted, better, tuple(summed.hessians)))
            except StopIteration as end:
                return end.value, metric

    def shared(self, stage: LogisticPass, weights: Floats) -> Passes[Any, SharedCurvature]:
        """One curvature for all columns, of all rows, at `weights` (coefficients, columns)."""
        q = self.sample.curvatures(weights)
        asked = SharedCurvaturePass(
            stage.columns,
            weights,
            stage.centre,
            stage.holdout,
            stage.loss,
            expected=self.sample.scale * float(q.mean(1).sum()),
        )
        return asked.curvature((yield asked), self.penalty)

    def own_curvatures(self, stage: LogisticPass | None, weights: Floats) -> Passes[Any, Inverses | None]:
        """Of each problem at its `weights` (coefficients, columns), a few a pass; None where they do not fit in memory.

        `stage`: a pass over the rows; None where the sample holds them all.
        """
        d, columns = weights.shape
        if not Inverses.fit_in_memory(d, columns):
            return None
        found, room = Inverses(self.penalty), max(1, hessians_at_once(d))
        for start in range(0, columns, room):
            some = np.arange(start, min(start + room, columns))
            sample = replace(self.sample, classes=self.sample.classes[:, some])
            curvatures = sample.curvatures(weights[:, some])
            totals = sample.scale * curvatures.sum(0, dtype=np.float64)
            if stage is None:
                for q, total in zip(curvatures.T, totals, strict=True):
                    found.add(estimated_hessian(sample.latents, q, sample.hashes, total=float(total)))
                continue
            summed: Summed = yield replace(
                stage,
                of=some,
                training=np.zeros(len(some), bool),
                weights=weights[:, some],
                curvature=dict(enumerate(totals.tolist())),
            )
            for i in range(len(some)):
                found.add(summed.hessians[i])
        return found

    @staticmethod
    def _is_poor(stage: LogisticPass, trial: Trial, due: Bools) -> Bools:
        """Which of a trial's problems want better curvature: all once they are near, then those that converge slowly."""
        p = trial.problems
        slow: Bools = (trial.contraction == 0) | (trial.contraction > SLOW)
        return due[p] & ~stage.training[p] & slow

    def _pass(self, stage: LogisticPass, trial: Trial, wanted: npt.NDArray[np.int64]) -> LogisticPass:
        """The pass that answers a trial, with the Hessians of the `wanted` ones of its problems on all rows."""
        p = trial.problems
        some = replace(self.sample, classes=self.sample.classes[:, stage.of[p][wanted]])
        totals = self.sample.scale * some.curvatures(trial.weights[:, wanted]).sum(0, dtype=np.float64)
        return replace(
            stage,
            of=stage.of[p],
            training=stage.training[p],
            weights=trial.weights,
            precise=trial.precise,
            curvature=dict(zip(wanted.tolist(), totals.tolist(), strict=True)),
        )


def _inverse(metric: Metric, of: npt.NDArray[np.int64], share: Floats) -> Precondition:
    return lambda gradients: metric.solve(gradients, of) / share


def _in_latents(found: Minimum, i: int, metric: Metric | Inverses | None, centre: Floats, loss: Loss) -> LogisticFit:
    w, likely = found.weights[:-1, i], loss is Loss.LOGISTIC
    return LogisticFit(
        coefficients=w,
        intercept=float(found.weights[-1, i] - w @ centre),
        standard_error=metric.standard_errors(i)[:-1] if likely and isinstance(metric, Curvature) else None,
        converged=bool(found.converged[i]),
        parted=bool(found.parted[i]),
        centre=centre,
        loss=loss,
        metric=metric,
        place=i,
    )


def _finite(found: Minimum, metric: Metric, sample: SampledProblems, survey: Surveyed) -> Bools:
    """Which of the columns' unpenalised optima are real: far out, rounding can look like one.

    There, some direction carries next to none of the information it would carry if there were no effect.
    """
    columns = len(survey.counts.known)
    if not isinstance(metric, Curvature):
        return np.ones(columns, bool)
    gram, share = sample.gram(), survey.counts.positive / survey.counts.known
    weakest = [metric.weakest(i, gram, found.weights[:, i]) for i in range(columns)]
    return np.asarray(weakest > NO_INFORMATION * share * (1 - share))
