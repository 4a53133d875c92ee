"""Intervals of a fit by Poisson bootstrap (stages/bootstrap.py): of the direction itself, its separation and its held-out AUC.

Passes keep sums of every replicate; memory is replicates × features × d, so many replicates take several passes of a bounded
size. Replicates of means and of least squares are exact fits of the weighted rows (weighted_sums.py, weighted_cells.py); those of
ridge, LDA, logistic regression and SVM are one step from the fit (one_step.py), and patterns follow from their filters
(weighted_patterns.py). Where a direction's error cannot be told, a typed status says why.

The angle θ between the fitted v̂ = v + e and the true v has sin θ = ‖e⊥‖/‖v̂‖ exactly, e⊥ the error across v. Replicates' errors
v̂ᵣ − v̂ are drawn like e, so ‖v̂‖ with their length across v̂ gives the interval of θ. The angle between v̂ᵣ and v̂ does not: v̂ is
longer than v by its own noise, so replicates lie closer to v̂ than v does; it is reported as stability.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from schemas.measurements import Measurement
from schemas.steps import FitStep
from stages.attributes import Floats
from stages.bootstrap import percentile_interval
from stages.directions.direction import Direction, FitStatus
from stages.directions.fitted import Fitted
from stages.directions.judging import Judged, Judging, areas, separations
from stages.directions.linearised import Linearised
from stages.directions.one_step import OneStep
from stages.directions.weighted_cells import Places, WeightedCells
from stages.directions.weighted_patterns import WeightedPatterns
from stages.directions.weighted_sums import Drawn, centred_class_means, class_differences, regressed
from stages.stage import Passes, ReduceStage

MAX_BYTES = 2**26
"""Of a pass's sums."""
UNDETERMINED = "undetermined"
"""The error may be as long as the direction itself: at this n it could point anywhere."""
NOT_MEASURED = "not_measured"
"""The direction's error cannot be told here; the message says why."""


class Method(Protocol):
    """How an estimator's replicates come about: passes that return coefficients of the replicates asked for."""

    @property
    def bytes_a_replicate(self) -> int: ...

    def replicates(self, which: range) -> Passes[Any, Drawn]: ...


def resampled(step: FitStep, fitted: Fitted, directions: Sequence[Direction]) -> Passes[Any, list[Direction]]:
    """The directions with intervals by bootstrap, in their own fields and in `intervals`; needs `step.bootstrap`."""
    assert step.bootstrap is not None
    if all(d.vector is None for d in directions):
        return list(directions)
    judging, method = _judging(step, fitted), _method(step, fitted)
    chunk = max(1, MAX_BYTES // (judging.bytes_a_replicate + method.bytes_a_replicate))
    found = [_Replicates() for _ in directions]
    for first, last in pairwise([*range(0, step.bootstrap, chunk), step.bootstrap]):
        which = range(first, last)
        judged, drawn = yield from _alongside(replace(judging, replicates=which), method.replicates(which))
        for i, (one, direction) in enumerate(zip(found, directions, strict=True)):
            whole, *others = areas(judged.histogram[i])
            one.areas.extend(others - whole)
            one.separations.extend(separations(judged.scores[1:, i]))
            one.take(direction, drawn[i])
    reasons = _reasons(fitted)
    return [
        _told(d, one, step, reasons[i]) if d.vector is not None else d
        for i, (d, one) in enumerate(zip(directions, found, strict=True))
    ]


def _method(step: FitStep, fitted: Fitted) -> Method:
    columns, centre = fitted.columns, fitted.everything.z_mean
    match step.estimator:
        case "mean_difference":
            return class_differences(columns, centre)
        case "class_means":
            return centred_class_means(columns, centre)
        case "balanced_mean_difference":
            return WeightedCells(Places(columns, fitted.controls, fitted.cells), centre)
        case "ols":
            assert fitted.label_means is not None
            l2, by_pairs = step.l2 or 0.0, step.missing == "pairwise"
            about = np.array([0.0 if c.binary else m for c, m in zip(columns, fitted.label_means, strict=True)])
            return regressed(columns, fitted.stored, centre, about, l2=l2, pairwise=by_pairs)
        case _:
            filters = OneStep(columns, fitted.linearised)
            return WeightedPatterns(filters, centre, len(columns)) if step.pattern else filters


def _reasons(fitted: Fitted) -> list[str]:
    """By column why there are no replicates, where there are none."""
    said = [f.refusal if isinstance(f, Linearised) else f for f in fitted.linearised]
    return [reason or "" for reason in said] or [""] * len(fitted.columns)


@dataclass(frozen=True)
class _Both:
    """Two reduce stages over one reading of the rows."""

    first: ReduceStage[Any]
    second: ReduceStage[Any]

    def start(self) -> tuple[Any, Any]:
        return self.first.start(), self.second.start()

    def add(self, state: tuple[Any, Any], batch: pa.RecordBatch) -> tuple[Any, Any]:
        return self.first.add(state[0], batch), self.second.add(state[1], batch)

    def merge(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        return self.first.merge(a[0], b[0]), self.second.merge(a[1], b[1])


def _alongside(stage: Judging, passes: Passes[Any, Drawn]) -> Passes[Any, tuple[Judged, Drawn]]:
    """What `stage` and `passes` find, the stage in the first of the passes."""
    try:
        wanted = next(passes)
    except StopIteration as end:
        judged: Judged = yield stage
        return judged, end.value
    judged, state = yield _Both(stage, wanted)
    while True:
        try:
            wanted = passes.send(state)
        except StopIteration as end:
            return judged, end.value
        state = yield wanted


def _judging(step: FitStep, fitted: Fitted) -> Judging:
    judged = fitted.trial if step.holdout else fitted.stored
    trial = np.zeros((len(fitted.columns), fitted.everything.dim))
    for row, estimate, column in zip(trial, judged, fitted.columns, strict=True):
        if estimate.status is FitStatus.OK and estimate.coefficients is not None and column.binary:
            row[:] = estimate.coefficients / np.linalg.norm(estimate.coefficients)
    scale = np.sqrt(trial**2 @ fitted.everything.z_variance)
    return Judging(
        columns=fitted.columns,
        trial=trial,
        centre=fitted.everything.z_mean,
        scale=np.where(scale > 0, scale, 1.0),
        holdout=step.holdout,
        replicates=range(0),
    )


@dataclass(slots=True)
class _Replicates:
    """What the replicates of one direction gave. `areas` are differences from that of unweighted rows; NaN: not computable."""

    separations: list[float] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    angles: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    squares: Floats | float = 0.0

    def take(self, direction: Direction, drawn: Floats | None) -> None:
        """Coefficients (replicates, d), NaN where a replicate's weights left too little to estimate from."""
        if direction.vector is None or direction.raw_norm is None or drawn is None:
            return
        there = np.isfinite(drawn).all(1) & drawn.any(1)
        vectors = drawn[there]
        errors = vectors - direction.vector * direction.raw_norm
        across = errors - np.outer(errors @ direction.vector, direction.vector)
        angles = np.full(len(drawn), np.nan)
        sines = np.minimum(1.0, np.linalg.norm(across, axis=1) / direction.raw_norm)
        angles[there] = np.degrees(np.arcsin(sines))
        self.angles.extend(angles.tolist())
        self.cosines.extend((vectors @ direction.vector / np.linalg.norm(vectors, axis=1)).tolist())
        self.squares = self.squares + (errors**2).sum(0)


def _told(direction: Direction, found: _Replicates, step: FitStep, reason: str) -> Direction:
    """Bootstrap intervals in the place of those that take rows to be independent."""
    separation = percentile_interval(found.separations, confidence=step.confidence)
    area = percentile_interval(found.areas, confidence=step.confidence)
    measured = tuple(_angle(direction, found, step, reason))
    if direction.separation is not None and separation is not None:
        direction = replace(direction, separation_low=separation[0], separation_high=separation[1])
    if direction.auc is not None and area is not None:
        low, high = (min(1.0, max(0.0, direction.auc + end)) for end in area)
        direction = replace(direction, auc_low=low, auc_high=high)
    if found.cosines:
        direction = replace(direction, standard_error=np.sqrt(found.squares / len(found.cosines)))
    return replace(direction, intervals=measured)


def _angle(direction: Direction, found: _Replicates, step: FitStep, reason: str) -> Iterator[Measurement]:
    """The angle to the true direction in degrees, and the cosine of replicates with the fit."""
    angle = Measurement("angle", subject=direction.attribute, n=direction.n, unit="°")
    if not found.angles:
        yield replace(angle, status=NOT_MEASURED, message=reason)
        return
    ends = percentile_interval(found.angles, confidence=step.confidence)
    if ends is None:
        said = f"only {len(found.cosines)} of {len(found.angles)} replicates have both classes; label more rows"
        yield replace(angle, status=str(FitStatus.TOO_FEW), message=said)
        return
    median = float(np.median([a for a in found.angles if np.isfinite(a)]))
    angle = replace(angle, value=median, low=ends[0], high=ends[1])
    if ends[1] >= 90:
        said = "the error may be as long as the direction; label more rows"
        angle = replace(angle, status=UNDETERMINED, message=said)
    yield angle
    low, high = percentile_interval(found.cosines, confidence=step.confidence) or (None, None)
    stability = Measurement("stability", subject=direction.attribute, n=direction.n)
    yield replace(stability, value=float(np.mean(found.cosines)), low=low, high=high)
