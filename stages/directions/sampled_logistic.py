"""The logistic problems of a sample of rows, solved in memory.

A sample that holds all rows gives the optima themselves, in float64. One that is a part of them gives a start and a first
metric for passes over the whole dataset; it has a weak prior (coefficients of the order of one standard deviation), so that an
attribute of which it holds few rows stays finite.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.directions.curvature import (
    FLOOR,
    FLOOR_PRECISE,
    ROWS_A_COEFFICIENT,
    Curvature,
    estimated_hessian,
    hessians_at_once,
)
from stages.directions.logistic_pass import class_signs, slope
from stages.directions.losses import Loss
from stages.directions.newton import Bools, Floats, Minimum, Slope, Trial, minimise, run
from stages.directions.shared_curvature import SharedCurvature
from stages.row_hash import Hashes
from stages.sample import UNKNOWN, SampledRows

PART_TOLERANCE = 1e-2
"""For a sample that is a part: below what separates its optimum from that of all rows."""
PART_ROWS_A_COEFFICIENT = 16
"""For the metric of a part, which a pass over all rows soon replaces."""
_ROUNDS = 20
_ROUNDS_WITHOUT_PENALTY = 6
"""Steps towards an optimum at infinity grow tiny after these, and could pass for convergence."""
_EVALUATIONS_A_ROUND = {Curvature: 6, SharedCurvature: 40}

Metric = Curvature | SharedCurvature


@dataclass(frozen=True, slots=True)
class SampledProblems:
    """One logistic problem a column of `classes` (rows, problems). `latents` (rows, d) are centred, `hashes` (rows,) those of
    the ids; `penalty` (coefficients,) is the weight of ½w² in the sample's own objective; `scale` turns its sums into those
    of the whole dataset.
    """

    hashes: Hashes
    classes: npt.NDArray[np.int8]
    latents: npt.NDArray[Any]
    penalty: Floats
    scale: float
    loss: Loss = Loss.LOGISTIC

    @classmethod
    def of(
        cls,
        rows: SampledRows,
        *,
        training: Bools,
        centre: Floats,
        deviation: Floats,
        l2: float,
        total: int,
        loss: Loss = Loss.LOGISTIC,
    ) -> "SampledProblems":
        """Problems of all columns; in a complete sample, those of the columns in `training` (columns,) follow, on training rows.

        centre, deviation (d,): mean and standard deviation of all `total` rows; `l2`: the penalty of the whole objective.
        """
        scale = total / len(rows)
        if scale != 1:
            penalty = np.append(deviation**2 + l2 / scale, 0.0)
            return cls(rows.hashes, rows.classes, rows.latents - centre.astype(np.float32), penalty, scale, loss)
        on_training = np.where(rows.held_out[:, None], np.int8(UNKNOWN), rows.classes[:, training])
        penalty = np.append(np.full(len(centre), l2), 0.0)
        return cls(rows.hashes, np.hstack([rows.classes, on_training]), rows.latents - centre, penalty, 1.0, loss)

    @property
    def coefficients(self) -> int:
        return int(self.latents.shape[1]) + 1

    @property
    def complete(self) -> bool:
        """The sample is all of the data."""
        return self.scale == 1

    def curvatures(self, weights: Floats) -> npt.NDArray[Any]:
        """The loss's second derivative at every row and problem, 0 where the label is unknown; weights: (coefficients, problems)."""
        w = weights.astype(self.latents.dtype)
        margin = (self.latents @ w[:-1] + w[-1]) * np.where(self.classes > 0, 1, -1).astype(w.dtype)
        return np.asarray(self.loss.curvature(margin) * (self.classes != UNKNOWN))

    def gram(self) -> Floats:
        """Σ x xᵀ over the whole dataset as far as the sample tells it, x = (latent − centre, 1)."""
        x = np.column_stack([self.latents, np.ones(len(self.latents), self.latents.dtype)])
        return np.asarray(self.scale * (x.T @ x), np.float64)

    def metric(self, weights: Floats) -> Metric:
        """Curvature of the whole dataset's problems as far as the sample tells it, at `weights` (coefficients, problems)."""
        q = self.curvatures(weights)
        penalty = self.scale * self.penalty
        if weights.shape[1] > hessians_at_once(len(weights)):
            return SharedCurvature.of_sample(self.latents, q, penalty, scale=self.scale)
        totals = q.sum(0, dtype=np.float64)
        rows = ROWS_A_COEFFICIENT if self.complete else PART_ROWS_A_COEFFICIENT
        hessians = [
            estimated_hessian(self.latents, column, self.hashes, total=float(total), rows=rows) * np.float64(self.scale)
            for column, total in zip(q.T, totals, strict=True)
        ]
        return Curvature(hessians, penalty, floor=FLOOR_PRECISE if self.complete else FLOOR)


def sample_optima(
    problems: SampledProblems, *, start: Floats, units: Floats, tolerance: float, may_part: bool
) -> Minimum:
    """The optima of the sample's problems. start (coefficients, problems); units (coefficients,) as in `minimise`.

    `may_part`: watch for problems without a finite optimum.
    """
    weights, width = start.copy(), start.shape[1]
    converged, parted, evaluations = np.zeros(width, bool), np.zeros(width, bool), 0
    for _ in range(_ROUNDS if problems.penalty.any() else _ROUNDS_WITHOUT_PENALTY):
        left = np.flatnonzero(~(converged | parted))
        if not len(left):
            break
        some = replace(problems, classes=problems.classes[:, left])
        found = _round(some, weights[:, left], units, tolerance, may_part=may_part)
        weights[:, left], converged[left], parted[left] = found.weights, found.converged, found.parted
        evaluations += found.evaluations
    return Minimum(weights, converged, parted, evaluations)


def _round(problems: SampledProblems, start: Floats, units: Floats, tolerance: float, *, may_part: bool) -> Minimum:
    """A few steps with the curvature where they start."""
    metric, every = problems.metric(start), np.arange(start.shape[1])
    signs = class_signs(problems.classes > 0, problems.classes != UNKNOWN, problems.latents.dtype.type)

    def answer(trial: Trial) -> Slope:
        at = slope(problems.latents, signs[trial.problems], trial.weights, may_part=may_part, loss=problems.loss)
        return Slope(at.gradient + problems.penalty[:, None] * trial.weights, at.parted)

    descent = minimise(
        start,
        precondition=lambda gradients: metric.solve(gradients, every) * problems.scale,
        units=units,
        tolerance=np.full(len(every), tolerance),
        max_evaluations=_EVALUATIONS_A_ROUND[type(metric)],
        precise=problems.complete,
    )
    return run(descent, answer)
