"""What every interpolation gives: points along n paths, a typed status for each, and what is odd about it.

Everything is float64, whatever dtype came in; every row is flattened on its own, never across the batch (latent-science §1).
A row without a path gets a status and NaN values, never a silent lerp.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]

ANTIPODAL_ANGLE = 1e-6
"""Ends nearer than this to opposite (radians) have no direction to turn in that is more than rounding."""


class PathStatus(StrEnum):
    """Whether a row has a path. Stored in `flags` and `renders.status`; the words are those of latent-science §1."""

    OK = "ok"
    ANTIPODAL = "antipodal"  # opposite ends: infinitely many shortest ways, or a way through the origin
    ZERO_NORM = "zero_norm"  # an end (or the whole way) has no direction
    NON_FINITE = "non_finite"  # what was computed on the way is not finite: a decoder's pictures, say
    NAN_INPUT = "nan_input"  # an end holds NaN or infinity


WORST_LAST = (PathStatus.OK, PathStatus.ANTIPODAL, PathStatus.ZERO_NORM, PathStatus.NON_FINITE, PathStatus.NAN_INPUT)


@dataclass(frozen=True, slots=True)
class Path:
    """Points of n paths: `values` (n, frames, *shape) float64, all NaN where `status` (n,) is not `ok`.

    `flags`: what is odd about rows that do have a path, name → (n,) bool. `facts`: what a method found out of each row
    (a geodesic's energy, say); empty, or one mapping a row.
    """

    values: Array
    status: npt.NDArray[np.str_]
    flags: Mapping[str, Rows] = field(default_factory=dict)
    facts: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Keys:
    """k latents a row as `values` (n, k, d) float64; rows that are not `finite` (n,) hold zeros. `shape`: of one latent."""

    values: Array
    finite: Rows
    shape: tuple[int, ...]

    def path(self, values: Array, status: npt.NDArray[np.str_], **flags: Rows) -> Path:
        """`values` (n, frames, d) in the latents' own shape; rows with a bad status lose theirs, and their flags."""
        good = status == PathStatus.OK
        values[~good] = np.nan
        shaped = values.reshape(len(values), values.shape[1], *self.shape)
        return Path(shaped, status, {name: rows & good for name, rows in flags.items()})

    def statuses(self, *, antipodal: Rows | bool = False, zero_norm: Rows | bool = False) -> npt.NDArray[np.str_]:
        """(n,), the worst thing that holds of each row."""
        status = np.full(len(self.finite), PathStatus.OK, dtype="<U16")
        status[np.broadcast_to(antipodal, status.shape)] = PathStatus.ANTIPODAL
        status[np.broadcast_to(zero_norm, status.shape)] = PathStatus.ZERO_NORM
        status[~self.finite] = PathStatus.NAN_INPUT
        return status


def keys_of(latents: npt.ArrayLike) -> Keys:
    """(n, k, *shape) of any dtype → Keys. Raises ValueError for fewer axes."""
    given = np.asarray(latents)
    if given.ndim < 3 or not given.shape[1]:
        raise ValueError(f"keys must be (rows, keys, *shape) with a key at least, got {given.shape}")
    # Sums depend on the layout of memory in their last bits: always the same one.
    flat = given.astype(np.float64, order="C").reshape(*given.shape[:2], int(np.prod(given.shape[2:])))
    finite = np.asarray(np.isfinite(flat).all(axis=(1, 2)))
    flat[~finite] = 0.0
    return Keys(flat, finite, given.shape[2:])


def ends_of(a: npt.ArrayLike, b: npt.ArrayLike) -> Keys:
    """Two ends (n, *shape) alike as Keys of two. Raises ValueError when they differ in shape."""
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"both ends must be (rows, *shape) alike, got {first.shape} and {second.shape}")
    return keys_of(np.stack([first, second], axis=1))


def times_of(t: npt.ArrayLike) -> Array:
    """(frames,) float64. Raises ValueError unless they are finite numbers in one dimension."""
    times = np.atleast_1d(np.asarray(t, np.float64))
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError(f"t must be finite numbers in one dimension, got {t!r}")
    return times
