"""The axes of edits: a direction or a coordinate, its unit vector, where it is measured from, and what one unit of strength is.

n is the unit vector, μ the data's mean. A strength times `scale` is a length α in the latent: 1 for `latent`, the data's
standard deviation along n for `sigma`, the length that changes the score by 1 for `effect` (stages/directions/effect.py).
Of `quantile` a strength is no multiple: it stands for the value there (stages/code_sets/quantiles.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

from schemas.codec import LatentSpec
from schemas.errors import JobError, SpaceMismatch
from schemas.steps import CoordinateUnit

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Direction:
    """An edit axis: `vector` (d,) of unit length, `sigma` the data's standard deviation along it, `mean` (d,) the data's mean.

    `effect` is the length that changes its score by 1; None for a direction without a score.
    """

    name: str
    vector: Array
    sigma: float
    mean: Array
    effect: float | None = None


@dataclass(frozen=True, eq=False)
class CoordinateMoments:
    """Mean and standard deviation of the data per coordinate, each (d,)."""

    mean: Array
    std: Array


@dataclass(frozen=True, eq=False)
class Axis:
    """`vector` (d,) of unit length; `mean` (d,), from which projections are measured; `scale`, the length of one unit.

    `sigma` is the data's standard deviation along it, NaN where it is not known. `about` says in plain data what it is; `coordinate` is
    set for a coordinate. `values`: what the strengths stand for, where that is no multiple of a unit: quantiles.
    """

    title: str
    vector: Array
    mean: Array
    scale: float
    about: dict[str, object] = field(default_factory=dict)
    coordinate: int | None = None
    sigma: float = math.nan
    values: Mapping[float, float] | None = None

    def lengths(self, strengths: Sequence[float]) -> Array:
        """The α of each strength, measured from `mean`."""
        if self.values is not None:
            return np.array([self.values[strength] for strength in strengths])
        return np.asarray(strengths, np.float64) * self.scale


def direction_axis(direction: Direction, spec: LatentSpec, *, unit: CoordinateUnit, at: str) -> Axis:
    """A direction as an axis; `at` names the step in errors.

    Raises SpaceMismatch for a direction of another size, JobError for one that is not of unit length, for `sigma` where the
    data do not vary along it, and for `effect` where it has no score.
    """
    vector, mean = np.asarray(direction.vector, np.float64), np.asarray(direction.mean, np.float64)
    if vector.shape != (spec.dim,) or mean.shape != (spec.dim,):
        raise SpaceMismatch.one(
            f"{at}.directions",
            direction.name,
            f"its vector has {vector.size} numbers, the codec's latents {spec.dim}.",
            "fit the direction on this codec's latents",
        )
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) < 1e-6:
        raise JobError.one(
            f"{at}.directions", direction.name, f"its vector has length {length:g}, not 1.", "fit it again"
        )
    about: dict[str, object] = {"direction": direction.name, "vector": xxhash.xxh3_128_hexdigest(vector.tobytes())}
    scale, said = _scale(unit, direction.name, sigma=direction.sigma, effect=direction.effect, at=at)
    return Axis(direction.name, vector, mean, scale, about | said, sigma=direction.sigma)


def coordinate_axis(
    j: int, spec: LatentSpec, moments: CoordinateMoments | None, *, unit: CoordinateUnit, at: str, from_mean: bool
) -> Axis:
    """Coordinate j as an axis; `from_mean`: projections are measured from the data's mean, else from the space's origin.

    Raises JobError for a coordinate outside the latent, for missing moments, for `sigma` where the data do not vary, and for
    `effect`: a coordinate has no score.
    """
    check_coordinate(j, spec, at=at)
    if moments is None and (unit == "sigma" or from_mean):
        raise JobError.one(f"{at}.unit", unit, "the data's mean and spread are not known.", "encode some rows first")
    mean = np.asarray(moments.mean, np.float64) if moments is not None and from_mean else np.zeros(spec.dim)
    sigma = 1.0 if moments is None else float(moments.std[j])
    scale, said = _scale(unit, f"coordinate {j}", sigma=sigma, effect=None, at=at)
    return Axis(f"coordinate {j}", np.eye(1, spec.dim, j)[0], mean, scale, {"coordinate": j} | said, j)


def check_coordinate(j: int, spec: LatentSpec, *, at: str) -> None:
    """Raises JobError for a coordinate outside the latent."""
    if not 0 <= j < spec.dim:
        raise JobError.one(f"{at}.coordinates", j, f"a latent has {spec.dim} numbers.", f"use 0 to {spec.dim - 1}")


def needs_moments(unit: CoordinateUnit, mode: str) -> bool:
    """Whether coordinates need the data's mean and spread."""
    return unit == "sigma" or mode == "set_projection"


def row_dots(rows: Array, vector: Array) -> Array:
    """rows (…, d) · vector (d,), each row by itself: the same last bits whatever the batch, which BLAS does not promise."""
    return np.asarray(np.einsum("...d,d->...", rows, vector))


def _scale(
    unit: CoordinateUnit, name: str, *, sigma: float, effect: float | None, at: str
) -> tuple[float, dict[str, object]]:
    """The length of one unit, and what to say of it."""
    if unit == "latent":
        return 1.0, {}
    if unit == "sigma":
        if not (np.isfinite(sigma) and sigma > 0):
            reason = f"along `{name}` the data's standard deviation is {sigma:g}."
            raise JobError.one(f"{at}.unit", unit, reason, "use unit: latent")
        return sigma, {"sigma": float(sigma)}
    if effect is None:
        raise JobError.one(f"{at}.unit", unit, f"`{name}` has no score to change.", "use unit: sigma")
    return effect, {"effect": float(effect)}
