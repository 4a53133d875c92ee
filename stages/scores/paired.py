"""Fréchet and kernel distance of pictures from those they were made of: the same images before and after an edit.

Row i of both sets is one image. An edit of nothing has distance 0 from what it was made of, at any n, and both sets share
their images, so far fewer do than for two sets of strangers; the numbers do not compare with those of the fidelity step, whose
sets are of different images. The kernel distance leaves out the pairs of an image with itself: a U-statistic, unbiased,
and so at times below 0.

Intervals: delete-a-group jackknife (`grouped`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stages.moments import Floats
from stages.scores.frechet import gaussian_distance
from stages.scores.grouped import Grouped, jackknife_interval
from stages.scores.kernel_distance import kernel

KERNEL_ROWS = 1000
"""At most: the kernel is of all pairs."""


@dataclass(frozen=True, slots=True)
class Distance:
    """With its interval where enough groups make one. `value` None: fewer images than a covariance of the features asks for."""

    value: float | None
    low: float | None
    high: float | None
    n: int


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
        here, there = self._images.normals, Grouped(edited, self.groups).normals
        values = gaussian_distance(here.mean - there.mean, here.covariance, self._images.roots, there.covariance)
        low, high = jackknife_interval(float(values[0]), values[1:], confidence)
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
        low, high = jackknife_interval(value, (total - gone) / (left * (left - 1)), confidence)
        return Distance(value, low, high, n)

    @cached_property
    def _images(self) -> Grouped:
        return Grouped(self.features, self.groups)

    @cached_property
    def _kernel(self) -> Floats:
        rows = self.features[:KERNEL_ROWS]
        return kernel(rows, rows)
