"""Means of k latents, and paths as means with moving weights: variance-preserving (LOL) and Karcher. Pure functions of arrays.

LOL, "linear combinations of latents" (Bodin et al., arXiv 2408.08558), with α = Σwᵢ, β = Σwᵢ² and y = Σwᵢxᵢ:

    (1 − α/√β)·μ + y/√β

has the distribution N(μ, Σ) again when the xᵢ are independent draws of it; μ is the prior's mean, or the data's.
The Karcher mean minimises Σwᵢ·ω(m, xᵢ)² over the unit sphere. It is unique when the points lie in an open hemisphere
(Afsari 2011); beyond, one minimiser is given and the row is flagged `not_unique`.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from stages.code_sets.great_circle import angles, exponential, logarithm, units
from stages.code_sets.interpolation import Radius, radii
from stages.code_sets.path import ANTIPODAL_ANGLE, Array, Path, Rows, keys_of

TOLERANCE = 1e-12
"""Length of the last Karcher step, in radians."""
ITERATIONS = 500
SPREAD_STARTS = 8
"""Random starts, besides the keys themselves, where the mean is not unique."""
DEPENDENT_SIGMAS = 6.0


def weights_of(weights: npt.ArrayLike, keys: int) -> Array:
    """(frames, keys) float64. Raises ValueError for negative weights, other numbers of keys, or a row of zeros."""
    given = np.atleast_2d(np.asarray(weights, np.float64))
    if given.shape[1] != keys or not np.isfinite(given).all() or (given < 0).any() or not given.sum(axis=1).all():
        raise ValueError(
            f"weights must be (frames, {keys}), not negative, with a positive sum a frame; got {weights!r}"
        )
    return given


def lerp_mean(latents: npt.ArrayLike, weights: npt.ArrayLike) -> Path:
    """Σwᵢxᵢ / Σwᵢ. latents: (n, k, *shape); weights: (frames, k) → (n, frames, *shape)."""
    keys = keys_of(latents)
    w = weights_of(weights, keys.values.shape[1])
    return keys.path(np.einsum("fk,nkd->nfd", w / w.sum(axis=1, keepdims=True), keys.values), keys.statuses())


def lol(latents: npt.ArrayLike, weights: npt.ArrayLike, *, mean: npt.ArrayLike = 0.0) -> Path:
    """Variance-preserving combinations. latents: (n, k, *shape); weights: (frames, k), any scale; mean μ: 0, (*shape) or (n, *shape).

    Weight on one latent alone gives that latent exactly. Latents that are not independent draws (centred cosine of any two
    of `DEPENDENT_SIGMAS`/√d or more: a latent with itself, say) leave the shell; such rows are flagged `not_independent`.
    """
    keys = keys_of(latents)
    count, size = keys.values.shape[1:]
    mu = np.broadcast_to(np.asarray(mean, np.float64), (len(keys.values), *keys.shape)).reshape(-1, 1, size)
    values = preserving(keys.values, weights_of(weights, count), mean=mu)
    unit, _ = units(keys.values - mu)
    cosines = np.abs(np.einsum("nkd,njd->nkj", unit, unit))[:, ~np.eye(count, dtype=bool)]
    limit = min(DEPENDENT_SIGMAS / np.sqrt(size), 1 - 1e-9)
    return keys.path(values, keys.statuses(), not_independent=(cosines >= limit).any(axis=1))


def preserving(values: Array, weights: Array, *, mean: Array) -> Array:
    """LOL's formula alone. values: (n, k, d); weights: (frames, k) of any sign, none all 0; mean: (d,) or (n, 1, d) → (n, frames, d)."""
    length = np.sqrt((weights**2).sum(axis=1))
    combined = np.einsum("fk,nkd->nfd", weights / length[:, None], values)
    return np.asarray(combined + (1 - weights.sum(axis=1) / length)[None, :, None] * mean)


def karcher(latents: npt.ArrayLike, weights: npt.ArrayLike, *, radius: Radius = "linear") -> Path:
    """Karcher mean of the directions times the weighted mean of the norms. latents: (n, k, *shape); weights: (frames, k).

    Of two latents it is `slerp_radius`. `zero_norm` when a latent has no direction; `antipodal` when two are
    all there is and they are opposite, or when the mean would lie opposite to one of them, where no direction leads back. Flags: `not_unique`, `not_converged`.
    """
    keys = keys_of(latents)
    w = weights_of(weights, keys.values.shape[1])
    w = w / w.sum(axis=1, keepdims=True)
    unit, norms = units(keys.values)
    zero = (norms == 0).any(axis=1)
    points = np.where(zero[:, None, None], np.eye(1, unit.shape[2]), unit)  # any direction: the row is typed
    frames = [_karcher_frame(points, frame) for frame in w]
    mean, opposite, ambiguous, moving = (np.stack(part, axis=1) for part in zip(*frames, strict=True))
    values = mean * radii(norms, w, radius)[:, :, None]
    status = keys.statuses(antipodal=_any(opposite), zero_norm=zero)
    return keys.path(values, status, not_unique=_any(ambiguous), not_converged=_any(moving))


def in_open_hemisphere(points: Array) -> bool:
    """Whether some u has uᵀx > 0 for all points (k, d): exactly when no convex combination of them is 0."""
    # Only inner products matter, so k numbers a point are enough, however long the latents are.
    small = np.linalg.qr(points.T, mode="r")
    _, residual = nnls(np.vstack([small, np.ones(len(points))]), np.append(np.zeros(len(small)), 1.0))
    return bool(residual > 1e-9)


def _any(rows: Rows) -> Rows:
    return np.asarray(rows.any(axis=1))


def _karcher_frame(points: Array, weights: Array) -> tuple[Array, Rows, Rows, Rows]:
    """points (n, k, d), weights (k,) → mean (n, d), and which rows are opposite, ambiguous, not converged (n,)."""
    used = weights > 0
    points, weights = points[:, used], weights[used]
    start, length = units(np.einsum("k,nkd->nd", weights, points))
    mean, moving = _descend(points, weights, np.where(length[:, None] > 1e-9, start, points[:, 0]))
    # All within a right angle of the mean is a hemisphere for certain; only the rest is asked exactly.
    wide = (np.einsum("nkd,nd->nk", points, mean) <= 0).any(axis=1)
    ambiguous = np.zeros(len(points), bool)
    for row in np.flatnonzero(wide):
        ambiguous[row] = not in_open_hemisphere(points[row])
        if ambiguous[row]:
            mean[row], moving[row] = _best_of_many(points[row], weights)
    opposite = (np.pi - angles(points, mean[:, None, :]) < ANTIPODAL_ANGLE).any(axis=1)
    if points.shape[1] == 2:
        # Every great circle through two opposite points has as good a mean: as for slerp, there is nothing to choose by.
        opposite |= np.pi - angles(points[:, 0], points[:, 1]) < ANTIPODAL_ANGLE
    return mean, np.asarray(opposite), ambiguous, moving


def _descend(points: Array, weights: Array, mean: Array) -> tuple[Array, Rows]:
    """Riemannian gradient descent with step 1: the Hessian of ½ω² is at most 1 on the sphere, so it never climbs."""
    moving = np.ones(len(points), bool)
    for _ in range(ITERATIONS):
        at = np.flatnonzero(moving)
        if not len(at):
            break
        step = np.einsum("k,nkd->nd", weights, logarithm(mean[at, None, :], points[at]))
        mean[at] = exponential(mean[at], step)
        moving[at] = np.linalg.norm(step, axis=1) > TOLERANCE
    return mean, moving


def _best_of_many(points: Array, weights: Array) -> tuple[Array, bool]:
    """The lowest minimum from several starts: the keys, their mean, and fixed random directions. (d,), whether it still moves."""
    draws = np.random.default_rng(0).standard_normal((SPREAD_STARTS, points.shape[1]))
    starts = units(np.vstack([np.einsum("k,kd->d", weights, points), points, draws]))[0]
    starts = starts[np.linalg.norm(starts, axis=1) > 0.5]
    many = np.broadcast_to(points, (len(starts), *points.shape))
    means, moving = _descend(many, weights, starts)
    distance = angles(many, means[:, None, :])
    # A key that the mean lies opposite to cannot pull: such a place is no minimum.
    stuck = (np.pi - distance < ANTIPODAL_ANGLE).any(axis=1)
    best = int(np.argmin(np.where(stuck, np.inf, (weights * distance**2).sum(axis=1))))
    return means[best], bool(moving[best])
