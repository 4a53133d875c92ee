"""The power planner of estimators without a closed noise law that holds on real latents: it fits a sample, and asks the fit.

A bounded sample of rows (by hash of the id or group) is fitted as the fit step would, in memory. Its bootstrap
(stages/directions/resampling.py) tells the typical error across the direction: balanced cells of unequal size, variance
inflation by other attributes and the whitened geometry of LDA and logistic regression are all in it, groups of rows too. It falls as
1/n: tan²θ = 1/cos² − 1 ∝ 1/n, with classes and other attributes as they are now. The truth is where the estimator ends up with
endless rows. Ridge with a penalty by cross-validation has none: its bias moves with n, so it is not planned for.

The check knows nothing of that error: errors of fits on disjoint rows are independent, so the cosine of two of them is that of
each with the truth, squared. Where there are too few rows a coefficient for a bootstrap by one step, the plan is that curve
alone. Leaving out one bucket of rows after the other gives the interval (jackknife).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import t as student

from schemas.steps import FitStep
from stages.attributes import Bools, Column
from stages.directions.closed_forms import class_status
from stages.directions.direction import Direction, Evidence, FitStatus
from stages.directions.fit import fit
from stages.directions.power_law import NO_SIGNAL, Basis, Check, Plan, told
from stages.row_hash import Hashes, salted
from stages.rows import GROUPS, Latents, read_blocks
from stages.sample import Sample, SampledRows
from stages.stage import Passes

PlannedEstimator = Literal["ols", "balanced_mean_difference", "lda", "logistic", "svm"]
WITH_CONTROLS: tuple[PlannedEstimator, ...] = ("ols", "balanced_mean_difference")
"""Estimators that look at other attributes as well."""
BUCKETS = 8
REPLICATES = 100
MAX_ROWS = 2**14
ROWS_A_COEFFICIENT = 10
"""With fewer, a classifier's error shrinks faster than 1/n, so a plan of fewer rows is too hopeful."""


@dataclass(slots=True)
class Gathered:
    """State of the pass: what is known of all rows, and a sample of those that can be fitted."""

    sample: Sample
    rows: int = 0
    non_finite: int = 0
    n_positive: int = 0
    n_negative: int = 0


@dataclass(frozen=True)
class Gathering:
    """A reduce stage. Columns of two classes; a row that lacks one of them is not fitted."""

    columns: tuple[Column, ...]
    dim: int

    def start(self) -> Gathered:
        sample = Sample.empty(self.dim, columns=len(self.columns))
        return Gathered(replace(sample, capacity=min(sample.capacity, MAX_ROWS)))

    def add(self, state: Gathered, batch: pa.RecordBatch) -> Gathered:
        for block in read_blocks(batch, self.columns, holdout=0):
            complete = block.known.all(axis=1)
            positive = block.values > 0.5
            state.rows += len(block)
            state.non_finite += block.non_finite
            state.n_positive += int((complete & positive[:, 0]).sum())
            state.n_negative += int((complete & ~positive[:, 0]).sum())
            rows = SampledRows(salted(block.groups, "sample"), block.held_out, block.latents, positive.astype(np.int8))
            state.sample.offer(rows.pick(np.flatnonzero(complete)))
        return state

    def merge(self, a: Gathered, b: Gathered) -> Gathered:
        return Gathered(
            a.sample.merged(b.sample),
            a.rows + b.rows,
            a.non_finite + b.non_finite,
            a.n_positive + b.n_positive,
            a.n_negative + b.n_negative,
        )


def plan_fits(
    columns: tuple[Column, ...],
    *,
    dim: int,
    estimator: PlannedEstimator,
    cosine: float,
    confidence: float = 0.95,
) -> Passes[Any, Plan]:
    """One pass over batches with `id`, `latent` (dim numbers) and `labels`. The first column is planned for, the others are the
    attributes it is fitted with. All have two classes; `cosine` in (0, 1).
    """
    gathered: Gathered = yield Gathering(columns, dim)
    plan = Plan(
        attribute=columns[0].name,
        target_cosine=cosine,
        status=str(class_status(Evidence.of_classes(gathered.n_positive, gathered.n_negative))),
        message="",
        rows=gathered.rows,
        non_finite=gathered.non_finite,
        confidence=confidence,
        n_positive=gathered.n_positive,
        n_negative=gathered.n_negative,
        estimator=estimator,
        basis=str(Basis.BOOTSTRAP),
        controls=tuple(column.name for column in columns[1:]),
    )
    if plan.status != FitStatus.OK:
        return plan
    return _planned(plan, _Rows.of(gathered.sample, columns, estimator))


@dataclass(frozen=True)
class _Rows:
    """Sampled rows: latents (n, d), positive (n, columns), groups and buckets (n,)."""

    columns: tuple[Column, ...]
    estimator: PlannedEstimator
    latents: Latents
    positive: Bools
    groups: Hashes
    bucket: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sample: Sample, columns: tuple[Column, ...], estimator: PlannedEstimator) -> "_Rows":
        rows = sample.rows()
        if len(rows) == sample.capacity:  # the last group may be there in part, and in which depends on the rows' order
            rows = rows.pick(np.flatnonzero(rows.hashes < rows.hashes.max()))
        rows = rows.pick(np.lexsort((rows.latents[:, 0], rows.hashes)))
        bucket = (salted(rows.hashes, "power") % np.uint64(BUCKETS)).astype(np.int64)
        return cls(columns, estimator, rows.latents, rows.classes > 0, rows.hashes, bucket)

    def fitted(self, chosen: Bools, *, replicates: int | None = None) -> Direction:
        """What the fit step makes of the chosen rows."""
        names = [column.name for column in self.columns]
        together = names if self.estimator == "ols" else names[:1]
        step = FitStep(
            name="power",
            estimator=self.estimator,
            attributes=tuple(together),
            controls=tuple(names[1:]) if self.estimator == "balanced_mean_difference" else None,
            holdout=0,
            bootstrap=replicates,
        )
        batch = self._batch(np.flatnonzero(chosen), names)
        passes = fit(
            step, dict.fromkeys(together, "bool"), dim=self.latents.shape[1], labels=dict.fromkeys(names, "bool")
        )
        try:
            stage = next(passes)
            while True:
                stage = passes.send(stage.add(stage.start(), batch))
        except StopIteration as finished:
            direction: Direction = finished.value[0]
            return direction

    def _batch(self, rows: npt.NDArray[np.int64], names: list[str]) -> pa.RecordBatch:
        flat = pa.array(np.ascontiguousarray(self.latents[rows]).reshape(-1))
        labels = pa.StructArray.from_arrays([pa.array(y) for y in self.positive[rows].T], names=names)
        return pa.record_batch(
            {
                "id": pa.array([str(row) for row in rows.tolist()], pa.string()),
                "latent": pa.FixedSizeListArray.from_arrays(flat, self.latents.shape[1]),
                "labels": labels,
                GROUPS: pa.array(self.groups[rows]),
            }
        )


@dataclass(frozen=True, slots=True)
class _Subsamples:
    """Fits on disjoint subsamples of one size: mean rows of each class, and the cosines of every two of them."""

    n: tuple[float, float]
    fits: int
    cosines: npt.NDArray[np.float64]

    @property
    def odds(self) -> float:
        """tan²θ of one of them with the truth; infinite where they do not agree more than chance."""
        mean = float(self.cosines.mean())
        return 1 / mean - 1 if mean > 0 else math.inf


def _planned(plan: Plan, rows: _Rows) -> Plan:
    everything = np.ones(len(rows.bucket), bool)
    whole = rows.fitted(everything, replicates=REPLICATES)
    if whole.vector is None:
        return replace(plan, status=whole.status, message=whole.message or "")
    curve = list(_curve(rows))
    odds = _odds(whole)
    if odds is None:
        odds = _extrapolated(curve, len(rows.bucket))
        plan = replace(plan, basis=str(Basis.SUBSAMPLING))
    checks = tuple(_check(part, odds, len(rows.bucket)) for part in curve) if odds is not None else ()
    said = [whole.message or ""]
    if odds is None:
        return replace(plan, status=str(FitStatus.TOO_FEW), message=whole.intervals[0].message)
    if not math.isfinite(odds):
        said = ["the fit's error may be as long as the direction itself; label more rows first"]
        return replace(plan, status=NO_SIGNAL, message=said[0])
    total = plan.n_positive + plan.n_negative
    share, wanted = plan.n_positive / total, plan.target_cosine**-2 - 1
    by_class = 2 * share * (1 - share)  # equal classes do with less: noise goes as 1/(n·share·(1 − share))
    in_all = odds * len(rows.bucket) / wanted
    low, high = _interval(rows, odds, plan.confidence) if plan.basis == Basis.BOOTSTRAP else (None, None)
    separation = whole.separation if whole.separation and whole.separation > 0 else None
    coefficients = rows.latents.shape[1] + 1
    if plan.estimator not in WITH_CONTROLS and in_all < ROWS_A_COEFFICIENT * coefficients:
        said.append(
            f"{math.ceil(in_all):,} rows are too few for {coefficients:,} coefficients to follow the law; take more"
        )
    said.append(told(checks))
    return replace(
        plan,
        message="; ".join(part for part in said if part),
        separation=separation,
        effective_dimension=odds * separation**2 * len(rows.bucket) * share * (1 - share) if separation else None,
        cosine_now=1 / math.sqrt(1 + odds * len(rows.bucket) / total),
        # A class without a label has no direction, however little the fit errs.
        per_class=max(1, math.ceil(in_all * by_class)),
        per_class_low=None if low is None else max(1, math.ceil(in_all * by_class * low)),
        per_class_high=None if high is None else max(1, math.ceil(in_all * by_class * high)),
        in_all=max(2, math.ceil(in_all)),
        checks=checks,
    )


def _odds(direction: Direction) -> float | None:
    """tan²θ of a fit with the truth, by its bootstrap; infinite where its error may be as long as itself; None if not measured."""
    angle = next((m for m in direction.intervals if m.metric == "angle"), None)
    if angle is None or angle.value is None:
        return None
    return math.tan(math.radians(angle.value)) ** 2 if angle.value < 90 else math.inf


def _curve(rows: _Rows) -> Iterator[_Subsamples]:
    """Fits on 1, 2 and 4 of the buckets; sizes at which a subsample cannot be fitted are left out."""
    for size in (1, 2, 4):
        parts = [rows.bucket // size == part for part in range(BUCKETS // size)]
        directions = [rows.fitted(part) for part in parts if part.any()]
        vectors = [d.vector for d in directions if d.vector is not None]
        if len(vectors) == BUCKETS // size:
            cosines = np.array([a @ b for a, b in combinations(vectors, 2)])
            n = np.mean([(d.n_positive or 0, d.n_negative or 0) for d in directions], axis=0)
            yield _Subsamples((float(n[0]), float(n[1])), len(vectors), cosines)


def _extrapolated(curve: list[_Subsamples], rows: int) -> float | None:
    """tan²θ of a fit on all sampled rows, from subsamples of at least a quarter of them, as 1/n."""
    scaled = [part.odds * sum(part.n) / rows for part in curve[-2:]]
    return float(np.mean(scaled)) if scaled else None


def _check(part: _Subsamples, odds: float, rows: int) -> Check:
    cosines = np.sqrt(np.maximum(part.cosines, 0))
    measured = 1 / math.sqrt(1 + part.odds)
    return Check(
        n_positive=part.n[0],
        n_negative=part.n[1],
        subsamples=part.fits,
        predicted=1 / math.sqrt(1 + odds * rows / sum(part.n)),
        measured=measured,
        low=float(cosines.min()),
        high=float(cosines.max()),
        error=_error(part, measured),
    )


def _error(part: _Subsamples, measured: float) -> float | None:
    """Standard error of the root of the mean cosine, by leaving out one fit after the other: pairs share fits."""
    if part.fits < 3 or measured == 0:
        return None
    pairs = np.array(list(combinations(range(part.fits), 2)))
    left = np.array([part.cosines[(pairs != i).all(axis=1)].mean() for i in range(part.fits)])
    squared = (part.fits - 1) / part.fits * float(((left - left.mean()) ** 2).sum())
    return math.sqrt(squared) / (2 * measured)


def _interval(rows: _Rows, odds: float, confidence: float) -> tuple[float | None, float | None]:
    """Ends of the number of labels as multiples of it, from a delete-one-bucket jackknife of 1/tan²θ, which is near normal."""
    left = [rows.bucket != b for b in range(BUCKETS) if (rows.bucket == b).any()]
    found = [_odds(rows.fitted(part, replicates=REPLICATES)) for part in left]
    ratios = np.array(
        [part.sum() and 1 / (o * part.sum() / len(part)) for o, part in zip(found, left, strict=True) if o]
    )
    if len(ratios) < BUCKETS:
        return None, None
    error = math.sqrt((BUCKETS - 1) / BUCKETS * float(((ratios - ratios.mean()) ** 2).sum()))
    reach, ratio = float(student.ppf((1 + confidence) / 2, BUCKETS - 1)) * error, 1 / odds
    return ratio / (ratio + reach), ratio / (ratio - reach) if ratio > reach else None
