"""Traverse: latents → codes along directions and coordinates, one strip a (row, axis), one frame a strength.

Formulas (latent-science §4), with n the unit direction, μ the data's mean, z the latent, and α the strength in latent
units (a `sigma` or `effect` strength is first multiplied by the length of its unit, stages/code_sets/axes.py):

    add             z + αn                       α from where the row is; α = 0 gives the latent exactly
    set_projection  z + (α − nᵀ(z−μ))n           α from the data's mean, so α = 0 is the average projection
    set_coordinate  z_j = α   (unit latent)      α from the space's origin
                    z_j = μ_j + ασ_j (sigma)     α from the data's mean

A coordinate j is the axis n = e_j. All in float64; codes are stored as float32. With a trust region, steps that leave it
are shortened to its edge and flagged `clipped`, or flagged `atypical` only (stages/code_sets/trust.py).
"""

import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import TraverseStep
from stages.code_sets.axes import Axis, CoordinateMoments, Direction, coordinate_axis, direction_axis, row_dots
from stages.code_sets.codes import Strips, codes_batch, operation, strip_name
from stages.code_sets.parents import read_parents
from stages.code_sets.trust import Trust

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Walked:
    axis: Axis
    operation: str
    alphas: Array  # (frames,) in latent units


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
        trust: Trust | None = None,
        first_seq: int = 0,
    ) -> None:
        self._step, self._spec, self._first_seq, self._trust = step, spec, first_seq, trust
        self._axes = [_along(step, d, spec) for d in directions]
        self._axes += [_coordinate(step, j, spec, coordinates) for j in step.coordinates]
        if not self._axes:
            raise JobError.one("traverse.directions", [], "nothing to walk along.", "name directions or coordinates")
        titles = [walked.axis.title for walked in self._axes]
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
        marks: dict[str, npt.NDArray[np.bool_]] = {}
        with np.errstate(over="ignore"):  # an overflow is flagged `non_finite` when the codes are assembled
            for i, walked in enumerate(axes):
                codes = _walk(walked, latents, self._step.mode)
                if self._trust is not None:
                    codes, mark = self._trust.hold(latents, codes)
                    for flag, mask in mark.items():
                        marks.setdefault(flag, np.zeros((count, len(axes), frames), np.bool_))[:, i] = mask
                values[:, i] = codes
        first = self._first_seq + (given.seq[:, None] * len(axes) + np.arange(len(axes))) * frames
        return codes_batch(
            Strips(
                first_seq=first.reshape(-1),
                names=[strip_name(i, about=walked.axis.title) for i in ids for walked in axes],
                parents=[[i] for i in ids for _ in axes],
                operations=[walked.operation for walked in axes] * count,
                titles=[walked.axis.title for walked in axes] * count,
                flags=[[] if ok else ["nan_input"] for ok in usable for _ in axes],
                strengths=self._step.strengths,
                unit=self._step.unit,
                latents=values,
                usable=np.repeat(usable, len(axes)),
                code_flags={flag: mask.reshape(-1, frames) for flag, mask in marks.items()},
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )


def _walk(walked: _Walked, latents: Array, mode: str) -> Array:
    """One axis, all rows: (n, d) → (n, frames, d)."""
    axis, alphas = walked.axis, walked.alphas
    if axis.coordinate is not None and mode == "set_coordinate":
        codes = np.repeat(latents[:, None, :], len(alphas), axis=1)
        codes[:, :, axis.coordinate] = alphas + axis.mean[axis.coordinate]
        return codes
    steps = np.broadcast_to(alphas, (len(latents), len(alphas)))
    if mode == "set_projection":
        steps = alphas - row_dots(latents - axis.mean, axis.vector)[:, None]
    return latents[:, None, :] + steps[:, :, None] * axis.vector


def _along(step: TraverseStep, direction: Direction, spec: LatentSpec) -> _Walked:
    if step.mode == "set_coordinate":
        raise JobError.one("traverse.mode", step.mode, "a direction is no coordinate.", "use set_projection")
    return _walked(step, direction_axis(direction, spec, unit=step.unit, at="traverse"))


def _coordinate(step: TraverseStep, j: int, spec: LatentSpec, moments: CoordinateMoments | None) -> _Walked:
    from_mean = step.mode == "set_projection" or (step.mode == "set_coordinate" and step.unit == "sigma")
    return _walked(step, coordinate_axis(j, spec, moments, unit=step.unit, at="traverse", from_mean=from_mean))


def _walked(step: TraverseStep, axis: Axis) -> _Walked:
    return _Walked(
        axis, operation(step, "mode", "unit", **axis.about), np.asarray(step.strengths, np.float64) * axis.scale
    )
