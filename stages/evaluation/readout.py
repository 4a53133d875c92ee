"""Linear scores of attributes read from a latent: what `scorer: reencode` measures decoded pictures with.

ols       w = (Σzz + λI)⁻¹ Σzy from one pass: the best linear guess of the label, in the label's own unit. Latents wider than
          MAX_DIM seldom have the rows for it: there it is ridge, with its penalty by cross-validation. The same pass gives the
          scores of rows that a fit has not seen (`crossfit`), so what the score itself answers to is not what it was told
logistic  the log-odds of a logistic fit. Whether latents know the label at all is asked of cross-fitted least squares (`beside`)
direction the projection on the stored unit direction

Not a judge from outside: it sees what the codec's encoder sees. A scorer of one's own answers for everything else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import norm

from schemas.measurements import OK, Measurement
from schemas.source import LabelType
from schemas.steps import FitStep
from stages.attributes import Column, Floats
from stages.directions.closed_forms import hopeless_estimate
from stages.directions.fit import FULL_MOMENTS_DIM, fit
from stages.evaluation.crossfit import HALVES, CrossFit, Folded, InFolds, cross_fit, solve
from stages.stage import Passes

LOGISTIC_L2 = 1.0
CHANCE_P = 0.05
MIN_ROWS = 20
"""With fewer, rows kept apart from the fit say nothing."""
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
    held_out: CrossFit | None = None
    """The same scores of rows kept apart from their fit; None where they cannot be had without fitting again."""
    stand_in: CrossFit | None = None
    """Least squares on the same labels, cross-fitted: tells whether latents know a label, for a score that was fitted once."""

    def __call__(self, latents: Floats) -> Floats:
        """(n, d) → (n, J), each row by itself: BLAS's last bits follow the batch, and a change of nothing has to be nothing."""
        return np.asarray(np.einsum("nd,jd->nj", latents, self.coefficients) + self.intercept)

    def only(self, wanted: Sequence[str]) -> "Readout":
        """The scores of these attributes alone."""
        kept = [i for i, name in enumerate(self.attributes) if name in wanted]
        missing = {name: why for name, why in self.missing.items() if name in wanted}
        names = tuple(self.attributes[i] for i in kept)
        knows = tuple(m for m in self.knows if m.target in wanted)
        held_out, stand_in = (f.only(kept) if f is not None else None for f in (self.held_out, self.stand_in))
        return Readout(names, self.coefficients[kept], self.intercept[kept], missing, knows, held_out, stand_in)

    def beside(self, other: "Readout") -> "Readout":
        """These scores with what the least squares scores `other` of the same labels know; unchanged where some are missing there."""
        if other.held_out is None or not set(self.attributes) <= set(other.attributes):
            return self
        order = [other.attributes.index(name) for name in self.attributes]
        knows = tuple(m for m in other.knows if m.target in self.attributes)
        return replace(self, knows=knows, stand_in=other.held_out.only(order))


def directions_readout(vectors: Mapping[str, tuple[Floats, Floats]]) -> Readout:
    """Projections on unit directions, measured from their means: attribute → (vector, mean)."""
    weights = np.array([vector for vector, _ in vectors.values()])
    offsets = np.array([-vector @ mean for vector, mean in vectors.values()])
    return Readout(tuple(vectors), weights, offsets, {})


def least_squares_readout(columns: Sequence[Column], *, dim: int, group: str | None = None) -> Passes[Any, Readout]:
    """One pass over the rows that carry every label; two where a column that cannot be read must not cost the others rows.

    `group`: the label whose rows are kept apart from a fit together.
    """
    members = tuple(range(len(columns)))
    state: Folded = yield InFolds(tuple(columns), members, dim, group)
    hopeless = {i: e.status for i, c in enumerate(columns) if (e := hopeless_estimate(state.counts, i, c))}
    if any(state.counts.known[i] < state.counts.rows for i in hopeless):
        members = tuple(i for i in members if i not in hopeless)
        state = yield InFolds(tuple(columns), members, dim, group)
    moments = state.moments
    missing = {columns[i].name: str(status) for i, status in hopeless.items()}
    kept = []
    for at, i in enumerate(members):
        if i not in hopeless and (moments.n < 3 or moments.yy[at, at] <= 0):
            missing[columns[i].name] = "too_few" if moments.n < 3 else "constant"
        elif i not in hopeless:
            kept.append(at)
    if not kept:
        return _readout({}, missing, dim)
    names = [columns[members[at]].name for at in kept]
    weights = solve(moments)[kept]
    intercepts = moments.y_mean[kept] - weights @ moments.z_mean
    held_out = cross_fit(state.folds, kept, group)
    known = tuple(_known(moments.n, held_out, k, name) for k, name in enumerate(names))
    found = {name: (w, float(b)) for name, w, b in zip(names, weights, intercepts, strict=True)}
    return replace(_readout(found, missing, dim), knows=known, held_out=held_out)


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


def _known(n: int, held_out: CrossFit | None, at: int, name: str) -> Measurement:
    """R² of rows that the score was not fitted on, and whether it goes with its label there: r√n against chance, one-sided, with
    the width of a cross-fit that says nothing. R² itself may be below 0 and the score still tell something: of few rows for
    many coordinates, it tells too loudly. Takes rows for independent; `scorer_response` does not, where rows have a group.
    """
    about: dict[str, Any] = {"target": name, "n": n}
    if held_out is None or n < MIN_ROWS:
        message = f"{n} rows, too few to keep some apart from the fit: whether the score tells its label cannot be told"
        return Measurement("readout_r2", status="too_few", message=message, **about)
    r2, p = float(held_out.r2[at]), float(norm.sf(held_out.r[at] * math.sqrt(n / HALVES)))
    said = f"of images that it was not fitted on, R² {r2:.2g}, p {p:.2g}"
    chance = f"the score of {name} tells its label no better than chance ({said})" if p > CHANCE_P else ""
    return Measurement("readout_r2", r2, status="at_chance" if chance else OK, message=chance, **about)


def _readout(found: Mapping[str, tuple[Floats, float]], missing: Mapping[str, str], dim: int) -> Readout:
    weights = np.array([w for w, _ in found.values()]).reshape(len(found), dim)
    return Readout(tuple(found), weights, np.array([b for _, b in found.values()]), missing)
