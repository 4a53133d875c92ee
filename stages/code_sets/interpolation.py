"""Paths between latents: lerp, norm-carrying slerp, constant norm. Pure functions of arrays.

Formulas and edges: latent-science §2. The angle is ω = 2·atan2(‖â−b̂‖, ‖â+b̂‖), which keeps full precision near 0 and
near π where arccos loses half its digits. Everything inside is float64, whatever dtype came in; every row is flattened
on its own, never across the batch. A pair without a path gets a typed status and NaN values: never a silent lerp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Antipodal = Literal["flag", "seeded_axis"]

ANTIPODAL_ANGLE = 1e-6
"""Ends nearer than this to opposite (radians) have no direction to turn in that is more than rounding."""
MAX_BULGE = 2.0
"""A slerp whose norm would exceed this many times its longer end is as good as antipodal (see `slerp`)."""


class PathStatus(StrEnum):
    """Whether a pair has a path. Stored in `flags` and `renders.status`; the words are those of latent-science §1."""

    OK = "ok"
    ANTIPODAL = "antipodal"  # opposite ends: infinitely many shortest ways, or a way through the origin
    ZERO_NORM = "zero_norm"  # an end (or the whole way) has no direction
    NAN_INPUT = "nan_input"  # an end holds NaN or infinity


@dataclass(frozen=True, slots=True)
class Path:
    """Points of n paths: `values` (n, frames, *shape) float64, all NaN where `status` (n,) is not `ok`."""

    values: Array
    status: npt.NDArray[np.str_]


def lerp(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> Path:
    """(1−t)a + tb. a, b: (n, *shape); t: (frames,). Defined for every finite pair; t=0 and t=1 give the ends exactly."""
    rows = _rows(a, b, per_channel=False)
    times = _times(t)
    status = np.where(rows.finite, PathStatus.OK, PathStatus.NAN_INPUT)
    return rows.path(_combine(rows.a, rows.b, 1 - times, times), status)


def slerp(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    per_channel: bool = False,
    antipodal: Antipodal = "flag",
    seeds: npt.ArrayLike | None = None,
) -> Path:
    """[sin((1−t)ω)a + sin(tω)b] / sin ω: along the great circle, the norm carried from ‖a‖ to ‖b‖.

    a, b: (n, *shape); t: (frames,). ω→0 goes over into lerp; t=0 and t=1 give the ends exactly; symmetric under a↔b, t↔1−t;
    of constant angular speed when ‖a‖ = ‖b‖. Between ends of unequal norm the middle stands |‖a‖−‖b‖|/2 · tan(ω/2)
    off the bisector, which grows without bound as ω→π: pairs whose path would exceed `MAX_BULGE` times the longer end
    count as antipodal, like those nearer than `ANTIPODAL_ANGLE` to opposite.

    `per_channel` gives every channel (first axis of `shape`) its own angle; one bad channel makes the row bad.
    `antipodal="seeded_axis"` takes such pairs round by a random axis orthogonal to both, drawn from `seeds` (n,) uint64;
    in one dimension there is no such axis and they stay flagged. The detour is not rotation equivariant: its axis is fixed
    by the seed.
    """
    rows = _rows(a, b, per_channel=per_channel)
    times = _times(t)
    angles = _angles(rows)
    values = _great_circle(rows.a, rows.b, angles.omega, times)
    status = np.full(len(rows.a), PathStatus.OK, dtype="<U16")
    opposite = (np.pi - angles.omega < ANTIPODAL_ANGLE) | _bulges(angles)
    status[opposite] = PathStatus.ANTIPODAL
    status[angles.zero] = PathStatus.ZERO_NORM
    status[~rows.finite] = PathStatus.NAN_INPUT
    if antipodal == "seeded_axis" and rows.a.shape[1] > 1:
        if seeds is None:
            raise ValueError("antipodal='seeded_axis' draws its axes from `seeds`: give one uint64 a row")
        turned = np.flatnonzero(status == PathStatus.ANTIPODAL)
        values[turned] = _detour(rows, angles, turned, times, rows.spread(np.asarray(seeds, np.uint64)))
        status[turned] = PathStatus.OK
    return rows.path(values, status)


def constant_norm(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike, *, per_channel: bool = False) -> Path:
    """lerp·r/‖lerp‖ with r = (‖a‖+‖b‖)/2: straight in direction, on one sphere.

    a, b: (n, *shape); t: (frames,). Where ‖a‖ ≠ ‖b‖ the ends themselves change, to norm r (see `endpoints_change`).
    A straight line that meets the origin has no direction there: `zero_norm` when an end is zero, else `antipodal`.
    The status is the pair's: it does not depend on whether a frame falls on the bad point.
    """
    rows = _rows(a, b, per_channel=per_channel)
    times = _times(t)
    scale = np.maximum(_max_abs(rows.a), _max_abs(rows.b))
    scale = np.where(scale > 0, scale, 1.0)
    ua, ub = rows.a / scale[:, None], rows.b / scale[:, None]
    norm_a, norm_b = np.linalg.norm(ua, axis=1), np.linalg.norm(ub, axis=1)
    radius = (norm_a + norm_b) / 2
    line = _combine(ua, ub, 1 - times, times)
    near = _nearest_to_origin(ua, ub, times) < ANTIPODAL_ANGLE * radius
    lengths = np.linalg.norm(line, axis=2)
    lengths[near | (radius == 0)] = np.nan
    values = line * (radius * scale)[:, None, None] / lengths[:, :, None]
    status = np.full(len(ua), PathStatus.OK, dtype="<U16")
    status[near] = PathStatus.ANTIPODAL
    status[(norm_a == 0) | (norm_b == 0)] = PathStatus.ZERO_NORM
    status[~rows.finite] = PathStatus.NAN_INPUT
    return rows.path(values, status)


def endpoints_change(a: npt.ArrayLike, b: npt.ArrayLike, *, per_channel: bool = False) -> npt.NDArray[np.bool_]:
    """Which rows of `constant_norm` do not start and end at the latents themselves: (n,) bool."""
    rows = _rows(a, b, per_channel=per_channel)
    norm_a, norm_b = np.linalg.norm(rows.a, axis=1), np.linalg.norm(rows.b, axis=1)
    differ = np.abs(norm_a - norm_b) > 1e-6 * np.maximum(norm_a, norm_b)
    return np.asarray(differ.reshape(rows.count, rows.channels).any(axis=1))


def angle(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """ω in radians between the rows of a and b, (n,); NaN where a row is zero or not finite."""
    rows = _rows(a, b, per_channel=False)
    angles = _angles(rows)
    return np.where(angles.zero | ~rows.finite, np.nan, angles.omega)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Both ends as (m, d) float64, m = n, or n·channels; bad rows are zeroed here and typed by `finite`."""

    a: Array
    b: Array
    finite: npt.NDArray[np.bool_]
    count: int
    channels: int
    shape: tuple[int, ...]

    def path(self, values: Array, status: npt.NDArray[np.str_]) -> Path:
        """Folds channels back into rows; a row is as bad as its worst channel."""
        values[status != PathStatus.OK] = np.nan
        frames = values.shape[1]
        parts = status.reshape(self.count, self.channels)
        whole = np.full(self.count, PathStatus.OK, dtype="<U16")
        for kind in (PathStatus.ANTIPODAL, PathStatus.ZERO_NORM, PathStatus.NAN_INPUT):
            whole[(parts == kind).any(axis=1)] = kind
        folded = values.reshape(self.count, self.channels, frames, values.shape[2]).swapaxes(1, 2)
        folded = folded.reshape(self.count, frames, *self.shape).copy()
        folded[whole != PathStatus.OK] = np.nan
        return Path(folded, whole)

    def spread(self, seeds: npt.NDArray[np.uint64]) -> list[tuple[int, int]]:
        """One (seed, channel) for every flattened row."""
        return [(int(seed), channel) for seed in seeds for channel in range(self.channels)]


@dataclass(frozen=True, slots=True)
class _Angles:
    unit_a: Array
    unit_b: Array
    norm_a: Array
    norm_b: Array
    omega: Array
    zero: npt.NDArray[np.bool_]


def _rows(a: npt.ArrayLike, b: npt.ArrayLike, *, per_channel: bool) -> _Rows:
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"both ends must be (rows, *shape) alike, got {first.shape} and {second.shape}")
    if per_channel and first.ndim < 3:
        raise ValueError(f"per_channel needs latents with channels and places, got rows of shape {first.shape[1:]}")
    count, shape = len(first), first.shape[1:]
    channels = shape[0] if per_channel else 1
    parts = count * channels
    size = int(np.prod(shape[1:] if per_channel else shape))
    flat_a = first.astype(np.float64).reshape(parts, size)
    flat_b = second.astype(np.float64).reshape(parts, size)
    finite = np.asarray(np.isfinite(flat_a).all(axis=1) & np.isfinite(flat_b).all(axis=1))
    flat_a[~finite] = 0.0
    flat_b[~finite] = 0.0
    return _Rows(flat_a, flat_b, finite, count, channels, shape)


def _times(t: npt.ArrayLike) -> Array:
    times = np.atleast_1d(np.asarray(t, np.float64))
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"t must be finite numbers in one dimension, got {t!r}")
    return times


def _max_abs(x: Array) -> Array:
    return np.asarray(np.abs(x).max(axis=1, initial=0.0))


def _unit(x: Array) -> tuple[Array, Array]:
    """Unit rows and norms, scaled by the largest entry first so that neither squares nor tiny rows over- or underflow."""
    scale = _max_abs(x)
    safe = np.where(scale > 0, scale, 1.0)
    scaled = x / safe[:, None]
    norm = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(norm > 0, norm, 1.0)[:, None], norm * scale


def _angles(rows: _Rows) -> _Angles:
    unit_a, norm_a = _unit(rows.a)
    unit_b, norm_b = _unit(rows.b)
    apart = np.linalg.norm(unit_a - unit_b, axis=1)
    together = np.linalg.norm(unit_a + unit_b, axis=1)
    zero = (norm_a == 0) | (norm_b == 0)
    omega = np.where(zero, 0.0, 2 * np.arctan2(apart, together))
    return _Angles(unit_a, unit_b, norm_a, norm_b, omega, zero)


def _bulges(angles: _Angles) -> npt.NDArray[np.bool_]:
    """Pairs whose norm-carrying middle would stand more than `MAX_BULGE` longer ends away from the origin."""
    safe = np.minimum(angles.omega, np.pi - ANTIPODAL_ANGLE)
    off_bisector = np.abs(angles.norm_a - angles.norm_b) / 2 * np.tan(safe / 2)
    return np.asarray(off_bisector > MAX_BULGE * np.maximum(angles.norm_a, angles.norm_b))


def _combine(a: Array, b: Array, weight_a: Array, weight_b: Array) -> Array:
    """weight_a·a + weight_b·b: (m, d) with weights (frames,) or (m, frames) → (m, frames, d)."""
    return weight_a[..., :, None] * a[:, None, :] + weight_b[..., :, None] * b[:, None, :]


def _great_circle(a: Array, b: Array, omega: Array, times: Array) -> Array:
    """The slerp formula with sin(tω)/sin ω written t·sinc(tω)/sinc ω, which is exact at ω = 0 and needs no branch."""
    base = np.sinc(np.minimum(omega, np.pi - ANTIPODAL_ANGLE) / np.pi)[:, None]

    def weight(t: Array) -> Array:
        return t * np.sinc(omega[:, None] * t / np.pi) / base

    return _combine(a, b, weight(1 - times), weight(times))


def _nearest_to_origin(a: Array, b: Array, times: Array) -> Array:
    """Distance from the origin to the straight path, over t in [0, 1] and beyond if `times` go there."""
    step = b - a
    length2 = np.einsum("md,md->m", step, step)
    at = -np.einsum("md,md->m", a, step) / np.where(length2 > 0, length2, 1.0)
    at = np.clip(at, min(0.0, times.min(initial=0.0)), max(1.0, times.max(initial=1.0)))
    return np.asarray(np.linalg.norm(a + at[:, None] * step, axis=1))


def _detour(
    rows: _Rows, angles: _Angles, turned: npt.NDArray[np.intp], times: Array, seeds: list[tuple[int, int]]
) -> Array:
    """Two great-circle legs by a seeded axis: a → axis (t ≤ ½) → b. The axis has the ends' mean norm and equal angles to both."""
    a, b = rows.a[turned], rows.b[turned]
    draws = (
        np.stack([np.random.default_rng(seeds[i]).standard_normal(a.shape[1]) for i in turned]) if len(turned) else a
    )
    # Orthogonal to â−b̂ means at the same angle to â and b̂, and the same axis whichever end is called a.
    across, _ = _unit(angles.unit_a[turned] - angles.unit_b[turned])
    axis, _ = _unit(draws - np.einsum("md,md->m", draws, across)[:, None] * across)
    axis = axis * ((angles.norm_a[turned] + angles.norm_b[turned]) / 2)[:, None]
    first = _great_circle(a, axis, angle(a, axis), 2 * times)
    second = _great_circle(axis, b, angle(axis, b), 2 * times - 1)
    return np.where((times <= 0.5)[None, :, None], first, second)


Interpolator = Callable[..., Path]
METHODS: dict[str, Interpolator] = {"lerp": lerp, "slerp": slerp, "constant_norm": constant_norm}
"""The two-ended paths by name."""
