"""From raw estimates to directions: scores along them are measured, on held-out rows where there are any, and evidence is added."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.source import LabelType
from schemas.steps import FitStep
from stages.attributes import Floats
from stages.directions.direction import MEANING, Direction, Estimate, FitStatus
from stages.directions.effect import PATTERN
from stages.directions.fitted import Fitted
from stages.directions.scoring import Scores, Scoring, Spread, spreads
from stages.stage import Passes


def measured(step: FitStep, fitted: Fitted) -> Passes[Any, list[Spread]]:
    """The scoring pass; none when there is no direction to measure along."""
    stored = _unit_rows(fitted.stored, fitted.everything.dim)
    if not stored.any():
        return [Spread()] * len(fitted.columns)
    variance = fitted.everything.z_variance
    scale = np.sqrt(stored**2 @ variance)
    stage = Scoring(
        columns=fitted.columns,
        stored=stored,
        trial=_unit_rows(fitted.trial, fitted.everything.dim),
        centre=fitted.everything.z_mean,
        scale=np.where(scale > 0, scale, 1.0),
        holdout=step.holdout,
    )
    scores: Scores = yield stage
    return spreads(scores, stage, confidence=step.confidence)


def _unit_rows(estimates: Sequence[Estimate], dim: int) -> Floats:
    rows = np.zeros((len(estimates), dim))
    for row, estimate in zip(rows, estimates, strict=True):
        if estimate.status is FitStatus.OK and estimate.coefficients is not None:
            row[:] = estimate.coefficients / np.linalg.norm(estimate.coefficients)
    return rows


def direction_of(step: FitStep, fitted: Fitted, i: int, attributes: tuple[str, ...]) -> Direction:
    """Of column `i`, with its evidence; `attributes`: all that were fitted together."""
    assert fitted.spreads is not None
    estimate, spread, everything = fitted.stored[i], fitted.spreads[i], fitted.everything
    has_vector = estimate.status is FitStatus.OK
    direction = Direction(
        attribute=fitted.columns[i].name,
        attributes=attributes,
        estimator=step.estimator + PATTERN if step.pattern else step.estimator,
        status=str(FitStatus.NO_ROWS if everything.n == 0 else estimate.status),
        message=_message(fitted, i, spread if step.holdout and has_vector else None),
        confidence=step.confidence,
        n=estimate.evidence.n,
        n_positive=estimate.evidence.n_positive,
        n_negative=estimate.evidence.n_negative,
        non_finite=fitted.non_finite,
    )
    if not has_vector or estimate.coefficients is None:
        return direction
    norm = float(np.linalg.norm(estimate.coefficients))
    separation, auc = spread.separation or (None, None, None), spread.auc
    return replace(
        direction,
        vector=estimate.coefficients / norm,
        raw_norm=norm,
        standard_error=estimate.standard_error,
        intercept=estimate.intercept,
        mean=everything.z_mean,
        sigma=spread.sigma,
        separation=separation[0],
        separation_low=separation[1],
        separation_high=separation[2],
        auc=auc.value if auc else None,
        auc_low=auc.low if auc else None,
        auc_high=auc.high if auc else None,
    )


def _message(fitted: Fitted, i: int, held_out: Spread | None) -> str | None:
    """What a reader should know beside the numbers; None when there is nothing. `held_out`: what held-out rows measured."""
    status = FitStatus.NO_ROWS if fitted.everything.n == 0 else fitted.stored[i].status
    said = [fitted.stored[i].message or MEANING.get(status, "")]
    if held_out is not None and fitted.columns[i].binary and held_out.auc is None:
        trial = fitted.trial[i].status
        why = "too few of them in a class" if trial is FitStatus.OK else f"the fit without them is {trial}"
        said.append(f"no held-out AUC: {why}")
    if fitted.non_finite:
        said.append(f"{fitted.non_finite} rows with a non-finite latent left out")
    return "; ".join(part for part in said if part) or None


def without_values(step: FitStep, fitted: Fitted, attributes: Mapping[str, LabelType]) -> list[Direction]:
    """A category of which no row has a value makes no columns: it gets one direction, which says so."""
    seen = {column.label for column in fitted.columns}
    status = FitStatus.NO_LABELS if fitted.everything.n else FitStatus.NO_ROWS
    bare = Direction(
        "",
        tuple(attributes),
        step.estimator,
        str(status),
        MEANING[status],
        step.confidence,
        non_finite=fitted.non_finite,
    )
    return [replace(bare, attribute=label) for label in attributes if label not in seen]
