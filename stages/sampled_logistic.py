"""The logistic problems of a sample of rows, solved in memory: where the passes over the whole dataset start.

A sample that is all of the data gives the optimum itself, in float64. One that is not has a weak prior (a coefficient of the order
of one standard deviation), so that an attribute of which it holds few rows stays finite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.attributes import LabelCounts
from stages.curvature import (
    MAX_BYTES,
    ROWS_A_COEFFICIENT,
    Curvature,
    Latents,
    SharedCurvature,
    estimated_hessian,
    logistic_curvature,
)
from stages.logistic_pass import class_signs, slope
from stages.newton import Floats, Minimum, Slope, Trial, minimise, run
from stages.sample import UNKNOWN, SampledRows

TOLERANCE = 1e-2
"""Of a sample that is a part: well below what separates its optimum from that of all rows."""
FEW = 5
"""With fewer rows in a class, a sample says nothing of an optimum."""
_ROWS_A_COEFFICIENT = 16  # enough for a metric that a pass over all rows soon replaces
_ROUNDS = 8
_EVALUATIONS_A_ROUND = 6

Metric = Curvature | SharedCurvature


@dataclass(frozen=True, slots=True)
class SampledProblems:
    """The sampled rows as logistic problems, one a column of `rows.classes`. `latents` are centred; `penalty` (coefficients,)
    is the weight of ½w² in the sample's own objective; `scale` turns its sums into those of the whole dataset.
    """

    rows: SampledRows
    latents: Latents
    penalty: Floats
    scale: float

    @classmethod
    def of(cls, rows: SampledRows, *, centre: Floats, units: Floats, l2: float, total: int) -> "SampledProblems":
        """centre, units (d,): mean and standard deviation of all `total` rows; `l2`: the penalty of the whole objective."""
        scale = total / len(rows)
        weak = 0.0 if scale == 1 else 1.0
        penalty = np.append(weak * units**2 + l2 / scale, 0.0)
        return cls(rows, rows.latents - centre.astype(np.float32), penalty, scale)

    @property
    def complete(self) -> bool:
        """The sample is all of the data."""
        return self.scale == 1

    def curvatures(self, weights: Floats) -> npt.NDArray[np.float32]:
        """p(1 − p) of every row and problem, 0 where the label is unknown; weights: (coefficients, problems)."""
        q = logistic_curvature(self.latents @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32))
        return np.where(self.rows.classes == UNKNOWN, np.float32(0), q)

    def metric(self, weights: Floats) -> Metric:
        """Curvature of the whole dataset's problems as far as the sample tells it, at `weights` (coefficients, problems)."""
        q = self.curvatures(weights)
        penalty = self.scale * self.penalty
        if weights.size * len(weights) * 8 > MAX_BYTES:
            return SharedCurvature(self.latents, q, penalty, scale=self.scale)
        totals = q.sum(0, dtype=np.float64)
        rows = ROWS_A_COEFFICIENT if self.complete else _ROWS_A_COEFFICIENT
        hessians = [
            self.scale * estimated_hessian(self.latents, column, self.rows.hashes, total=float(total), rows=rows)
            for column, total in zip(q.T, totals, strict=True)
        ]
        return Curvature(hessians, penalty)


def sample_optimum(
    problems: SampledProblems, counts: LabelCounts, *, units: Floats, tolerance: float, may_part: bool
) -> tuple[Floats, Metric]:
    """Weights (coefficients, problems) near the sample's optimum, and the curvature there.

    `units` (coefficients,) as in `minimise`; `tolerance` is for a complete sample; `may_part`: it may have no finite optimum.
    """
    classes = problems.rows.classes
    start = np.zeros((len(units), classes.shape[1]))
    start[-1] = np.log(counts.positive / (counts.known - counts.positive))
    answer = _answers(problems, may_part=may_part and problems.complete)
    weights = start.copy()
    for _ in range(_ROUNDS):
        found = _round(problems, weights, answer, units, tolerance if problems.complete else TOLERANCE)
        weights = found.weights
        if (found.converged | found.parted).all():
            break
    few = np.minimum((classes == 1).sum(0), (classes == 0).sum(0)) < FEW
    weights = weights if problems.complete else np.where(few, start, weights)
    return weights, problems.metric(weights)


def _round(
    problems: SampledProblems, weights: Floats, answer: Callable[[Trial], Slope], units: Floats, tolerance: float
) -> Minimum:
    """A few steps with the curvature where they start."""
    metric, every = problems.metric(weights), np.arange(weights.shape[1])
    descent = minimise(
        weights,
        precondition=lambda gradients: metric.solve(gradients, every) * problems.scale,
        units=units,
        tolerance=np.full(len(every), tolerance),
        max_evaluations=_EVALUATIONS_A_ROUND,
        precise=problems.complete,
    )
    return run(descent, answer)


def _answers(problems: SampledProblems, *, may_part: bool) -> Callable[[Trial], Slope]:
    classes = problems.rows.classes
    x = problems.latents.astype(np.float64) if problems.complete else problems.latents
    signs = class_signs(classes > 0, classes != UNKNOWN, np.float64 if problems.complete else np.float32)

    def answer(trial: Trial) -> Slope:
        at = slope(x, signs[trial.problems], trial.weights, may_part=may_part)
        return Slope(at.gradient + problems.penalty[:, None] * trial.weights, at.parted)

    return answer
