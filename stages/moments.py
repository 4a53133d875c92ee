"""The mergeable statistic S = {n, Σz, Σzzᵀ, Σy, Σyyᵀ, Σzyᵀ}: one pass over latents z and labels y, in any order.

Kept centred, in float64, and merged as in Chan, Golub and LeVeque (1983). Invariant: any chunking and any tree of merges
give the statistic of all rows, up to rounding. A mean is kept in two parts, `origin` + `offset`, where the origin is a
number near the data: differences of means then lose no digits when the data sit far from zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.stage import PrecisionLost

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Moments:
    """Second moments of rows (z, y), z of `dim` latents and y of `labels` columns without gaps.

    `origin`, `offset`: (dim + labels,), their sum is the mean. Scatter about the mean: `zz` (dim, dim), or (dim,) when only
    its diagonal is kept; `zy` (dim, labels); `yy` (labels, labels).
    """

    n: int
    origin: Floats
    offset: Floats
    zz: Floats
    zy: Floats
    yy: Floats

    @classmethod
    def empty(cls, dim: int, *, labels: int = 0, full: bool) -> "Moments":
        """No rows yet; `full` keeps Σzzᵀ, not its diagonal alone."""
        width = dim + labels
        return cls(
            n=0,
            origin=np.zeros(width),
            offset=np.zeros(width),
            zz=np.zeros((dim, dim) if full else dim),
            zy=np.zeros((dim, labels)),
            yy=np.zeros((labels, labels)),
        )

    @classmethod
    def of(cls, z: npt.NDArray[Any], *, y: Floats | None = None, full: bool) -> "Moments":
        """The statistic of rows `z` (n, dim) with labels `y` (n, labels); all finite."""
        n, dim = z.shape
        y = np.empty((n, 0)) if y is None else y
        if n == 0:
            return cls.empty(dim, labels=y.shape[1], full=full)
        z, z_origin, z_offset = _centred(z)
        y, y_origin, y_offset = _centred(y)
        zz = z.T @ z if full else np.einsum("ij,ij->j", z, z)
        _add_scaled_square(zz, -n, z_offset)
        return cls(
            n=n,
            origin=np.concatenate([z_origin, y_origin]),
            offset=np.concatenate([z_offset, y_offset]),
            zz=zz,
            zy=z.T @ y - n * np.outer(z_offset, y_offset),
            yy=y.T @ y - n * np.outer(y_offset, y_offset),
        )

    @property
    def dim(self) -> int:
        return len(self.zz)

    @property
    def z_mean(self) -> Floats:
        return (self.origin + self.offset)[: self.dim]

    @property
    def y_mean(self) -> Floats:
        return (self.origin + self.offset)[self.dim :]

    @property
    def z_variance(self) -> Floats:
        """Of each latent coordinate, divided by n − 1; zeros for fewer than two rows."""
        return np.maximum(self.squares, 0) / max(self.n - 1, 1)

    def absorb(self, other: "Moments") -> None:
        """Adds `other`'s rows to this statistic, in place."""
        if other.n == 0:
            return
        if self.n == 0:
            self.origin = other.origin.copy()
        n, d = self.n + other.n, self.dim
        delta = (other.origin - self.origin) + (other.offset - self.offset)
        weight = self.n * other.n / n
        dz, dy = delta[:d], delta[d:]
        self.zz += other.zz
        _add_scaled_square(self.zz, weight, dz)
        self.zy += other.zy + weight * np.outer(dz, dy)
        self.yy += other.yy + weight * np.outer(dy, dy)
        self.offset += delta * (other.n / n)
        self.n = n

    def merged(self, other: "Moments") -> "Moments":
        """The statistic of both sets of rows; neither is changed (they may lie in shared, read-only memory)."""
        both = self.copy()
        both.absorb(other)
        return both

    def without(self, other: "Moments") -> tuple["Moments", float]:
        """The statistic without `other`'s rows, all of which are in it, and how many times rounding errors have grown.

        Raises PrecisionLost when they would have grown without bound: a coordinate that is constant in the rows left.
        """
        if other.n == 0:
            return self.copy(), 1.0
        n, d = self.n - other.n, self.dim
        if n <= 0:
            return _nothing_left(n, Moments.empty(d, labels=len(self.yy), full=self.zz.ndim == 2))
        delta = (other.origin - self.origin) + (other.offset - self.offset)
        weight = other.n * self.n / n
        dz, dy = delta[:d], delta[d:]
        rest = Moments(
            n,
            self.origin.copy(),
            self.offset - delta * (other.n / n),
            self.zz - other.zz - weight * (np.outer(dz, dz) if self.zz.ndim == 2 else dz**2),
            self.zy - other.zy - weight * np.outer(dz, dy),
            self.yy - other.yy - weight * np.outer(dy, dy),
        )
        return rest, max(_growth(self.squares, rest.squares), _growth(np.diagonal(self.yy), np.diagonal(rest.yy)))

    @property
    def squares(self) -> Floats:
        """The diagonal of Σzzᵀ, (dim,)."""
        return np.diagonal(self.zz) if self.zz.ndim == 2 else self.zz

    def copy(self) -> "Moments":
        parts = (self.origin, self.offset, self.zz, self.zy, self.yy)
        return Moments(self.n, *(part.copy() for part in parts))

    def latents_only(self) -> "Moments":
        """The same rows without their labels."""
        return self.with_labels([])

    def with_labels(self, labels: Sequence[int]) -> "Moments":
        """The same rows with some of their labels, in this order; `zz` is shared."""
        kept = [*range(self.dim), *(self.dim + i for i in labels)]
        zy, yy = self.zy[:, list(labels)], self.yy[np.ix_(labels, labels)]
        return replace(self, origin=self.origin[kept], offset=self.offset[kept], zy=zy, yy=yy)


@dataclass(slots=True)
class GroupMoments:
    """Count, mean and per-coordinate scatter of z in several groups of rows, which may overlap.

    `n` (groups,); `origin` (dim,) is shared; `offset` and `scatter` (groups, dim). A group without rows has zeros.
    """

    n: npt.NDArray[np.int64]
    origin: Floats
    offset: Floats
    scatter: Floats

    @classmethod
    def empty(cls, dim: int, *, groups: int) -> "GroupMoments":
        return cls(np.zeros(groups, np.int64), np.zeros(dim), np.zeros((groups, dim)), np.zeros((groups, dim)))

    @classmethod
    def of(cls, z: npt.NDArray[Any], member: npt.NDArray[np.bool_]) -> "GroupMoments":
        """Rows `z` (n, dim) where `member` (n, groups) says which groups a row is in."""
        if len(z) == 0:
            return cls.empty(z.shape[1], groups=member.shape[1])
        z, origin, _ = _centred(z)
        weights = member.astype(np.float64)
        n = member.sum(0)
        offset = (weights.T @ z) / np.maximum(n, 1)[:, None]
        scatter = weights.T @ (z * z) - n[:, None] * offset**2
        return cls(n, origin, offset, np.maximum(scatter, 0))

    @property
    def mean(self) -> Floats:
        """(groups, dim); meaningless where n is 0."""
        return self.origin + self.offset

    def absorb(self, other: "GroupMoments") -> None:
        """Adds `other`'s rows, group by group, in place."""
        if not self.n.any():
            self.origin = other.origin.copy()
        n = self.n + other.n
        share = (other.n / np.maximum(n, 1))[:, None]
        delta = (other.origin - self.origin) + other.offset - self.offset
        # A group that is empty on one side has no mean there: `share` of 0 or 1 must not let it in.
        self.scatter += other.scatter + delta**2 * (self.n[:, None] * share)
        self.offset += delta * share
        self.n = n

    def merged(self, other: "GroupMoments") -> "GroupMoments":
        """The statistic of both sets of rows; neither is changed."""
        both = GroupMoments(self.n.copy(), self.origin.copy(), self.offset.copy(), self.scatter.copy())
        both.absorb(other)
        return both

    def without(self, other: "GroupMoments") -> tuple["GroupMoments", float]:
        """As `Moments.without`, group by group."""
        n = self.n - other.n
        if (n < 0).any():
            raise PrecisionLost("more rows go than there are")
        left = (n > 0)[:, None]
        rows = np.maximum(n, 1)[:, None]
        delta = np.where(other.n[:, None] > 0, (other.origin - self.origin) + other.offset - self.offset, 0.0)
        scatter = self.scatter - other.scatter - delta**2 * (other.n * self.n)[:, None] / rows
        offset = self.offset - delta * (other.n[:, None] / rows)
        rest = GroupMoments(n, self.origin.copy(), np.where(left, offset, 0.0), np.where(left, scatter, 0.0))
        changed = (n > 1) & (other.n > 0)
        growth = _growth(self.scatter[changed], rest.scatter[changed])
        rest.scatter[n == 1] = 0.0
        return rest, growth

    def pick(self, group: int) -> "GroupMoments":
        """One group, as a statistic of one group."""
        g = slice(group, group + 1)
        return GroupMoments(self.n[g], self.origin, self.offset[g], self.scatter[g])


_SQUARE_VALUES = 2**20


def _add_scaled_square(zz: Floats, scale: float, d: Floats) -> None:
    """zz += scale·d dᵀ, or its diagonal, a few rows at a time: at d = 4,096 the whole square would be 134 MB more."""
    if zz.ndim == 1:
        zz += scale * d**2
        return
    step = max(1, _SQUARE_VALUES // len(d))
    for start in range(0, len(d), step):
        rows = slice(start, start + step)
        zz[rows] += np.outer(scale * d[rows], d)


def _growth(before: Floats, after: Floats) -> float:
    """The largest ratio of sums of squares: rounding errors are of the larger one's size, and stay when it shrinks."""
    before, after = before[before > 0], after[before > 0]
    if (after <= 0).any():
        raise PrecisionLost("a coordinate may be constant in the rows that are left")
    return max(1.0, float((before / after).max(initial=1.0)))


def _nothing_left(n: int, empty: Moments) -> tuple[Moments, float]:
    if n < 0:
        raise PrecisionLost("more rows go than there are")
    return empty, 1.0


def _centred(x: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """(x − origin, origin, mean of x − origin) in float64: the origin is the mean up to rounding, the offset that rounding."""
    wide = x.astype(np.float64)
    ones = np.ones(len(x))
    origin = (ones @ wide) / len(x)
    wide -= origin
    return wide, origin, (ones @ wide) / len(x)
