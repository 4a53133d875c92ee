"""Edit: latents → codes, several named changes at once, one strip a row, from nothing to the whole edit.

With nᵢ the unit directions, αᵢ the strengths as lengths, μ the data's mean, cᵢ = nᵢᵀ(z − μ), and Mᵢ the mask of change i (its layers,
channels or region; all of the latent without one), the edit is z + Δ (latent-science §3, §4):

    add             Δ = Σ αᵢ Mᵢnᵢ
    set_coordinate  Δ = Σ (αᵢ − cᵢ) Mᵢnᵢ               each read and set on its own (GANSpace, as e4e does it)
    set_projection  Δ = U(VᵀU)⁻¹(α − c), U = [Mᵢnᵢ]    all projections come to stand at their αᵢ, moving inside the masks only;
                                                       without masks V(VᵀV)⁻¹(α − c), the dual basis

A frame is z + part·Δ. Coordinates are measured as traverse does: set_coordinate in unit `latent` from the space's origin.
"""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import Axis, LatentSpec
from schemas.errors import JobError, Problem
from schemas.steps import Change, EditStep
from stages.code_sets.axes import Axis as EditAxis
from stages.code_sets.axes import CoordinateMoments, Direction, coordinate_axis, direction_axis, row_dots
from stages.code_sets.codes import Strips, codes_batch, operation, strip_name
from stages.code_sets.parents import read_parents
from stages.code_sets.trust import Trust, shell
from stages.directions.compose import Basis, Dependent

Array = npt.NDArray[np.float64]

MAX_CONDITION = 1e6
"""A masked system worse conditioned than this has set-points that only enormous steps would reach."""


class Edit:
    """Expands rows into strips. Picklable plain data; call it with batches of one parent (stages.code_sets.parents).

    Raises JobError for changes that cannot be made (collinear directions, a range outside the latent, no score, …) and
    SpaceMismatch for a direction of another size.
    """

    parents = 1
    strips = 1

    def __init__(
        self,
        step: EditStep,
        directions: Sequence[Direction],
        spec: LatentSpec,
        *,
        coordinates: CoordinateMoments | None = None,
        trust: Trust | None = None,
        first_seq: int = 0,
    ) -> None:
        self._step, self._spec, self._first_seq = step, spec, first_seq
        self._trust = trust or shell(spec)
        self._axes = _axes(step, {d.name: d for d in directions}, spec, coordinates)
        self._alphas = np.array([c.strength * a.scale for c, a in zip(step.changes, self._axes, strict=True)])
        masked = [mask_of(c, spec) * a.vector for c, a in zip(step.changes, self._axes, strict=True)]
        self._moves = np.stack(masked)  # (k, d): what one unit of length does
        if step.mode == "set_projection":
            self._moves = _set_points(np.stack([a.vector for a in self._axes]), self._moves, step)

    @property
    def frames(self) -> int:
        """Frames a strip: the parts of the edit."""
        return len(self._step.parts)

    def numbered_from(self, first_seq: int) -> Self:
        """The same stage, its codes numbered from `first_seq`: its place in a render of several code sets."""
        other = copy.copy(self)
        other._first_seq = first_seq
        return other

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        given = read_parents(batch, self._spec, self.parents)
        ids, z, usable = [i for (i,) in given.ids], given.latents[:, 0], given.present & given.finite
        z[~usable] = 0.0
        parts = np.asarray(self._step.parts, np.float64)
        marks: dict[str, npt.NDArray[np.bool_]] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # flagged `non_finite` when the codes are assembled
            codes = z[:, None, :] + parts[:, None] * self._displacement(z)[:, None, :]
            if self._trust is not None:
                codes, marks = self._trust.hold(z, codes)
        title = ", ".join(axis.title for axis in self._axes)
        return codes_batch(
            Strips(
                first_seq=self._first_seq + given.seq * self.frames,
                names=[strip_name(i, about=title) for i in ids],
                parents=given.ids,
                operations=[self._operation()] * len(ids),
                titles=[title] * len(ids),
                flags=[[] if ok else ["nan_input"] for ok in usable],
                strengths=self._step.parts,
                unit="part",
                latents=codes,
                usable=usable,
                code_flags=marks,
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )

    def _displacement(self, z: Array) -> Array:
        """Δ of rows z (n, d)."""
        amounts = np.tile(self._alphas, (len(z), 1))
        if self._step.mode != "add":
            amounts -= np.stack([row_dots(z - a.mean, a.vector) for a in self._axes], axis=1)
        return sum((amounts[:, i, None] * move for i, move in enumerate(self._moves)), np.zeros(z.shape))

    def _operation(self) -> str:
        changes = [
            {**axis.about, "strength": change.strength, **change.within}
            for change, axis in zip(self._step.changes, self._axes, strict=True)
        ]
        return operation(self._step, "mode", "unit", changes=changes)


def mask_of(change: Change, spec: LatentSpec) -> npt.NDArray[np.bool_]:
    """Which numbers of the flattened latent a change may touch, (d,). Raises JobError when its range does not fit the shape."""
    if problem := range_problem(change, spec, at="edit.changes"):
        raise JobError([problem])
    mask = np.ones(spec.shape, np.bool_)
    for axis, inside in _ranges(change).items():
        side = spec.named_axes.index(axis)
        kept = np.isin(np.arange(spec.shape[side]), inside)
        mask &= kept.reshape([-1 if i == side else 1 for i in range(len(spec.shape))])
    return mask.reshape(-1)


def range_problem(change: Change, spec: LatentSpec, *, at: str) -> Problem | None:
    """What is wrong with a change's layers, channels or region for these latents, or None."""
    fields: dict[Axis, str] = {"layer": "layers", "channel": "channels", "height": "region", "width": "region"}
    for axis, inside in _ranges(change).items():
        name = fields[axis]
        value = change.within[name]
        if axis not in spec.named_axes:
            reason = (
                f"latents of shape {list(spec.shape)} ({', '.join(spec.named_axes) or 'undeclared'}) have no {axis}."
            )
            return Problem(f"{at}.{name}", value, reason, "remove it")
        size = spec.shape[spec.named_axes.index(axis)]
        if not inside or not all(0 <= i < size for i in inside):
            return Problem(
                f"{at}.{name}", value, f"the latent's {axis} axis has {size} places.", f"stay within 0 to {size}"
            )
    return None


def _ranges(change: Change) -> dict[Axis, Sequence[int]]:
    """The places of each axis that a change may touch, for the axes it names."""
    found: dict[Axis, Sequence[int]] = {}
    if change.layers is not None:
        found["layer"] = range(*change.layers)
    if change.channels is not None:
        found["channel"] = change.channels
    if change.region is not None:
        top, left, bottom, right = change.region
        found |= {"height": range(top, bottom), "width": range(left, right)}
    return found


def _axes(
    step: EditStep, directions: dict[str, Direction], spec: LatentSpec, coordinates: CoordinateMoments | None
) -> list[EditAxis]:
    from_mean = step.mode == "set_projection" or (step.mode == "set_coordinate" and step.unit == "sigma")
    axes = []
    for change in step.changes:
        if change.direction is not None:
            axes.append(direction_axis(directions[change.direction], spec, unit=step.unit, at="edit"))
        elif change.coordinate is not None:
            j = change.coordinate
            axes.append(coordinate_axis(j, spec, coordinates, unit=step.unit, at="edit", from_mean=from_mean))
    return axes


def _set_points(vectors: Array, moves: Array, step: EditStep) -> Array:
    """Rows D (k, d) with D·vᵢ = eᵢ, made of the masked directions `moves`: row i moves projection i alone.

    Raises JobError where set-points cannot be reached: directions that follow from each other, or masks that leave nothing of them.
    """
    names = [change.named for change in step.changes]
    try:
        Basis.of(vectors)
        Basis.of(moves)
        crossed = vectors @ moves.T
        if np.linalg.cond(crossed) > MAX_CONDITION:
            raise Dependent(tuple(range(len(names))))
    except Dependent as error:
        together = ", ".join(names[i] for i in error.rows)
        where = " inside their layers, channels or region" if any(c.within for c in step.changes) else ""
        fix = "set fewer of them, or use mode: add"
        raise JobError.one("edit.changes", together, f"collinear{where}: no step sets each on its own.", fix) from error
    return np.asarray(np.linalg.solve(crossed.T, moves))
