"""Great circles of the unit sphere in any dimension: angles, logarithm and exponential, and the turn from one point to another.

The angle is ω = 2·atan2(‖u−v‖, ‖u+v‖), which keeps full precision near 0 and near π where arccos loses half its digits.
All functions work on the last axis of arrays that broadcast against each other.
"""

import numpy as np

from stages.code_sets.path import ANTIPODAL_ANGLE, Array


def units(x: Array) -> tuple[Array, Array]:
    """Unit rows (…, d) and norms (…); a zero row stays zero. Scaled by the largest entry first, so that nothing over- or underflows."""
    scale = np.abs(x).max(axis=-1, initial=0.0)
    scaled = x / np.where(scale > 0, scale, 1.0)[..., None]
    norm = np.linalg.norm(scaled, axis=-1)
    return scaled / np.where(norm > 0, norm, 1.0)[..., None], np.asarray(norm * scale)


def angles(u: Array, v: Array) -> Array:
    """ω in radians between unit rows: (…)."""
    return np.asarray(2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)))


def turn_weights(omega: Array, t: Array) -> tuple[Array, Array]:
    """What u and v weigh at fraction t of the turn: sin((1−t)ω)/sin ω and sin(tω)/sin ω, exact at ω = 0 (no branch)."""
    base = np.sinc(np.minimum(omega, np.pi - ANTIPODAL_ANGLE) / np.pi)

    def weight(part: Array) -> Array:
        return np.asarray(part * np.sinc(omega * part / np.pi) / base)

    return weight(1 - t), weight(t)


def turned(u: Array, v: Array, t: Array) -> Array:
    """The point at fraction t (…) of the great circle from u to v, (…, d). Opposite ends are the caller's to refuse."""
    weight_u, weight_v = turn_weights(angles(u, v), t)
    return weight_u[..., None] * u + weight_v[..., None] * v


def logarithm(at: Array, to: Array) -> Array:
    """The tangent at `at` that leads to `to`, its length the angle: (…, d). Zero for the same point and for the opposite one."""
    along = to - np.sum(at * to, axis=-1, keepdims=True) * at
    # Subtracting twice: near `at` the first difference is mostly rounding along `at`.
    along -= np.sum(at * along, axis=-1, keepdims=True) * at
    direction, length = units(along)
    return np.where(length > 0, angles(at, to), 0.0)[..., None] * direction


def exponential(at: Array, tangent: Array) -> Array:
    """Where the great circle from `at` along `tangent` is after the tangent's length: (…, d), of unit length again."""
    length = np.linalg.norm(tangent, axis=-1, keepdims=True)
    return units(np.cos(length) * at + np.sinc(length / np.pi) * tangent)[0]
