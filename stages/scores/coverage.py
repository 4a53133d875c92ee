"""How one set of points covers another, by k nearest neighbours: precision, recall, density, coverage.

A set's manifold is the union of balls round its points, each reaching to the point's k-th nearest neighbour in its own set
(Kynkäänniemi et al. 2019, precision and recall; Naeem et al. 2020, density and coverage). Distances are exact, in float64,
made a block at a time: memory is a block of BLOCK_VALUES numbers, never n × n.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BLOCK_VALUES = 2**22
NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class Coverage:
    """What k-NN balls say of `candidate` points against `reference` points, point by point; the scores are their means.

    `balls_entered` (candidates,): in how many balls of the reference a candidate lies. `reached` (references,): whether a
    reference point lies in any ball of the candidates. `covered` (references,): whether its own ball holds a candidate.
    """

    k: int
    balls_entered: npt.NDArray[np.int64]
    reached: Bools
    covered: Bools

    @property
    def precision(self) -> float:
        """Share of candidates on the reference's manifold, in [0, 1]. One outlier of the reference can inflate it."""
        return float((self.balls_entered > 0).mean())

    @property
    def recall(self) -> float:
        """Share of reference points on the candidates' manifold, in [0, 1]."""
        return float(self.reached.mean())

    @property
    def density(self) -> float:
        """Mean number of reference balls a candidate lies in, over k: 1 for equal distributions, more for clumps."""
        return float(self.balls_entered.mean() / self.k)

    @property
    def coverage(self) -> float:
        """Share of reference balls that hold a candidate, in [0, 1]. A hole in the candidates lowers it."""
        return float(self.covered.mean())


def coverage_of(reference: npt.NDArray[Any], candidate: npt.NDArray[Any], *, k: int = NEIGHBOURS) -> Coverage:
    """Compares `candidate` (m, d) with `reference` (n, d), all finite. ValueError unless both hold more than k rows."""
    if min(len(reference), len(candidate)) <= k:
        raise ValueError(
            f"{len(reference)} reference and {len(candidate)} candidate rows; both must be more than k = {k}"
        )
    # Distances do not change when both sets move together, and lose no digits near the origin.
    centre = reference.mean(0, dtype=np.float64)
    real, made = reference - centre, candidate - centre
    real_reach, made_reach = squared_reach(real, k=k), squared_reach(made, k=k)
    entered = np.empty(len(made), np.int64)
    reached, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, distances in squared_distances(made, real):
        inside = distances <= real_reach
        entered[rows] = inside.sum(1)
        covered |= inside.any(0)
        reached |= (distances <= made_reach[rows, None]).any(0)
    return Coverage(k, entered, reached, covered)


def squared_reach(points: npt.NDArray[Any], *, k: int) -> Floats:
    """Squared distance of every point (n, d) to its k-th nearest other point, (n,). Needs n > k."""
    reach = np.empty(len(points))
    for rows, distances in squared_distances(points, points):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        reach[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return reach


def squared_distances(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
    """(rows of a, their squared distances to all rows of b), block by block.

    Points should lie round the origin. Equal points have distance 0 exactly: what is left of rounding is cut off.
    """
    wide = np.asarray(b, np.float64)
    b_square = np.einsum("ij,ij->i", wide, wide)
    noise = 4 * np.finfo(np.float64).eps * max(wide.shape[1], 1)
    for start in range(0, len(a), rows := max(1, BLOCK_VALUES // len(wide))):
        block = np.asarray(a[start : start + rows], np.float64)
        scale = np.einsum("ij,ij->i", block, block)[:, None] + b_square
        distances = scale - 2 * (block @ wide.T)
        distances[distances <= noise * scale] = 0
        yield slice(start, start + len(block)), distances
