"""Linear scores of attributes read from a latent: what `scorer: reencode` measures decoded pictures with.

ols       w = (Σzz + λI)⁻¹ Σzy from one pass: the best linear guess of the label, in the label's own unit. Latents wider than
          MAX_DIM seldom have the rows for it: there it is ridge, with its penalty by cross-validation
logistic  the log-odds of a logistic fit
direction the projection on the stored unit direction

Not a judge from outside: it sees what the codec's encoder sees. A scorer of one's own answers for everything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import f as f_distribution

from schemas.measurements import OK, Measurement
from schemas.source import LabelType
from schemas.steps import FitStep
from stages.attributes import Column, Floats
from stages.directions.closed_forms import hopeless_estimate
from stages.directions.fit import FULL_MOMENTS_DIM, fit
from stages.directions.regression import Regressed, Regression
from stages.moments import Moments
from stages.stage import Passes

RIDGE = 1e-6
"""λ as a share of the mean variance of a coordinate: keeps dimensions that never vary from blowing up."""
LOGISTIC_L2 = 1.0
CHANCE_P = 0.05
MAX_DIM = FULL_MOMENTS_DIM
"""Up to this size the covariance of all coordinates is kept."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Score j of a latent z is coefficients[j]·z + intercept[j]."""

    attributes: tuple[str, ...]
    coefficients: Floats  # (J, d)
    intercept: Floats  # (J,)
    missing: Mapping[str, str]
    """Attributes that cannot be read, and why."""
    knows: tuple[Measurement, ...] = ()
    """How much of each label its score tells, of those fitted by `least_squares_readout`."""

    def __call__(self, latents: Floats) -> Floats:
        """(n, d) → (n, J)."""
        return np.asarray(latents @ self.coefficients.T + self.intercept)

    def only(self, wanted: Sequence[str]) -> "Readout":
        """The scores of these attributes alone."""
        kept = [i for i, name in enumerate(self.attributes) if name in wanted]
        missing = {name: why for name, why in self.missing.items() if name in wanted}
        names = tuple(self.attributes[i] for i in kept)
        knows = tuple(m for m in self.knows if m.target in wanted)
        return Readout(names, self.coefficients[kept], self.intercept[kept], missing, knows)


def directions_readout(vectors: Mapping[str, tuple[Floats, Floats]]) -> Readout:
    """Projections on unit directions, measured from their means: attribute → (vector, mean)."""
    weights = np.array([vector for vector, _ in vectors.values()])
    offsets = np.array([-vector @ mean for vector, mean in vectors.values()])
    return Readout(tuple(vectors), weights, offsets, {})


def least_squares_readout(columns: Sequence[Column], *, dim: int) -> Passes[Any, Readout]:
    """One pass over the rows that carry every label; two where a column that cannot be read must not cost the others rows."""
    members = tuple(range(len(columns)))
    state: Regressed = yield Regression(tuple(columns), members, dim, 0.0, True)
    hopeless = {i: e.status for i, c in enumerate(columns) if (e := hopeless_estimate(state.counts, i, c))}
    if any(state.counts.known[i] < state.counts.rows for i in hopeless):
        members = tuple(i for i in members if i not in hopeless)
        state = yield Regression(tuple(columns), members, dim, 0.0, True)
    moments = state.complete[0].merged(state.complete[1])
    found: dict[str, tuple[Floats, float]] = {}
    knows = []
    missing = {columns[i].name: str(status) for i, status in hopeless.items()}
    for at, i in enumerate(members):
        if i not in hopeless and (moments.n < 3 or moments.yy[at, at] <= 0):
            missing[columns[i].name] = "too_few" if moments.n < 3 else "constant"
        elif i not in hopeless:
            found[columns[i].name] = weights, _ = _solve(moments, at)
            knows.append(_known(moments, at, weights, columns[i].name))
    return replace(_readout(found, missing, dim), knows=tuple(knows))


def logistic_readout(
    attributes: Mapping[str, LabelType], labels: Mapping[str, LabelType], *, dim: int
) -> Passes[Any, Readout]:
    """Log-odds of a logistic fit for each attribute (bool; a category gives one score a value)."""
    step = FitStep(name="readout", attributes=tuple(attributes), estimator="logistic", l2=LOGISTIC_L2, holdout=0.0)
    return (yield from _fitted(step, attributes, labels, dim))


def ridge_readout(
    attributes: Mapping[str, LabelType], labels: Mapping[str, LabelType], *, dim: int
) -> Passes[Any, Readout]:
    """The label's own unit by ridge, each attribute on the rows that know it: `ols` of latents of any width."""
    step = FitStep(name="readout", attributes=tuple(attributes), estimator="ridge", holdout=0.0)
    return (yield from _fitted(step, attributes, labels, dim))


def _fitted(
    step: FitStep, attributes: Mapping[str, LabelType], labels: Mapping[str, LabelType], dim: int
) -> Passes[Any, Readout]:
    directions = yield from fit(step, attributes, dim=dim, labels=labels)
    found: dict[str, tuple[Floats, float]] = {}
    missing: dict[str, str] = {}
    for one in directions:
        if one.vector is None or one.raw_norm is None:
            missing[one.attribute] = one.status
        else:
            found[one.attribute] = (one.vector * one.raw_norm, float(one.intercept or 0.0))
    return _readout(found, missing, dim)


def _solve(moments: Moments, at: int) -> tuple[Floats, float]:
    covariance = moments.zz / (moments.n - 1)
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance)
    weights = np.asarray(
        np.linalg.solve(covariance + ridge * np.eye(len(covariance)), moments.zy[:, at] / (moments.n - 1)), np.float64
    )
    return weights, float(moments.y_mean[at] - weights @ moments.z_mean)


def _known(moments: Moments, at: int, weights: Floats, name: str) -> Measurement:
    """R² adjusted for the d coordinates it was fitted with, 1 − (1 − R²)(n − 1)/(n − d − 1), and the F test of R² against chance.

    The rows of the fit are the rows asked, so plain R² of noise is d/(n − 1), and every score seems to tell its label.
    """
    n, used = moments.n, int(np.count_nonzero(np.diagonal(moments.zz) > 0))
    free = n - used - 1
    if free < 1:
        message = f"{n} rows for {used} coordinates: whether the score tells its label cannot be told"
        return Measurement("readout_r2", target=name, n=n, status="too_few", message=message)
    missed = 1 - min(max(float(weights @ moments.zy[:, at] / moments.yy[at, at]), 0.0), 1.0)
    p = float(f_distribution.sf((1 - missed) / used / max(missed / free, 1e-300), used, free)) if used else 1.0
    chance = "" if p <= CHANCE_P else f"the score of {name} tells its label no better than chance (p {p:.2g})"
    value = 1 - missed * (n - 1) / free
    return Measurement("readout_r2", value, target=name, n=n, status="at_chance" if chance else OK, message=chance)


def _readout(found: Mapping[str, tuple[Floats, float]], missing: Mapping[str, str], dim: int) -> Readout:
    weights = np.array([w for w, _ in found.values()]).reshape(len(found), dim)
    return Readout(tuple(found), weights, np.array([b for _, b in found.values()]), missing)
