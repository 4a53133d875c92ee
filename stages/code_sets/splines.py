"""Paths through several latents in order: Catmull-Rom in flat spaces, SQUAD on shells. Pure functions of arrays.

Key i of k is reached at t = i/(k−1), so the number of keys alone says where each is; one key is a path that stays.
Catmull-Rom: cubic Hermite pieces with the tangents of Barry & Goldman's construction. `uniform` knots have a continuous
velocity; `centripetal` ones (gaps ‖Δ‖^½, Yuksel et al. 2011) make no loops or cusps, and bend smoothly with a speed that
jumps at keys. Either way the ends mirror their neighbours, so two keys give lerp.
SQUAD (Shoemake 1987) with sᵢ = exp_p(−¼(log_p pᵢ₊₁ + log_p pᵢ₋₁)) at p = pᵢ: slerp(slerp(pᵢ,pᵢ₊₁,h), slerp(sᵢ,sᵢ₊₁,h), 2h(1−h)),
continuous in velocity on a sphere of any dimension; two keys give `slerp_radius`.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from stages.code_sets.great_circle import angles, exponential, logarithm, turned, units
from stages.code_sets.interpolation import Radius
from stages.code_sets.path import ANTIPODAL_ANGLE, Array, Path, keys_of, times_of

Knots = Literal["uniform", "centripetal"]


def catmull_rom(latents: npt.ArrayLike, t: npt.ArrayLike, *, knots: Knots = "centripetal") -> Path:
    """latents: (n, k, *shape); t: (frames,) in [0, 1] → (n, frames, *shape). Defined for all finite keys, equal ones too.

    A key equal to its neighbour is an end: the path stays between them and leaves them straight.
    """
    keys, times = keys_of(latents), times_of(t)
    p = keys.values
    if p.shape[1] == 1:
        return keys.path(np.repeat(p, len(times), axis=1), keys.statuses())
    step = np.diff(p, axis=1)
    distance = units(step)[1]
    gap = np.where(distance > 0, np.sqrt(distance) if knots == "centripetal" else 1.0, 0.0)
    leaving, arriving = _tangents(step, gap)
    piece, h = _pieces(times, p.shape[1])
    h = h[None, :, None]
    rest = 1 - h
    values = (
        rest**2 * (1 + 2 * h) * p[:, piece]
        + h**2 * (3 - 2 * h) * p[:, piece + 1]
        + h * rest**2 * leaving[:, piece]
        - h**2 * rest * arriving[:, piece]
    )
    return keys.path(values, keys.statuses())


def squad(latents: npt.ArrayLike, t: npt.ArrayLike, *, radius: Radius = "linear") -> Path:
    """latents: (n, k, *shape); t: (frames,) in [0, 1] → (n, frames, *shape): directions by SQUAD, norms monotone between keys.

    Norms (their logarithms if geometric) go by monotone cubics (Fritsch–Carlson), which never leave the keys' range.
    `zero_norm` for a key without direction, `antipodal` when neighbours, or the control points between them, are opposite.
    """
    keys, times = keys_of(latents), times_of(t)
    p, norms = units(keys.values)
    count = p.shape[1]
    zero = (norms == 0).any(axis=1)
    if count == 1:
        return keys.path(np.repeat(keys.values, len(times), axis=1), keys.statuses(zero_norm=zero))
    control = p.copy()
    inner = p[:, 1:-1]
    control[:, 1:-1] = exponential(inner, -(logarithm(inner, p[:, 2:]) + logarithm(inner, p[:, :-2])) / 4)
    piece, h = _pieces(times, count)
    outer = turned(p[:, piece], p[:, piece + 1], h)
    bent = turned(control[:, piece], control[:, piece + 1], h)
    opposite = np.maximum(
        np.maximum(angles(p[:, :-1], p[:, 1:]), angles(control[:, :-1], control[:, 1:])).max(axis=1),
        angles(outer, bent).max(axis=1, initial=0.0),
    )
    directions = turned(outer, bent, 2 * h * (1 - h))
    values = directions * _norms(np.where(zero[:, None], 1.0, norms), times, radius)[:, :, None]
    exact = np.flatnonzero((h == 0) | (h == 1))
    values[:, exact] = keys.values[:, (piece + h.astype(int))[exact]]  # unit × norm would be a bit off
    status = keys.statuses(antipodal=np.pi - opposite < ANTIPODAL_ANGLE, zero_norm=zero)
    return keys.path(values, status)


def _pieces(times: Array, count: int) -> tuple[npt.NDArray[np.intp], Array]:
    """Which piece each time falls in, and how far along it: (frames,) each. Times outside [0, 1] are refused."""
    if len(times) and not (times.min() >= 0 and times.max() <= 1):
        raise ValueError(f"t must be from 0 to 1 along a spline, got {times.min():g} to {times.max():g}")
    # i/(k−1)·(k−1) can miss i by a bit; a frame that is meant to be a key has to be that key.
    place = times * (count - 1)
    nearest = np.rint(place)
    place = np.where(np.abs(place - nearest) < 1e-12 * count, nearest, place)
    piece = np.clip(place.astype(np.intp), 0, count - 2)
    return piece, place - piece


def _tangents(step: Array, gap: Array) -> tuple[Array, Array]:
    """Derivatives by h at both ends of each piece: step (n, k−1, d), gap (n, k−1) → leaving, arriving (n, k−1, d).

    With knot gaps r before and s after a key, v = step₋/r − (step₋+step₊)/(r+s) + step₊/s; a piece of gap g has g·v.
    """
    safe = np.where(gap > 0, gap, 1.0)[:, :, None]
    speed = step / safe
    before, after = speed[:, :-1], speed[:, 1:]
    r, s = gap[:, :-1, None], gap[:, 1:, None]
    total = np.where(r + s > 0, r + s, 1.0)
    at_key = before + after - (step[:, :-1] + step[:, 1:]) / total
    both = (r > 0) & (s > 0)
    leaving, arriving = step.copy(), step.copy()  # at ends, and beside keys that coincide, the tangent is the chord
    leaving[:, 1:] = np.where(both, at_key * s, step[:, 1:])
    arriving[:, :-1] = np.where(both, at_key * r, step[:, :-1])
    return leaving, arriving


def _norms(norms: Array, times: Array, radius: Radius) -> Array:
    places = np.linspace(0.0, 1.0, norms.shape[1])
    if radius == "linear":
        return np.asarray(PchipInterpolator(places, norms, axis=1)(times))
    return np.asarray(np.exp(PchipInterpolator(places, np.log(norms), axis=1)(times)))
