"""Edit: latents → codes, several named changes at once, one strip a row, from nothing to the whole edit.

With nᵢ the unit directions, αᵢ the strengths as lengths, μ the data's mean, cᵢ = nᵢᵀ(z − μ), and Mᵢ the mask of change i (its layers,
channels or region; all of the latent without one), the edit is z + Δ (latent-science §3, §4):

    add             Δ = Σ αᵢ Mᵢnᵢ
    set_coordinate  Δ = Σ (αᵢ − cᵢ) Mᵢnᵢ               each read and set on its own (GANSpace, as e4e does it)
    set_projection  Δ = U(VᵀU)⁻¹(α − c), U = [Mᵢnᵢ]    all projections come to stand at their αᵢ, moving inside the masks only;
                                                       without masks V(VᵀV)⁻¹(α − c), the dual basis

A frame is z + part·Δ; with `calibrate: row` (one change, `add`) it is z + αMn, α solved by row so that the decoded picture shows
part·strength (stages/code_sets/calibrated.py). Coordinates are measured as traverse does: set_coordinate in units `latent` and
`quantile` from the space's origin.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import EditStep
from stages.code_sets.axes import Axis, CoordinateMoments, Direction, coordinate_axis, direction_axis, row_dots
from stages.code_sets.calibrated import Calibrated, calibrated
from stages.code_sets.codes import Strip, Strips, codes_batch, distance, operation, unwarned
from stages.code_sets.parents import LATENT, NON_FINITE, read_parents
from stages.code_sets.places import place_problems, weights
from stages.code_sets.quantiles import CoordinateQuantiles, quantile_axis
from stages.code_sets.trust import Trust, held, shell
from stages.directions.compose import Basis, Dependent

if TYPE_CHECKING:
    from stages.codecs.base import Codec

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
    columns = LATENT

    def __init__(
        self,
        step: EditStep,
        directions: Sequence[Direction],
        spec: LatentSpec,
        *,
        coordinates: CoordinateMoments | CoordinateQuantiles | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._step, self._spec = step, spec
        self._trust = trust or shell(spec)
        self._axes = _axes(step, {d.name: d for d in directions}, spec, coordinates)
        self._alphas = np.array([a.lengths([c.strength])[0] for c, a in zip(step.changes, self._axes, strict=True)])
        if problems := [p for c in step.changes for p in place_problems(spec, at="edit.changes", **c.within)]:
            raise JobError(problems)
        masked = [
            weights(spec, **c.within).reshape(-1) * a.vector for c, a in zip(step.changes, self._axes, strict=True)
        ]
        self._moves = np.stack(masked)  # (k, d): what one unit of length does
        if step.mode == "set_projection":
            self._moves = _set_points(np.stack([a.vector for a in self._axes]), self._moves, step)

    @property
    def frames(self) -> int:
        """Frames a strip: the parts of the edit."""
        return len(self._step.parts)

    @property
    def needs_codec(self) -> bool:
        return self._step.calibrate == "row"

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        with unwarned():
            made = self._made(z := rows.numbers[:, 0], codec)
            moved = distance(made.codes, z)
        strips = Strips(
            of=[[Strip(self.title, operation(self._step, **self.said()), about=self.title)]] * len(rows),
            strengths=self._step.parts,
            unit="part",
            latents=made.codes,
            lost=np.where((rows.lost == "") & ~made.scored, NON_FINITE, rows.lost),
            marks=made.marks,
            moved=moved,
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _made(self, z: Array, codec: "Codec | None") -> Calibrated:
        step, parts = self._step, np.asarray(self._step.parts, np.float64)
        if step.calibrate == "mean":
            codes, marks = held(self._trust, z, z[:, None, :] + parts[:, None] * self.displacement(z)[:, None, :])
            return Calibrated(codes, marks, np.ones(len(z), np.bool_))
        assert codec is not None, "the codec comes beside each batch"
        (axis,), (move,), asked = self._axes, self._moves, parts * step.changes[0].strength
        return calibrated(z, asked, axis=axis, move=move, trust=self._trust, codec=codec, at=str(step.name))

    def displacement(self, z: Array) -> Array:
        """Δ of rows z (n, d)."""
        amounts = np.tile(self._alphas, (len(z), 1))
        if self._step.mode != "add":
            amounts -= np.stack([row_dots(z - a.mean, a.vector) for a in self._axes], axis=1)
        return sum((amounts[:, i, None] * move for i, move in enumerate(self._moves)), np.zeros(z.shape))

    @property
    def title(self) -> str:
        """What is changed, by name."""
        return ", ".join(axis.title for axis in self._axes)

    def said(self) -> dict[str, Any]:
        """What is done, as plain data."""
        changes = [
            {**axis.about, "strength": change.strength, **change.within}
            for change, axis in zip(self._step.changes, self._axes, strict=True)
        ]
        by_row = {"calibrate": self._step.calibrate} if self.needs_codec else {}
        return {"mode": self._step.mode, "unit": self._step.unit, **by_row, "changes": changes}


def _axes(
    step: EditStep,
    directions: dict[str, Direction],
    spec: LatentSpec,
    coordinates: CoordinateMoments | CoordinateQuantiles | None,
) -> list[Axis]:
    if step.unit == "quantile":
        assert not isinstance(coordinates, CoordinateMoments), "quantiles come from a sample"
        return [
            quantile_axis(c.coordinate, spec, coordinates, [c.strength], at="edit")
            for c in step.changes
            if c.coordinate is not None
        ]
    assert not isinstance(coordinates, CoordinateQuantiles), "lengths come from moments"
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
