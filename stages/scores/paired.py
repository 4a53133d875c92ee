"""Fréchet and kernel distance of pictures from those they were made of: the same images before and after an edit.

Row i of both sets is one image. An edit of nothing has distance 0 from what it was made of, at any n, and both sets share
their images, so far fewer do than for two sets of strangers; the numbers do not compare with those of the fidelity step, whose
sets are of different images. The kernel distance leaves out the pairs of an image with itself: a U-statistic, unbiased,
and so at times below 0.

Intervals: delete-a-group jackknife (Kott 2001). Images are dealt into groups by a hash, those that belong together into one;
each distance is made again without one group, and t of (groups − 1) degrees times the spread gives the interval.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.moments import Floats
from stages.scores.frechet import gaussian_distance, root
from stages.scores.kernel_distance import kernel

GROUPS = 20
FEWEST_GROUPS = 10
"""From fewer an interval would be a guess."""
KERNEL_ROWS = 1000
"""At most: the kernel is of all pairs."""
JACKKNIFE_FEATURES = 512
"""Of wider features the Fréchet distance has no interval: it would be an eigenproblem for every group of every set."""


@dataclass(frozen=True, slots=True)
class Distance:
    """With its interval where enough groups make one. `value` None: fewer images than a covariance of the features asks for."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, eq=False)
class _Normals:
    """Means (k, F) and covariances (k, F, F) of several sets of images."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, eq=False)
class Unedited:
    """What sets of edited pictures are held against. `features` (n, F); `groups` (n,) numbers of the groups they are dealt into."""

    features: Floats
    groups: npt.NDArray[np.integer]

    def frechet(self, edited: Floats, *, confidence: float = 0.95) -> Distance:
        """Of features (n, F) of the same images. Needs more images than features, for the covariance to have full rank."""
        n, count = self.features.shape
        if n <= count + 1:
            return Distance(None, None, None, n)
        here, there = self._normals, self._normals_of(edited)
        values = gaussian_distance(here.mean - there.mean, here.covariance, self._roots, there.covariance)
        low, high = _interval(float(values[0]), values[1:], confidence)
        return Distance(float(values[0]), None if low is None else max(low, 0.0), high, n)

    def kernel(self, edited: Floats, *, confidence: float = 0.95) -> Distance:
        """Of the first KERNEL_ROWS images."""
        n = min(len(self.features), KERNEL_ROWS)
        if n < 2:
            return Distance(None, None, None, n)
        own, there = self.features[:n], edited[:n]
        across = kernel(own, there)
        pairs = self._kernel + kernel(there, there) - across - across.T
        np.fill_diagonal(pairs, 0.0)
        numbers, dealt = np.unique(self.groups[:n], return_inverse=True)
        member = np.eye(len(numbers))[dealt]
        between = member.T @ pairs @ member
        total, left = between.sum(), n - member.sum(axis=0)
        gone = 2 * between.sum(axis=1) - np.diagonal(between)
        value = float(total / (n * (n - 1)))
        if (left < 2).any():
            return Distance(value, None, None, n)
        low, high = _interval(value, (total - gone) / (left * (left - 1)), confidence)
        return Distance(value, low, high, n)

    def _normals_of(self, features: Floats) -> _Normals:
        """Of all images, then without each group, from sums of each; of all alone where that would be too much, or too few."""
        n, count = features.shape
        mean = features.mean(axis=0)
        centred = features - mean
        squares = centred.T @ centred
        numbers, sizes = np.unique(self.groups, return_counts=True)
        if count > JACKKNIFE_FEATURES or n - sizes.max() <= count + 1:
            return _Normals(mean[None], squares[None] / (n - 1))
        left = (n - sizes)[:, None]
        parts = [centred[self.groups == g] for g in numbers]
        moved = -np.array([part.sum(axis=0) for part in parts]) / left
        scatter = (
            squares - np.array([part.T @ part for part in parts]) - left[..., None] * moved[:, :, None] * moved[:, None]
        )
        means = np.concatenate([mean[None], mean + moved])
        return _Normals(means, np.concatenate([squares[None] / (n - 1), scatter / (left - 1)[..., None]]))

    @cached_property
    def _normals(self) -> _Normals:
        return self._normals_of(self.features)

    @cached_property
    def _roots(self) -> Floats:
        return root(self._normals.covariance)

    @cached_property
    def _kernel(self) -> Floats:
        rows = self.features[:KERNEL_ROWS]
        return kernel(rows, rows)


def _interval(value: float, without: Floats, confidence: float) -> tuple[float | None, float | None]:
    count = len(without)
    if count < FEWEST_GROUPS:
        return None, None
    spread = without - without.mean()
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt((count - 1) / count * (spread @ spread)))
    return value - reach, value + reach
