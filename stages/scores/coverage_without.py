"""Precision, recall, density and coverage without each group of the rows of both sets: what their intervals are made of.

Exact: every number is that of `coverage_of` on the rows that are left, whose balls have grown where a neighbour has gone. Only pairs
as near as the largest of a point's balls are looked at one by one, so twenty groups cost little more than one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.scores.coverage import squared_distances
from stages.scores.grouped import Groups

Floats = npt.NDArray[np.float64]
SHARES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Balls:
    """`reach` (numbers, n): squared radius of each ball of the points (n, d) without each group of `numbers`.

    A group without points changes nothing.
    """

    points: Floats
    groups: Groups
    numbers: Groups
    reach: Floats

    @classmethod
    def of(cls, points: Floats, groups: Groups, numbers: Groups, *, k: int) -> "Balls":
        """Points round the origin. ValueError where fewer than k + 1 points are left without a group."""
        if min((groups != g).sum() for g in numbers) <= k:
            raise ValueError(f"without a group no more than k = {k} points are left")
        near = min(len(points) - 1, 4 * k + 16)
        reach = np.empty((len(numbers), len(points)))
        for rows, distances in squared_distances(points, points):
            distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
            nearest = np.argpartition(distances, near - 1, axis=1)[:, :near]
            apart = np.take_along_axis(distances, nearest, 1)
            order = np.argsort(apart, axis=1, kind="stable")
            apart, of = np.take_along_axis(apart, order, 1), groups[np.take_along_axis(nearest, order, 1)]
            for i, number in enumerate(numbers):
                rank = np.cumsum(of != number, axis=1)
                reach[i, rows] = np.take_along_axis(apart, (rank >= k).argmax(1)[:, None], 1)[:, 0]
                few = np.flatnonzero(rank[:, -1] < k)  # one group is all about: look further
                if len(few):
                    rest = distances[few][:, groups != number]
                    reach[i, rows.start + few] = np.partition(rest, k - 1, axis=1)[:, k - 1]
        return cls(points, groups, numbers, reach)


def shares_without(reference: Balls, candidate: Balls, *, k: int) -> dict[str, Floats]:
    """Each of SHARES without each group, (numbers,), of two sets whose balls are of the same groups."""
    numbers, count = reference.numbers, len(reference.numbers)
    assert np.array_equal(numbers, candidate.numbers), "both sets must be without the same groups"
    n, m = len(reference.points), len(candidate.points)
    entered = np.zeros((count, m), np.int64)
    reached, covered = np.zeros((count, n), bool), np.zeros((count, n), bool)
    widest, widest_made = reference.reach.max(0), candidate.reach.max(0)
    for rows, distances in squared_distances(candidate.points, reference.points):
        near, of = np.nonzero((distances <= widest) | (distances <= widest_made[rows, None]))
        apart, made = distances[near, of], near + rows.start
        for i, number in enumerate(numbers):
            left = (reference.groups[of] != number) & (candidate.groups[made] != number)
            held = left & (apart <= reference.reach[i, of])
            entered[i] += np.bincount(made[held], minlength=m)
            covered[i, of[held]] = True
            reached[i, of[left & (apart <= candidate.reach[i, made])]] = True
    inside = entered > 0
    rows_left = np.array([(candidate.groups != g).sum() for g in numbers])
    real_left = np.array([(reference.groups != g).sum() for g in numbers])
    found = (inside.sum(1) / rows_left, reached.sum(1) / real_left, entered.sum(1) / rows_left / k)
    return dict(zip(SHARES, (*found, covered.sum(1) / real_left), strict=True))
