"""Intervals of a fit by Poisson bootstrap (stages/bootstrap.py): of the direction itself, its separation and its held-out AUC.

One more pass keeps weighted sums of every replicate; memory is replicates × features × d, so many replicates take several
passes of a bounded size. Features are what the estimate is linear in: the classes of each column, or the labels.

The angle θ between the fitted v̂ = v + e and the true v has sin θ = ‖e⊥‖/‖v̂‖ exactly, e⊥ the error across v. Replicates' errors
v̂ᵣ − v̂ are drawn like e, so ‖v̂‖ with their length across v̂ gives the interval of θ. The angle between v̂ᵣ and v̂ does not: v̂ is
longer than v by its own noise, so replicates lie closer to v̂ than v does; it is reported as stability.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.measurements import Measurement
from schemas.steps import FitStep
from stages.attributes import Bools, Column, Floats
from stages.bootstrap import percentile_interval, poisson_weights
from stages.directions.auc import bins_of
from stages.directions.closed_forms import least_squares
from stages.directions.direction import Direction, FitStatus
from stages.directions.fitted import Fitted
from stages.moments import Moments
from stages.rows import Block, read_blocks
from stages.stage import Passes

BINS = 2**10
"""Of the scores: only differences between replicates' areas are read from them."""
MAX_BYTES = 2**26
"""Of a pass's sums."""
RESAMPLED = ("mean_difference", "ols")
"""Estimators whose direction is recomputed in every replicate."""
UNDETERMINED = "undetermined"
"""The error may be as long as the direction itself: at this n it could point anywhere."""


@dataclass(slots=True)
class Resampled:
    """Sums of every weighting, the first of which is 1 for every row: `ff` (weightings, F, F) Σw f fᵀ, `fz` (weightings, F, d) Σw f zᵀ.

    Of judged rows: `scores` (weightings, columns, 2 classes, 3) Σw, Σw s, Σw s², and `histogram` (columns, 2·BINS, weightings),
    a column's positives first.
    """

    ff: Floats
    fz: Floats
    scores: Floats
    histogram: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Resampling:
    """A reduce stage. `members`: columns whose labels make a regression's features; None: classes of every column do.

    No features at all when `directions` is False. `trial` (columns, d), `centre` (d,), `scale` (columns,) as in `Scoring`.
    """

    columns: tuple[Column, ...]
    members: tuple[int, ...] | None
    directions: bool
    trial: Floats
    centre: Floats
    scale: Floats
    holdout: float
    first: int
    last: int

    @property
    def features(self) -> int:
        if not self.directions:
            return 0
        return 2 * len(self.columns) if self.members is None else 1 + len(self.members)

    def start(self) -> Resampled:
        r, f, c = self.last - self.first + 1, self.features, len(self.columns)
        return Resampled(
            np.zeros((r, f, f)),
            np.zeros((r, f, len(self.centre))),
            np.zeros((r, c, 2, 3)),
            np.zeros((c, 2 * BINS, r), np.int32),
        )

    def add(self, state: Resampled, batch: pa.RecordBatch) -> Resampled:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            weights = np.ones((len(block), self.last - self.first + 1), np.uint8)
            weights[:, 1:] = poisson_weights(block.groups, range(self.first, self.last))
            z = block.latents - self.centre
            if self.directions:
                f = self._features(block)
                for r, w in enumerate(weights.T):
                    weighted = (f * w[:, None]).T
                    state.ff[r] += weighted @ f
                    state.fz[r] += weighted @ z
            judged = np.flatnonzero(block.held_out) if self.holdout else np.arange(len(block))
            self._judge(state, block, z[judged], judged, weights[judged])
        return state

    def merge(self, a: Resampled, b: Resampled) -> Resampled:
        return Resampled(a.ff + b.ff, a.fz + b.fz, a.scores + b.scores, a.histogram + b.histogram)

    def _features(self, block: Block) -> Floats:
        positive = block.values > 0.5
        if self.members is None:
            classes = np.stack([block.known & positive, block.known & ~positive], axis=2)
            return classes.reshape(len(block), -1).astype(np.float64)
        members = list(self.members)
        complete = block.known[:, members].all(axis=1, keepdims=True)
        return np.hstack([complete, block.values[:, members] * complete])

    def _judge(
        self, state: Resampled, block: Block, z: Floats, rows: npt.NDArray[np.int64], weights: npt.NDArray[np.uint8]
    ) -> None:
        if not len(rows):
            return
        scores = (self.trial @ z.T) / self.scale[:, None]
        known, positive = block.known[rows].T, block.values[rows].T > 0.5
        wide = weights.astype(np.float64)
        for k, chosen in enumerate((known & positive, known & ~positive)):
            for power in range(3):
                state.scores[:, :, k, power] += ((chosen * scores**power) @ wide).T
        bins = (bins_of(scores) >> 4) + np.where(positive, 0, BINS)
        for c in np.flatnonzero(self.trial.any(axis=1)):
            _count(state.histogram[c], bins[c], known[c], weights)


def _count(
    histogram: npt.NDArray[np.int32], bins: npt.NDArray[np.int64], known: Bools, weights: npt.NDArray[np.uint8]
) -> None:
    """Adds the weights (rows, weightings) of known rows to their bins."""
    rows = np.flatnonzero(known)
    if not len(rows):
        return
    rows = rows[np.argsort(bins[rows], kind="stable")]
    filled, starts = np.unique(bins[rows], return_index=True)
    histogram[filled] += np.add.reduceat(weights[rows], starts, axis=0, dtype=np.int32)


def resampled(step: FitStep, fitted: Fitted, directions: Sequence[Direction]) -> Passes[Any, list[Direction]]:
    """The directions with intervals by bootstrap, in their own fields and in `intervals`; needs `step.bootstrap`."""
    assert step.bootstrap is not None
    if all(d.vector is None for d in directions):
        return list(directions)
    stage = _stage(step, fitted)
    per_replicate = 8 * stage.features * (stage.features + len(stage.centre)) + 4 * len(stage.columns) * 2 * BINS
    chunk = max(1, MAX_BYTES // per_replicate)
    found = [_Replicates() for _ in directions]
    for first, last in pairwise([*range(0, step.bootstrap, chunk), step.bootstrap]):
        part = replace(stage, first=first, last=last)
        state: Resampled = yield part
        for i, one in enumerate(found):
            whole, *areas = _areas(state.histogram[i])
            one.areas.extend(areas - whole)
            one.separations.extend(_separations(state.scores[1:, i]))
        if stage.directions:
            for r in range(1, len(state.fz)):
                for one, direction, drawn in zip(found, directions, _drawn(part, state, r, step), strict=True):
                    one.take(direction, drawn)
    return [_told(d, one, step) if d.vector is not None else d for d, one in zip(directions, found, strict=True)]


def _stage(step: FitStep, fitted: Fitted) -> Resampling:
    judged = fitted.trial if step.holdout else fitted.stored
    trial = np.zeros((len(fitted.columns), fitted.everything.dim))
    for row, estimate, column in zip(trial, judged, fitted.columns, strict=True):
        if estimate.status is FitStatus.OK and estimate.coefficients is not None and column.binary:
            row[:] = estimate.coefficients / np.linalg.norm(estimate.coefficients)
    scale = np.sqrt(trial**2 @ fitted.everything.z_variance)
    members = tuple(i for i, e in enumerate(fitted.stored) if e.coefficients is not None)
    return Resampling(
        columns=fitted.columns,
        members=members if step.estimator == "ols" else None,
        directions=step.estimator in RESAMPLED,
        trial=trial,
        centre=fitted.everything.z_mean,
        scale=np.where(scale > 0, scale, 1.0),
        holdout=step.holdout,
        first=0,
        last=0,
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
        """Coefficients (d,) of one replicate, None where its weights left too little to estimate from."""
        if direction.vector is None or direction.raw_norm is None:
            return
        if drawn is None or not drawn.any():
            self.angles.append(np.nan)
            return
        error = drawn - direction.vector * direction.raw_norm
        across = error - (error @ direction.vector) * direction.vector
        self.angles.append(float(np.degrees(np.arcsin(min(1.0, float(np.linalg.norm(across)) / direction.raw_norm)))))
        self.cosines.append(float(drawn @ direction.vector / np.linalg.norm(drawn)))
        self.squares = self.squares + error**2


def _drawn(stage: Resampling, state: Resampled, r: int, step: FitStep) -> list[Floats | None]:
    """Every column's coefficients in weighting `r`."""
    n, sums = np.diagonal(state.ff[r]), state.fz[r]
    if stage.members is None:
        pairs = [(2 * i, 2 * i + 1) for i in range(len(stage.columns))]
        return [sums[p] / n[p] - sums[q] / n[q] if n[p] and n[q] else None for p, q in pairs]
    members = [stage.columns[m] for m in stage.members]
    if n[0] < 2:
        return [None] * len(stage.columns)
    solved = least_squares(_moments(state, r), members, l2=step.l2 or 0.0)
    coefficients = {m: e.coefficients for m, e in zip(stage.members, solved, strict=True)}
    return [coefficients.get(i) for i in range(len(stage.columns))]


def _moments(state: Resampled, r: int) -> Moments:
    """The weighted rows as a statistic, about the pass's centre. Σzzᵀ is not kept: it would serve standard errors alone."""
    ff, fz = state.ff[r], state.fz[r]
    n, y, z = ff[0, 0], ff[0, 1:], fz[0]
    return Moments(
        n=round(n),
        origin=np.zeros(len(z) + len(y)),
        offset=np.concatenate([z, y]) / n,
        zz=np.zeros(len(z)),
        zy=(fz[1:] - np.outer(y, z) / n).T,
        yy=ff[1:, 1:] - np.outer(y, y) / n,
    )


def _separations(sums: Floats) -> Floats:
    """(weightings,) distance of the class means in pooled σ; sums: (weightings, 2 classes, 3)."""
    n, total, squares = sums[..., 0], sums[..., 1], sums[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        pooled = (squares - n * mean**2).sum(1) / (n.sum(1) - 2)
        return np.where(n.min(1) >= 2, (mean[:, 0] - mean[:, 1]) / np.sqrt(pooled), np.nan)


def _areas(histogram: npt.NDArray[np.int32]) -> Floats:
    """(weightings,) areas under the ROC curve, ties halved; NaN without rows of both classes."""
    positive, negative = histogram[:BINS].astype(np.float64), histogram[BINS:].astype(np.float64)
    below = np.cumsum(negative, axis=0) - negative / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * below).sum(0) / (positive.sum(0) * negative.sum(0)))


def _told(direction: Direction, found: _Replicates, step: FitStep) -> Direction:
    """Bootstrap intervals in the place of those that take rows to be independent."""
    separation = percentile_interval(found.separations, confidence=step.confidence)
    area = percentile_interval(found.areas, confidence=step.confidence)
    measured = tuple(_angle(direction, found, step)) if found.angles else ()
    if direction.separation is not None and separation is not None:
        direction = replace(direction, separation_low=separation[0], separation_high=separation[1])
    if direction.auc is not None and area is not None:
        low, high = (min(1.0, max(0.0, direction.auc + end)) for end in area)
        direction = replace(direction, auc_low=low, auc_high=high)
    if found.cosines:
        direction = replace(direction, standard_error=np.sqrt(found.squares / len(found.cosines)))
    return replace(direction, intervals=measured)


def _angle(direction: Direction, found: _Replicates, step: FitStep) -> Iterator[Measurement]:
    """The angle to the true direction in degrees, and the cosine of replicates with the fit."""
    angle = Measurement("angle", subject=direction.attribute, n=direction.n, unit="°")
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
