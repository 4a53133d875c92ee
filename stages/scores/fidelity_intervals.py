"""Intervals of a set's scores against the reference, or the typed reason why there is none.

Fréchet distance, precision, recall, density, coverage: delete-a-group jackknife over both sets, which share no image (`grouped`).
A picture is dealt with the first image it is made of, so all frames of one image leave together. The kernel distance has
its own, from blocks, or from pairs of different groups.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.moments import Floats
from stages.scores.coverage_without import SHARES, Balls, shares_without
from stages.scores.frechet import gaussian_distance, root
from stages.scores.grouped import (
    FEWEST_GROUPS,
    GROUPS,
    JACKKNIFE_FEATURES,
    Grouped,
    Groups,
    Normals,
    jackknife_interval,
)
from stages.scores.interval import Interval, NoInterval

NUMBERS = np.arange(GROUPS)


@dataclass(frozen=True, eq=False)
class Rows:
    """The sampled features (m, F) of a set round the reference's mean, in groups (m,), of `n` rows in all."""

    features: Floats
    groups: Groups
    n: int
    k: int

    @cached_property
    def grouped(self) -> Grouped:
        return Grouped(self.features, self.groups)

    @cached_property
    def normals(self) -> Normals:
        return self.grouped.normals_without(NUMBERS)

    @cached_property
    def roots(self) -> Floats:
        return root(self.normals.covariance)

    @cached_property
    def balls(self) -> Balls | None:
        """None where too few rows are left without a group."""
        left = len(self.features) - self.grouped.largest
        return Balls.of(self.features, self.groups, NUMBERS, k=self.k) if left > self.k else None


def frechet_interval(value: float, reference: Rows, candidate: Rows, *, confidence: float = 0.95) -> Interval:
    """About `value`, of all rows. Where only some are sampled, their spread shrinks as the root of the larger share sampled."""
    if reference.features.shape[1] > JACKKNIFE_FEATURES:
        return Interval(why=NoInterval.TOO_WIDE)
    if not (reference.grouped.full_rank and candidate.grouped.full_rank):
        return Interval(why=NoInterval.FEWER_THAN_FEATURES)
    if _few_groups(reference, candidate):
        return Interval(why=NoInterval.TOO_FEW_GROUPS)
    here, there = reference.normals, candidate.normals
    without = gaussian_distance(here.mean - there.mean, here.covariance, reference.roots, there.covariance)[1:]
    sampled = max(len(one.features) / one.n for one in (reference, candidate))
    low, high = jackknife_interval(value, without * np.sqrt(min(sampled, 1.0)), confidence)
    return Interval(None if low is None else max(low, 0.0), high)


def share_intervals(
    values: dict[str, float], reference: Rows, candidate: Rows, *, confidence: float = 0.95, alone: bool = True
) -> dict[str, Interval]:
    """Of precision, recall, density and coverage, all of the sampled rows.

    Where no group changes a share of exactly 0 or 1, its bound is that of Clopper and Pearson for the rows of the smaller set; none
    where rows do not stand `alone`: how many say something of their own is not known.
    """
    real, made = reference.balls, candidate.balls
    if real is None or made is None:
        return dict.fromkeys(SHARES, Interval(why=NoInterval.TOO_FEW))
    if _few_groups(reference, candidate):
        return dict.fromkeys(SHARES, Interval(why=NoInterval.TOO_FEW_GROUPS))
    without = shares_without(real, made, k=reference.k)
    n = min(len(reference.features), len(candidate.features)) if alone else None
    return {name: _share(name, values[name], without[name], n, confidence) for name in SHARES}


def _share(name: str, value: float, without: Floats, n: int | None, confidence: float) -> Interval:
    low, high = jackknife_interval(value, without, confidence)
    assert low is not None and high is not None, "there are groups enough"
    top = np.inf if name == "density" else 1.0
    low, high = max(low, 0.0), min(high, top)
    # Density is no share: a bound on how many pictures lie in balls says not in how many.
    if low == high and (name == "density" or n is None):
        return Interval(why=NoInterval.NO_SPREAD)
    if low == high and n is not None and value in (0.0, 1.0):
        bound = (0.5 * (1 - confidence)) ** (1 / n)
        return Interval(bound, 1.0) if value else Interval(0.0, 1 - bound)
    return Interval(low, high)


def _few_groups(*sets: Rows) -> bool:
    return min(len(one.grouped.numbers) for one in sets) < FEWEST_GROUPS
