"""Trust regions: how far a latent may move before it leaves where the data (or the prior) are.

    typicality    t = (‖z‖² − d)/√(2d), −L ≤ t ≤ L     the shell of N(0, I), L in standard deviations of ‖z‖²
    mahalanobis   t = (D² − d)/√(2d) ≤ L               D² = (z−μ)ᵀΣ⁻¹(z−μ), χ² with d degrees of freedom for Gaussian data
    neighbours    r_k(z) ≤ L·q                         distance to the k-th nearest of a sample of the data, q the 99th
                                                       percentile of the sample's own

A step z → z′ that ends outside is shortened to z + κ(z′ − z), κ the first place where it leaves, in closed form for the first two, by
search for the third. A row that starts outside may move as long as it does not get further out. (latent-science §1, §4.)
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import TrustRegion
from stages.code_sets.gaussian import Gaussian
from stages.scores.coverage import squared_reach

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CLIPPED = "clipped"
ATYPICAL = "atypical"
GRID, BISECTIONS = 8, 16
QUANTILE = 0.99
DEFAULT_LIMIT = 3.0


class Region(Protocol):
    def outside(self, z: Array) -> Bools:
        """Which rows of z (n, d) lie outside, (n,)."""

    def reach(self, z: Array, unit: Array, length: Array) -> Array:
        """How far rows z (n, d) may go along `unit` (n, d), up to `length` (n,): (n,) in [0, length]."""


@dataclass(frozen=True, eq=False)
class Trust:
    """A region, and whether codes outside are pulled to its edge or only flagged. Picklable."""

    region: Region
    clip: bool

    def hold(self, z: Array, codes: Array) -> tuple[Array, dict[str, Bools]]:
        """z (n, d) and the codes made of it (n, frames, d) → codes inside, and flags, each (n, frames).

        Codes that are not finite come back as they are, without a flag: `codes_batch` flags them.
        """
        if not self.clip:
            finite = np.isfinite(codes).all(axis=2)
            far = np.zeros(codes.shape[:2], np.bool_)
            far[finite] = self.region.outside(codes[finite])
            return codes, {ATYPICAL: far}
        moved = codes - z[:, None, :]
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(moved).max(axis=2)
            going = np.isfinite(largest) & (largest > 0)
            # Divided by the largest number first, so that squares of huge steps stay finite.
            scaled = moved / np.where(going, largest, 1.0)[:, :, None]
            norm = np.sqrt((scaled**2).sum(2))
        rows, frames = np.nonzero(going)
        unit = scaled[rows, frames] / norm[rows, frames, None]
        with np.errstate(over="ignore"):
            length = norm[rows, frames] * largest[rows, frames]
        reach = self.region.reach(z[rows], unit, length)
        stops = reach < length
        held, clipped = codes.copy(), np.zeros(codes.shape[:2], np.bool_)
        at = rows[stops], frames[stops]
        held[at] = z[rows[stops]] + reach[stops, None] * unit[stops]
        clipped[at] = True
        return held, {CLIPPED: clipped}


def held(trust: Trust | None, z: Array, codes: Array) -> tuple[Array, dict[str, Bools]]:
    """`trust.hold`; without a region the codes as they are."""
    return (codes, {}) if trust is None else trust.hold(z, codes)


def shell(spec: LatentSpec) -> Trust | None:
    """What flags codes when nobody asked: the shell, for spaces whose rows are declared to lie near it."""
    return Trust(Shell(spec.dim, DEFAULT_LIMIT), clip=False) if spec.centred_shell else None


@dataclass(frozen=True)
class Shell:
    """Within `limit` standard deviations of the shell of N(0, I): |‖z‖² − d| ≤ limit·√(2d)."""

    dim: int
    limit: float

    def outside(self, z: Array) -> Bools:
        return np.asarray(np.abs(typicality(z)) > self.limit)

    def reach(self, z: Array, unit: Array, length: Array) -> Array:
        square, wide = _squares(z), self.limit * np.sqrt(2 * self.dim)
        along = np.einsum("nd,nd->n", z, unit)
        outer = _leaves(square, along, np.maximum(self.dim + wide, square))
        return np.minimum(length, np.minimum(outer, _enters(square, along, np.minimum(self.dim - wide, square))))


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """Within `limit` standard deviations of a χ² of the data's own squared distance from their mean, in their covariance."""

    mean: Array
    inverse_root: Array
    limit: float

    def outside(self, z: Array) -> Bools:
        return np.asarray(typicality(self._whitened(z - self.mean)) > self.limit)

    def reach(self, z: Array, unit: Array, length: Array) -> Array:
        start, step = self._whitened(z - self.mean), self._whitened(unit)
        pace = np.sqrt(_squares(step))
        square, along = _squares(start), np.einsum("nd,nd->n", start, step) / pace
        dim = z.shape[1]
        edge = np.maximum(dim + self.limit * np.sqrt(2 * dim), square)
        return np.minimum(length, _leaves(square, along, edge) / pace)

    def _whitened(self, rows: Array) -> Array:
        if self.inverse_root.ndim == 1:
            return np.asarray(rows * self.inverse_root)
        return np.stack([self.inverse_root @ row for row in rows]) if len(rows) else rows


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Within `radius` of the k-th nearest row of `sample` (m, d), kept less its `centre` (d,), with its rows' `squares` (m,).

    The edge is searched on a grid of 8 points a step, then bisected: a gap narrower than an eighth of the step can be jumped.
    """

    sample: Array
    squares: Array
    centre: Array
    radius: float
    k: int

    @classmethod
    def of(cls, latents: npt.NDArray[np.float32], *, k: int, limit: float, at: str) -> "Neighbourhood":
        """`latents` (m, d): the sample. Raises JobError when it has not more than k rows, or they coincide."""
        if len(latents) <= k:
            raise JobError.one(f"{at}.trust.k", k, f"the data have {len(latents)} rows.", "use a smaller k")
        centre = latents.mean(0, dtype=np.float64)
        sample = latents - centre
        own = float(np.quantile(np.sqrt(squared_reach(sample, k=k)), QUANTILE))
        if not own > 0:
            raise JobError.one(f"{at}.trust.by", "neighbours", "the data's rows coincide.", "use by: mahalanobis")
        return cls(sample, _squares(sample), centre, own * limit, k)

    def outside(self, z: Array) -> Bools:
        return np.asarray(self._distance(z) > self.radius)

    def reach(self, z: Array, unit: Array, length: Array) -> Array:
        edge = np.maximum(self.radius, self._distance(z))
        # No point further than this can be inside: no need to look for the edge beyond it, however long the step.
        furthest = float(np.sqrt(self.squares.max())) + edge
        bound = np.minimum(length, furthest + np.sqrt(_squares(z - self.centre)))
        inside, beyond = np.zeros(len(z)), length.copy()
        found = np.zeros(len(z), np.bool_)
        for step in range(1, GRID + 1):
            at = bound * (step / GRID)
            out = ~found & (self._distance(z + at[:, None] * unit) > edge)
            beyond[out] = at[out]
            found |= out
            inside[~found] = at[~found]
        inside[~found] = length[~found]
        for _ in range(BISECTIONS):
            middle = (inside + beyond) / 2
            out = self._distance(z + middle[:, None] * unit) > edge
            beyond, inside = np.where(found & out, middle, beyond), np.where(found & ~out, middle, inside)
        return inside

    def _distance(self, z: Array) -> Array:
        found = np.empty(len(z))
        for i, row in enumerate(z - self.centre):  # by rows: the last bits must not depend on the batch
            squares = self.squares + row @ row - 2 * (self.sample @ row)
            found[i] = np.sqrt(max(np.partition(squares, self.k - 1)[self.k - 1], 0.0))
        return found


def typicality(z: Array) -> Array:
    """(‖z‖² − d)/√(2d) of rows (…, d): standard deviations off the shell of N(0, I)."""
    dim = z.shape[-1]
    return np.asarray((_squares(z) - dim) / np.sqrt(2 * dim))


def ellipsoid(gaussian: Gaussian, trust: TrustRegion, *, at: str) -> Ellipsoid:
    """Raises JobError when the data do not fill the space."""
    if gaussian.singular:
        fix = "use covariance: diagonal or by: neighbours, or encode more images"
        reason = "the data's covariance is singular: in some directions nothing is known of their spread."
        raise JobError.one(f"{at}.trust.covariance", trust.covariance, reason, fix)
    return Ellipsoid(gaussian.mean, gaussian.inverse_root(), trust.reach)


def _squares(rows: Array) -> Array:
    return np.asarray(np.einsum("...d,...d->...", rows, rows))


def _leaves(square: Array, along: Array, edge: Array) -> Array:
    """The α ≥ 0 where ‖z + αu‖² = edge for the last time: square = ‖z‖² ≤ edge, along = z·u, ‖u‖ = 1."""
    root = np.sqrt(along**2 + (edge - square))
    # Written so that nothing cancels when z already points along u.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(along > 0, (edge - square) / (along + root), root - along)


def _enters(square: Array, along: Array, edge: Array) -> Array:
    """The first α ≥ 0 where ‖z + αu‖² falls to `edge` ≤ square; infinity where it never does."""
    rest = along**2 - (square - edge)
    meets = (along < 0) & (rest > 0) & (edge > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(meets, (square - edge) / (np.sqrt(np.maximum(rest, 0)) - along), np.inf)
