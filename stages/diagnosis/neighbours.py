"""What nearest neighbours tell: how many dimensions the codes fill, where a decoder would be asked for what it never saw.

Intrinsic dimension: TwoNN (Facco et al. 2017). Precision and recall: Kynkäänniemi et al. 2019; density and coverage: Naeem et
al. 2020, between the codes of images and draws of a reference (the prior, or a Gaussian fitted to the codes). Precision low:
draws fall where no image is, into holes. Recall low: images lie where no draw falls. All on a bounded sample, exactly.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.diagnosis.aggregate import squared_distances, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROWS = 512


def nearest(queries: Floats, points: Floats, k: int, *, same: bool = False) -> tuple[Floats, Ints]:
    """Distances and places (len(queries), k) of the k nearest `points`, nearest first. `same`: queries are the points, and
    none is its own neighbour."""
    distances = np.empty((len(queries), k))
    places = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), ROWS):
        block = squared_distances(queries[start : start + ROWS], points)
        if same:
            block[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        found = np.argpartition(block, k - 1, axis=1)[:, :k]
        held = np.take_along_axis(block, found, axis=1)
        order = np.argsort(held, axis=1, kind="stable")
        distances[start : start + ROWS] = np.sqrt(np.take_along_axis(held, order, axis=1))
        places[start : start + ROWS] = np.take_along_axis(found, order, axis=1)
    return distances, places


@dataclass(frozen=True)
class IntrinsicDimension:
    """TwoNN's estimate with its asymptotic 95 % interval; `duplicates` are rows that lie on their nearest neighbour."""

    value: float
    low: float
    high: float
    n: int
    duplicates: int


def two_nn(points: Floats, *, discard: float = 0.1) -> IntrinsicDimension | None:
    """The slope of −log(1 − F(μ)) on log μ through 0, μ = r₂/r₁, without the largest `discard` of the ratios.

    None with fewer than 20 different points.
    """
    points = points - points.mean(0)
    distances, _ = nearest(points, points, 2, same=True)
    first, second = distances.T
    # Distances come from products, which leave 1e-8 of the norm where there is none.
    apart = first > 1e-6 * np.linalg.norm(points, axis=1)
    n = int(apart.sum())
    if n < 20:
        return None
    logs = np.sort(np.log(second[apart] / first[apart]))
    kept = int(n * (1 - discard))
    heights = -np.log1p(-np.arange(1, kept + 1) / n)
    logs = logs[:kept]
    if not (logs @ logs) > 0:
        return None
    value = float(logs @ heights / (logs @ logs))
    half = 1.96 * value / math.sqrt(kept)
    return IntrinsicDimension(value, max(value - half, 0.0), value + half, n, len(points) - n)


def participation_ratio(covariance: Floats) -> float:
    """(Σλ)²/Σλ²: how many directions carry the variance. 0 without any."""
    square = float((covariance * covariance).sum())
    return float(np.trace(covariance)) ** 2 / square if square else 0.0


@dataclass(frozen=True)
class Overlap:
    """Precision, recall, density, coverage of draws against codes; each share of `n` rows. `gap`: distance of every draw to
    its nearest code over that code's own k-NN radius: above 1 it lies in no code's ball."""

    precision: float
    recall: float
    density: float
    coverage: float
    n: int
    gap: Floats
    nearest_code: Ints

    def interval(self, share: float) -> tuple[float, float]:
        return wilson(share * self.n, self.n)


def overlap(codes: Floats, draws: Floats, *, k: int) -> Overlap:
    """Of equal numbers of rows (n, d); k > 0 neighbours make a ball."""
    radius = nearest(codes, codes, k, same=True)[0][:, -1]
    draw_radius = nearest(draws, draws, k, same=True)[0][:, -1]
    n, m = len(codes), len(draws)
    inside_code = np.zeros(m, np.int64)
    covered, reached = np.zeros(n, bool), np.zeros(n, bool)
    gap, place = np.full(m, np.inf), np.zeros(m, np.int64)
    for start in range(0, m, ROWS):
        part = slice(start, start + ROWS)
        distances = np.sqrt(squared_distances(draws[part], codes))
        balls = distances <= radius
        inside_code[part] = balls.sum(1)
        covered |= balls.any(0)
        reached |= (distances <= draw_radius[part, None]).any(0)
        closest = distances.argmin(1)
        place[part] = closest
        gap[part] = distances[np.arange(len(closest)), closest] / np.maximum(radius[closest], 1e-300)
    return Overlap(
        precision=float((inside_code > 0).mean()),
        recall=float(reached.mean()),
        density=float(inside_code.mean() / k),
        coverage=float(covered.mean()),
        n=min(n, m),
        gap=gap,
        nearest_code=place,
    )


@dataclass(frozen=True)
class CoverageMap:
    """Codes and draws counted in a grid over the codes' two main axes. `codes`, `draws` (size, size), rows from below.

    A cell is a hole where at least `FEWEST_DRAWS` draws fall and fewer codes than a tenth of them.
    """

    codes: Ints
    draws: Ints
    edges: tuple[Floats, Floats]
    explained: float

    @property
    def holes(self) -> npt.NDArray[np.bool_]:
        return np.asarray(is_hole(self.codes, self.draws))


FEWEST_DRAWS = 12
"""Below it chance alone leaves cells at the rim without codes: with 5, every other map of two like sets had a hole; with 12, 1 in 50."""


def is_hole(codes: Any, draws: Any) -> Any:
    """Whether cells with so many codes and draws are holes: one rule for the number and for the drawing."""
    return (draws >= FEWEST_DRAWS) & (codes * 10 < draws)


def coverage_map(codes: Floats, draws: Floats, *, size: int | None = None) -> CoverageMap:
    """Both sets seen along the two main axes of the codes; one axis repeated where there is only one.

    `size` is the cells a side; by itself at least 8 and at most 24, with four codes a cell between.
    """
    size = size or min(max(math.isqrt(len(codes)) // 2, 8), 24)
    centre = codes.mean(0)
    values, vectors = np.linalg.eigh(np.cov(codes.T, ddof=1).reshape(codes.shape[1], -1))
    axes = vectors[:, ::-1][:, [0, min(1, codes.shape[1] - 1)]]
    seen, drawn = (codes - centre) @ axes, (draws - centre) @ axes
    edges = []
    for a in range(2):
        both = np.concatenate([seen[:, a], drawn[:, a]])
        low, high = np.quantile(both, [0.001, 0.999])
        edges.append(np.linspace(low, max(high, low + 1e-9), size + 1))
    counts = [np.histogram2d(p[:, 1], p[:, 0], bins=(edges[1], edges[0]))[0].astype(np.int64) for p in (seen, drawn)]
    explained = float(values[::-1][:2].sum() / max(values.sum(), 1e-300))
    return CoverageMap(counts[0], counts[1], (edges[0], edges[1]), min(explained, 1.0))
