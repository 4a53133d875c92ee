"""The power planner of a difference of means: its noise in closed form, from one pass and a light one.

The mean of n rows is off by a noise of squared length tr Σ/n, so with classes v apart, in any covariance,
cos(v̂, v) ≈ ‖v‖/√(‖v‖² + tr Σ₊/n₊ + tr Σ₋/n₋). In units of σ, the spread along v, that is the law of latent-science §3,
δ/√(δ² + d₊/n₊ + d₋/n₋), with separation δ = ‖v‖/σ and effective dimensions d = tr Σ/σ²; isotropic noise has d = the
dimension. ‖v̂‖² is too long by the same noise, and that is taken off. Rows are dealt into buckets by the hash of their id or group:
fits on fewer buckets show whether the law holds on this table, and leaving one out gives the interval (jackknife).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.directions.auc import normal_quantile
from stages.directions.closed_forms import class_status
from stages.directions.direction import Evidence, FitStatus
from stages.directions.power_law import NO_SIGNAL, NO_SPREAD, Check, Plan, labels_needed, predicted_cosine, told
from stages.directions.scoring import NEGATIVE, NO_SPREAD_SHARE, POSITIVE, Scores, Scoring
from stages.moments import GroupMoments
from stages.row_hash import salted
from stages.rows import read_blocks
from stages.stage import Passes

BUCKETS = 32


@dataclass(slots=True)
class Dealt:
    """State of the pass: the groups are bucket 0's positives and negatives, bucket 1's, …; `rows` have finite latents."""

    groups: GroupMoments
    rows: int = 0
    non_finite: int = 0


@dataclass(frozen=True)
class Dealing:
    """A reduce stage: class statistics of one two-class column, bucket by bucket."""

    column: Column
    dim: int

    def start(self) -> Dealt:
        return Dealt(GroupMoments.empty(self.dim, groups=2 * BUCKETS))

    def add(self, state: Dealt, batch: pa.RecordBatch) -> Dealt:
        for block in read_blocks(batch, (self.column,), holdout=0):
            bucket = salted(block.groups, "power") % np.uint64(BUCKETS)
            group = 2 * bucket.astype(np.int64) + (block.values[:, 0] <= 0.5)
            member = (group[:, None] == np.arange(2 * BUCKETS)) & block.known
            state.groups.absorb(GroupMoments.of(block.latents, member))
            state.rows += len(block)
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Dealt, b: Dealt) -> Dealt:
        return Dealt(a.groups.merged(b.groups), a.rows + b.rows, a.non_finite + b.non_finite)


def plan_means(column: Column, *, dim: int, cosine: float, confidence: float = 0.95) -> Passes[Any, Plan]:
    """Two passes over batches with `id`, `latent` (dim numbers) and `labels`. `column` has two classes; `cosine` in (0, 1)."""
    dealt: Dealt = yield Dealing(column, dim)
    buckets = _Buckets.of(dealt.groups)
    everything = buckets.pick(np.ones(BUCKETS, bool))
    n_positive, n_negative = (int(k) for k in everything.n)
    plan = Plan(
        attribute=column.name,
        target_cosine=cosine,
        status=str(class_status(Evidence.of_classes(n_positive, n_negative))),
        message="",
        rows=dealt.rows,
        non_finite=dealt.non_finite,
        confidence=confidence,
        n_positive=n_positive,
        n_negative=n_negative,
    )
    if plan.status != FitStatus.OK:
        return plan
    if not everything.difference.any():
        return replace(plan, status=str(FitStatus.ZERO_NORM), message="both classes have the same mean")
    if everything.trace.sum() <= NO_SPREAD_SHARE * float(everything.difference @ everything.difference):
        one = "the rows of each class are all alike, so one label of each gives the direction exactly"
        return replace(plan, status=NO_SPREAD, message=one)
    checks = tuple(_checks(buckets, everything))
    if everything.signal <= 0:
        return replace(plan, status=NO_SIGNAL, message=_chance(plan, everything), checks=checks)
    spread = yield from _spread(column, buckets, everything)
    return _planned(replace(plan, checks=checks), buckets, everything, spread)


@dataclass(frozen=True, slots=True)
class _Classes:
    """Rows (2,), means (2, d) and tr Σ (2,) of the two classes, positives first."""

    n: npt.NDArray[np.int64]
    mean: Floats
    trace: Floats

    @property
    def difference(self) -> Floats:
        return np.asarray(self.mean[0] - self.mean[1])

    @property
    def middle(self) -> Floats:
        return np.asarray(self.mean.mean(0))

    @property
    def noise(self) -> float:
        """Expected squared length of the difference's error."""
        return float((self.trace / self.n).sum())

    @property
    def signal(self) -> float:
        """Squared distance of the true means without what noise adds; may be negative."""
        return float(self.difference @ self.difference) - self.noise


@dataclass(frozen=True, slots=True)
class _Buckets:
    """`n` (buckets, 2), `offset` from the `origin` (buckets, 2, d), `scatter` summed over coordinates (buckets, 2)."""

    n: npt.NDArray[np.int64]
    origin: Floats
    offset: Floats
    scatter: Floats

    @classmethod
    def of(cls, groups: GroupMoments) -> "_Buckets":
        n = groups.n.reshape(BUCKETS, 2)
        return cls(n, groups.origin, groups.offset.reshape(BUCKETS, 2, -1), groups.scatter.sum(1).reshape(BUCKETS, 2))

    def pick(self, chosen: npt.NDArray[np.bool_]) -> _Classes:
        """The classes of all rows in the chosen buckets; tr Σ is 0 for a class with fewer than two rows."""
        n, offset = self.n[chosen], self.offset[chosen]
        total = n.sum(0)
        mean = np.einsum("bc,bcd->cd", n, offset) / np.maximum(total, 1)[:, None]
        between = np.einsum("bc,bcd->c", n, (offset - mean) ** 2)
        trace = (self.scatter[chosen].sum(0) + between) / np.maximum(total - 1, 1)
        return _Classes(total, self.origin + mean, trace)


def _spread(column: Column, buckets: _Buckets, everything: _Classes) -> Passes[Any, float | None]:
    """σ of a class along the true difference v; None when that cannot be told.

    Along the fitted difference it would be that of the noise, where noise is long. The differences a and b of two halves of
    the rows have independent noise, so aᵀΣb is vᵀΣv on average; it comes from the spreads along a + b and a − b.
    """
    even = np.arange(BUCKETS) % 2 == 0
    halves = buckets.pick(even), buckets.pick(~even)
    if min(int(half.n.min()) for half in halves) < 1:
        return None
    a, b = (half.difference for half in halves)
    sides = np.stack([a + b, a - b])
    lengths = np.linalg.norm(sides, axis=1)
    units = sides / np.where(lengths > 0, lengths, 1)[:, None]
    scale = np.full(2, math.sqrt(float(everything.trace.sum())) or 1.0)
    scores: Scores = yield Scoring((column, column), units, units, everything.middle, scale, holdout=0.0)
    variances = [_within(sums) * (length * s) ** 2 for sums, length, s in zip(scores.sums, lengths, scale, strict=True)]
    along = (variances[0] - variances[1]) / 4
    return math.sqrt(along / everything.signal) if along > 0 else None


def _within(sums: Floats) -> float:
    """Pooled variance of the classes; `sums` as in `Scores`."""
    scatter = sum(float(squares - total**2 / n) for n, total, squares in sums[[POSITIVE, NEGATIVE]])
    return max(scatter, 0.0) / (float(sums[[POSITIVE, NEGATIVE], 0].sum()) - 2)


def _planned(plan: Plan, buckets: _Buckets, everything: _Classes, spread: float | None) -> Plan:
    length = math.sqrt(everything.signal)
    traces = (float(everything.trace[0]), float(everything.trace[1]))  # the law holds in any unit
    share = plan.n_positive / (plan.n_positive + plan.n_negative)
    low, high = _interval(buckets, everything, plan)
    return replace(
        plan,
        message=told(plan.checks),
        separation=length / spread if spread else None,
        effective_dimension=sum(traces) / 2 / spread**2 if spread else None,
        cosine_now=predicted_cosine(length, traces, (plan.n_positive, plan.n_negative)),
        per_class=math.ceil(labels_needed(length, traces, cosine=plan.target_cosine) / 2),
        per_class_low=low,
        per_class_high=high,
        in_all=labels_needed(length, traces, cosine=plan.target_cosine, share=share),
    )


def _chance(plan: Plan, everything: _Classes) -> str:
    return (
        f"the means of {plan.n_positive:,} and {plan.n_negative:,} rows are no further apart than chance puts them "
        f"(distance {np.linalg.norm(everything.difference):.3g}, expected of noise alone {math.sqrt(everything.noise):.3g}); "
        "label more rows first"
    )


def _interval(buckets: _Buckets, everything: _Classes, plan: Plan) -> tuple[int | None, int | None]:
    """Labels per class from a delete-one-bucket jackknife of signal ÷ noise of one label a class, which is near normal."""
    rest = [buckets.pick(np.arange(BUCKETS) != b) for b in range(BUCKETS)]
    if any(left.n.min() < 2 or not left.trace.any() for left in rest):
        return None, None
    ratios = np.array([left.signal / left.trace.sum() for left in rest])
    error = math.sqrt((BUCKETS - 1) / BUCKETS * float(((ratios - ratios.mean()) ** 2).sum()))
    ratio, reach = everything.signal / float(everything.trace.sum()), normal_quantile(plan.confidence) * error
    odds = plan.target_cosine**-2 - 1
    low = math.ceil(1 / ((ratio + reach) * odds))
    return low, math.ceil(1 / ((ratio - reach) * odds)) if ratio > reach else None


def _checks(buckets: _Buckets, everything: _Classes) -> Iterator[Check]:
    """Disjoint subsamples of 1, 2, 4, … buckets. The fit of all rows is noisy too, and shares its rows with the subsample's:
    E[v̂ₛ·v̂] = E‖v̂‖², so their cosine is ‖v̂‖/√(‖v̂‖² + tₛ − t), t the squared noise of each.
    """
    whole, size = everything.difference, 1
    squared = float(whole @ whole)
    while size < BUCKETS:
        parts = [buckets.pick(np.arange(BUCKETS) // size == i) for i in range(BUCKETS // size)]
        if min(part.n.min() for part in parts) >= 2:
            noise = np.array([(everything.trace / part.n).sum() for part in parts])
            predicted = np.sqrt(squared / (squared + np.maximum(noise - everything.noise, 0)))
            measured = [
                float(part.difference @ whole / math.sqrt(squared * (part.difference @ part.difference)))
                for part in parts
                if part.difference.any()
            ]
            if measured:
                n = np.mean([part.n for part in parts], axis=0)
                yield Check(
                    n_positive=float(n[0]),
                    n_negative=float(n[1]),
                    subsamples=len(measured),
                    predicted=float(predicted.mean()),
                    measured=float(np.mean(measured)),
                    low=min(measured),
                    high=max(measured),
                    error=float(np.std(measured, ddof=1)) / math.sqrt(len(measured)) if len(measured) > 1 else None,
                )
        size *= 2
