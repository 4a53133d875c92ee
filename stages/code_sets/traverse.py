"""Traverse: latents → codes along directions and coordinates, one strip a (row, axis), one frame a strength.

Formulas (latent-science §4), with n the unit direction, μ the data's mean, z the latent, and α the strength in latent
units (a `sigma` strength is first multiplied by the data's standard deviation along the axis):

    add             z + αn                       α from where the row is; α = 0 gives the latent exactly
    set_projection  z + (α − nᵀ(z−μ))n           α from the data's mean, so α = 0 is the average projection
    set_coordinate  z_j = α   (unit latent)      α from the space's origin
                    z_j = μ_j + ασ_j (sigma)     α from the data's mean

A coordinate j is the axis n = e_j. All in float64; codes are stored as float32.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from schemas.codec import LatentSpec
from schemas.errors import JobError, SpaceMismatch
from schemas.identity import canonical_json
from schemas.steps import TraverseStep
from stages.code_sets.codes import Strips, codes_batch, strip_name
from stages.code_sets.parents import read_parents

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Direction:
    """An edit axis: `vector` (d,) of unit length, `sigma` the data's standard deviation along it, `mean` (d,) the data's mean."""

    name: str
    vector: Array
    sigma: float
    mean: Array


@dataclass(frozen=True, eq=False)
class CoordinateMoments:
    """Mean and standard deviation of the data per coordinate, each (d,)."""

    mean: Array
    std: Array


@dataclass(frozen=True, eq=False)
class _Axis:
    title: str
    operation: str
    vector: Array
    alphas: Array  # (frames,) in latent units
    mean: Array
    coordinate: int | None


class Traverse:
    """Expands rows into strips. Picklable plain data; call it with batches of one parent (stages.code_sets.parents).

    A row whose latent is not finite keeps its strips, with null
    latents and the flag `nan_input`.

    Raises JobError for a coordinate outside the latent, a sigma strength along an axis the data does not vary on, or
    missing moments; SpaceMismatch for a direction of another size.
    """

    parents = 1

    def __init__(
        self,
        step: TraverseStep,
        directions: list[Direction],
        spec: LatentSpec,
        *,
        coordinates: CoordinateMoments | None = None,
        first_seq: int = 0,
    ) -> None:
        self._step, self._spec, self._first_seq = step, spec, first_seq
        self._axes = [_along(step, d, spec) for d in directions]
        self._axes += [_coordinate(step, j, spec, coordinates) for j in step.coordinates]
        if not self._axes:
            raise JobError.one("traverse.directions", [], "nothing to walk along.", "name directions or coordinates")
        titles = [axis.title for axis in self._axes]
        if twice := sorted({t for t in titles if titles.count(t) > 1}):
            raise JobError.one("traverse.directions", twice, "named more than once.", "name each once")

    @property
    def strips(self) -> int:
        """Strips a row."""
        return len(self._axes)

    @property
    def frames(self) -> int:
        """Frames a strip."""
        return len(self._step.strengths)

    def numbered_from(self, first_seq: int) -> Self:
        """The same stage, its codes numbered from `first_seq`: its place in a render of several code sets."""
        other = copy.copy(self)
        other._first_seq = first_seq
        return other

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        given = read_parents(batch, self._spec, self.parents)
        ids, latents, usable = [i for (i,) in given.ids], given.latents[:, 0], given.present & given.finite
        latents[~usable] = 0.0
        axes, frames, count = self._axes, self.frames, len(ids)
        values = np.empty((count, len(axes), frames, self._spec.dim), np.float32)
        with np.errstate(over="ignore"):  # an overflow is flagged `non_finite` when the codes are assembled
            for i, axis in enumerate(axes):
                values[:, i] = _walk(axis, latents, self._step.mode)
        first = self._first_seq + (given.seq[:, None] * len(axes) + np.arange(len(axes))) * frames
        return codes_batch(
            Strips(
                first_seq=first.reshape(-1),
                names=[strip_name(i, about=axis.title) for i in ids for axis in axes],
                parents=[[i] for i in ids for _ in axes],
                operations=[axis.operation for axis in axes] * count,
                titles=[axis.title for axis in axes] * count,
                flags=[[] if ok else ["nan_input"] for ok in usable for _ in axes],
                strengths=self._step.strengths,
                unit=self._step.unit,
                latents=values,
                usable=np.repeat(usable, len(axes)),
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )


def _walk(axis: _Axis, latents: Array, mode: str) -> Array:
    """One axis, all rows: (n, d) → (n, frames, d)."""
    if axis.coordinate is not None and mode == "set_coordinate":
        codes = np.repeat(latents[:, None, :], len(axis.alphas), axis=1)
        codes[:, :, axis.coordinate] = axis.alphas
        return codes
    steps = np.broadcast_to(axis.alphas, (len(latents), len(axis.alphas)))
    if mode == "set_projection":
        steps = axis.alphas - ((latents - axis.mean) @ axis.vector)[:, None]
    return latents[:, None, :] + steps[:, :, None] * axis.vector


def _along(step: TraverseStep, direction: Direction, spec: LatentSpec) -> _Axis:
    vector = np.asarray(direction.vector, np.float64)
    mean = np.asarray(direction.mean, np.float64)
    if vector.shape != (spec.dim,) or mean.shape != (spec.dim,):
        raise SpaceMismatch.one(
            "traverse.directions",
            direction.name,
            f"its vector has {vector.size} numbers, the codec's latents {spec.dim}.",
            "fit the direction on this codec's latents",
        )
    if step.mode == "set_coordinate":
        raise JobError.one("traverse.mode", step.mode, "a direction is no coordinate.", "use set_projection")
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) < 1e-6:
        raise JobError.one(
            "traverse.directions", direction.name, f"its vector has length {length:g}, not 1.", "fit it again"
        )
    about = {"direction": direction.name, "vector": xxhash.xxh3_128_hexdigest(vector.tobytes())}
    alphas = _alphas(step, direction.sigma, direction.name)
    return _Axis(direction.name, _operation(step, about, direction.sigma), vector, alphas, mean, None)


def _coordinate(step: TraverseStep, j: int, spec: LatentSpec, moments: CoordinateMoments | None) -> _Axis:
    if not 0 <= j < spec.dim:
        raise JobError.one("traverse.coordinates", j, f"a latent has {spec.dim} numbers.", f"use 0 to {spec.dim - 1}")
    if moments is None and (step.unit == "sigma" or step.mode == "set_projection"):
        raise JobError.one(
            "traverse.unit", step.unit, "the data's mean and spread are not known.", "encode some rows first"
        )
    mean = np.zeros(spec.dim) if moments is None else np.asarray(moments.mean, np.float64)
    sigma = 1.0 if moments is None else float(moments.std[j])
    alphas = _alphas(step, sigma, f"coordinate {j}")
    if step.mode == "set_coordinate" and step.unit == "sigma":
        alphas = alphas + mean[j]
    return _Axis(
        f"coordinate {j}", _operation(step, {"coordinate": j}, sigma), np.eye(1, spec.dim, j)[0], alphas, mean, j
    )


def _alphas(step: TraverseStep, sigma: float, axis: str) -> Array:
    strengths = np.asarray(step.strengths, np.float64)
    if step.unit == "latent":
        return strengths
    if not (np.isfinite(sigma) and sigma > 0):
        raise JobError.one(
            "traverse.unit",
            step.unit,
            f"along `{axis}` the data's standard deviation is {sigma:g}.",
            "use unit: latent",
        )
    return strengths * sigma


def _operation(step: TraverseStep, about: Mapping[str, object], sigma: float) -> str:
    """What was done, without strengths: canonical JSON, the same for every frame of an axis."""
    scale = {"sigma": float(sigma)} if step.unit == "sigma" else {}
    facts = {"stage": step.stage, "step": step.name, "mode": step.mode, "unit": step.unit, **about, **scale}
    return canonical_json(facts).decode()
