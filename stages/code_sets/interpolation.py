"""Paths between two latents: lerp, slerp (norm-carrying or with an interpolated radius), constant norm. Pure functions of arrays.

Formulas and edges: latent-science §2. A pair without a path gets a typed status and NaN values: never a silent lerp.
Paths of one part of a latent alone (a channel, a layer, a mask) are `stages.code_sets.parts`' business.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from stages.code_sets.great_circle import angles, turn_weights, units
from stages.code_sets.path import ANTIPODAL_ANGLE, Array, Path, Rows, ends_of, times_of

Antipodal = Literal["flag", "seeded_axis"]
Radius = Literal["linear", "geometric"]

MAX_BULGE = 2.0
"""A slerp whose norm would exceed this many times its longer end is as good as antipodal (see `slerp`)."""


def lerp(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> Path:
    """(1−t)a + tb. a, b: (n, *shape); t: (frames,). Defined for every finite pair; t=0 and t=1 give the ends exactly."""
    ends, times = ends_of(a, b), times_of(t)
    return ends.path(_combine(ends.values[:, 0], ends.values[:, 1], 1 - times, times), ends.statuses())


def slerp(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    antipodal: Antipodal = "flag",
    seeds: npt.ArrayLike | None = None,
) -> Path:
    """[sin((1−t)ω)a + sin(tω)b] / sin ω: along the great circle, the norm carried from ‖a‖ to ‖b‖.

    a, b: (n, *shape); t: (frames,). ω→0 goes over into lerp; t=0 and t=1 give the ends exactly; symmetric under a↔b, t↔1−t;
    of constant angular speed when ‖a‖ = ‖b‖. Between ends of unequal norm the middle stands |‖a‖−‖b‖|/2 · tan(ω/2)
    off the bisector, which grows without bound as ω→π: pairs whose path would exceed `MAX_BULGE` times the longer end
    count as antipodal, like those nearer than `ANTIPODAL_ANGLE` to opposite.

    `antipodal="seeded_axis"` takes such pairs round by a random axis orthogonal to both, drawn from `seeds` (n,) uint64;
    in one dimension there is no such axis and they stay flagged. The detour is not rotation equivariant: its axis is fixed
    by the seed.
    """
    ends, times = ends_of(a, b), times_of(t)
    first, second = ends.values[:, 0], ends.values[:, 1]
    (unit_a, norm_a), (unit_b, norm_b) = units(first), units(second)
    omega = angles(unit_a, unit_b)
    opposite = _opposite(omega) | _bulges(omega, norm_a, norm_b)
    zero = (norm_a == 0) | (norm_b == 0)
    values = _great_circle(first, second, omega, times)
    if antipodal == "seeded_axis" and first.shape[1] > 1:
        there = opposite & ~zero & ends.finite
        axes = _axes(unit_a[there], unit_b[there], _drawn(seeds, there)) * ((norm_a + norm_b) / 2)[there, None]
        values[there] = _by_axis(first[there], second[there], axes, times)
        opposite = opposite & ~there
    return ends.path(values, ends.statuses(antipodal=opposite, zero_norm=zero))


def slerp_radius(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    radius: Radius = "linear",
    antipodal: Antipodal = "flag",
    seeds: npt.ArrayLike | None = None,
) -> Path:
    """Slerp of the directions times an interpolated radius: linear (1−t)‖a‖ + t‖b‖, or geometric ‖a‖^(1−t)·‖b‖^t.

    a, b: (n, *shape); t: (frames,). Direction and norm are apart, so the norm stays between the ends' (for t in [0, 1]) and
    the angular speed is constant whatever the norms; t=0 and t=1 give the ends exactly. Edges and `antipodal` as in `slerp`,
    without its bulge.
    """
    ends, times = ends_of(a, b), times_of(t)
    (unit_a, norm_a), (unit_b, norm_b) = units(ends.values[:, 0]), units(ends.values[:, 1])
    omega = angles(unit_a, unit_b)
    opposite, zero = _opposite(omega), (norm_a == 0) | (norm_b == 0)
    values = _great_circle(unit_a, unit_b, omega, times)
    if antipodal == "seeded_axis" and unit_a.shape[1] > 1:
        there = opposite & ~zero & ends.finite
        axes = _axes(unit_a[there], unit_b[there], _drawn(seeds, there))
        values[there] = _by_axis(unit_a[there], unit_b[there], axes, times)
        opposite = opposite & ~there
    values *= radii(np.stack([norm_a, norm_b], axis=1), np.stack([1 - times, times], axis=1), radius)[:, :, None]
    for end, at in ((0, 0.0), (1, 1.0)):
        values[:, times == at] = ends.values[:, [end]]  # unit × norm would be a bit off
    return ends.path(values, ends.statuses(antipodal=opposite, zero_norm=zero))


def constant_norm(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> Path:
    """lerp·r/‖lerp‖ with r = (‖a‖+‖b‖)/2: straight in direction, on one sphere.

    a, b: (n, *shape); t: (frames,). Where ‖a‖ ≠ ‖b‖ the ends themselves change, to norm r: flag `endpoints_rescaled`.
    A straight line that meets the origin has no direction there: `zero_norm` when an end is zero, else `antipodal`.
    The status is the pair's: it does not depend on whether a frame falls on the bad point.
    """
    ends, times = ends_of(a, b), times_of(t)
    scale = np.abs(ends.values).max(axis=(1, 2), initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = ends.values / scale[:, None, None]
    norms = np.linalg.norm(scaled, axis=2)
    radius = norms.mean(axis=1)
    line = _combine(scaled[:, 0], scaled[:, 1], 1 - times, times)
    near = _nearest_to_origin(scaled[:, 0], scaled[:, 1], times) < ANTIPODAL_ANGLE * radius
    lengths = np.linalg.norm(line, axis=2)
    lengths[near | (radius == 0)] = np.nan
    values = line * (radius * scale)[:, None, None] / lengths[:, :, None]
    changed = np.abs(norms[:, 0] - norms[:, 1]) > 1e-6 * norms.max(axis=1)
    status = ends.statuses(antipodal=near, zero_norm=(norms == 0).any(axis=1))
    return ends.path(values, status, endpoints_rescaled=np.asarray(changed))


def angle(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """ω in radians between the rows of a and b, (n,); NaN where a row is zero or not finite."""
    ends = ends_of(a, b)
    (unit_a, norm_a), (unit_b, norm_b) = units(ends.values[:, 0]), units(ends.values[:, 1])
    return np.where((norm_a == 0) | (norm_b == 0) | ~ends.finite, np.nan, angles(unit_a, unit_b))


def radii(norms: Array, weights: Array, radius: Radius) -> Array:
    """Weighted mean of norms (n, k) under weights (frames, k) that sum to 1: (n, frames); geometric: Π normᵢ^wᵢ."""
    if radius == "linear":
        return np.asarray(norms @ weights.T)
    powers = norms[:, None, :] ** weights[None, :, :]
    return np.asarray(powers.prod(axis=2))


def _opposite(omega: Array) -> Rows:
    return np.asarray(np.pi - omega < ANTIPODAL_ANGLE)


def _bulges(omega: Array, norm_a: Array, norm_b: Array) -> Rows:
    """Pairs whose norm-carrying middle would stand more than `MAX_BULGE` longer ends away from the origin."""
    safe = np.minimum(omega, np.pi - ANTIPODAL_ANGLE)
    off_bisector = np.abs(norm_a - norm_b) / 2 * np.tan(safe / 2)
    return np.asarray(off_bisector > MAX_BULGE * np.maximum(norm_a, norm_b))


def _combine(a: Array, b: Array, weight_a: Array, weight_b: Array) -> Array:
    """weight_a·a + weight_b·b: (m, d) with weights (frames,) or (m, frames) → (m, frames, d)."""
    return weight_a[..., :, None] * a[:, None, :] + weight_b[..., :, None] * b[:, None, :]


def _great_circle(a: Array, b: Array, omega: Array, times: Array) -> Array:
    return _combine(a, b, *turn_weights(omega[:, None], times))


def _nearest_to_origin(a: Array, b: Array, times: Array) -> Array:
    """Distance from the origin to the straight path, over t in [0, 1] and beyond if `times` go there."""
    step = b - a
    length2 = np.einsum("md,md->m", step, step)
    at = -np.einsum("md,md->m", a, step) / np.where(length2 > 0, length2, 1.0)
    at = np.clip(at, min(0.0, times.min(initial=0.0)), max(1.0, times.max(initial=1.0)))
    return np.asarray(np.linalg.norm(a + at[:, None] * step, axis=1))


def _drawn(seeds: npt.ArrayLike | None, rows: Rows) -> list[int]:
    if seeds is None:
        raise ValueError("antipodal='seeded_axis' draws its axes from `seeds`: give one uint64 a row")
    return [int(seed) for seed in np.asarray(seeds, np.uint64)[rows]]


def _axes(unit_a: Array, unit_b: Array, seeds: list[int]) -> Array:
    """One unit axis a row, by which opposite ends go round: (m, d)."""
    draws = [np.random.default_rng(seed).standard_normal(unit_a.shape[1]) for seed in seeds]
    drawn = np.stack(draws) if draws else np.zeros_like(unit_a)
    # Orthogonal to â−b̂ means at the same angle to â and b̂, and the same axis whichever end is called a.
    across, _ = units(unit_a - unit_b)
    return units(drawn - np.einsum("md,md->m", drawn, across)[:, None] * across)[0]


def _by_axis(a: Array, b: Array, axis: Array, times: Array) -> Array:
    """Two great-circle legs: a → axis (t ≤ ½) → b."""
    first = _great_circle(a, axis, angle(a, axis), 2 * times)
    second = _great_circle(axis, b, angle(axis, b), 2 * times - 1)
    return np.where((times <= 0.5)[None, :, None], first, second)
