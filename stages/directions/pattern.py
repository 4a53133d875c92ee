"""From a classifier's filter to its pattern: a = Σzz w / (wᵀΣzz w) (Haufe et al. 2014), a direction to edit along.

A filter w says how to read an attribute off a code, and leans away from whatever disturbs the reading; the pattern says what
changes in the codes when the reading w·z changes by one. Σzz w is the covariance of the latents with the scores, so one pass
with d numbers a column suffices, at any d. Σzz is that of all selected rows, labelled or not.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.directions.direction import Estimate, FitStatus
from stages.directions.fitted import Fitted
from stages.moments import Moments
from stages.rows import read_blocks
from stages.stage import Passes

Products = tuple[Moments, Moments]
"""Of all rows with the stored filters' scores as labels, and of the training rows with the trial filters' scores."""


@dataclass(frozen=True)
class PatternPass:
    """A reduce stage. `stored` and `trial` (columns, d) are filters of unit length, zero where there is none."""

    columns: tuple[Column, ...]
    stored: Floats
    trial: Floats
    centre: Floats
    holdout: float

    def start(self) -> Products:
        width, dim = self.stored.shape
        return Moments.empty(dim, labels=width, full=False), Moments.empty(dim, labels=width, full=False)

    def add(self, state: Products, batch: pa.RecordBatch) -> Products:
        for block in read_blocks(batch, (), holdout=self.holdout):
            x = block.latents - self.centre
            state[0].absorb(Moments.of(x, y=x @ self.stored.T, full=False))
            if self.holdout:
                x = x[~block.held_out]
                state[1].absorb(Moments.of(x, y=x @ self.trial.T, full=False))
        return state

    def merge(self, a: Products, b: Products) -> Products:
        return a[0].merged(b[0]), a[1].merged(b[1])


def patterned(fitted: Fitted, *, holdout: float) -> Passes[Any, Fitted]:
    """The same fit with patterns in the place of filters; σ and separation are to be measured along those."""
    dim, centre = fitted.everything.dim, fitted.everything.z_mean
    stage = PatternPass(fitted.columns, _units(fitted.stored, dim), _units(fitted.trial, dim), centre, holdout)
    if not stage.stored.any():
        return fitted
    everything, training = yield stage
    stored = [_pattern(e, everything, i, centre) for i, e in enumerate(fitted.stored)]
    trial = [_pattern(e, training, i, centre) for i, e in enumerate(fitted.trial)] if holdout else stored
    return replace(fitted, stored=stored, trial=trial, spreads=None)


def _units(filters: list[Estimate], dim: int) -> Floats:
    rows = np.zeros((len(filters), dim))
    for row, estimate in zip(rows, filters, strict=True):
        if estimate.coefficients is not None and estimate.status is FitStatus.OK:
            row[:] = estimate.coefficients / np.linalg.norm(estimate.coefficients)
    return rows


def _pattern(found: Estimate, moments: Moments, i: int, centre: Floats) -> Estimate:
    if found.coefficients is None or found.status is not FitStatus.OK:
        return found
    along, power = moments.zy[:, i], float(moments.yy[i, i])
    if power <= 0 or not along.any():
        reason = "the rows do not differ along the filter, so it has no pattern"
        return Estimate(FitStatus.ZERO_NORM, found.evidence, reason)
    w = found.coefficients
    pattern = along / (power * np.linalg.norm(w))  # w itself, not of unit length, is what a·w = 1 speaks of
    mean = centre + moments.z_mean
    # Where the line through the mean along the pattern meets the filter's plane, its own score is 0 too.
    meets = None if found.intercept is None else mean - pattern * float(w @ mean + found.intercept)
    return replace(
        found,
        message="; ".join(part for part in (found.message, "pattern of the classifier's filter") if part),
        coefficients=pattern,
        standard_error=None,
        intercept=None if meets is None else float(-pattern @ meets),
    )
