"""Traverse: latents → codes along directions and coordinates, one strip a (row, axis), one frame a strength.

Formulas (latent-science §4), with n the unit direction, μ the data's mean, z the latent, and α the strength in latent
units (a `sigma` or `effect` strength is first multiplied by the length of its unit, stages/code_sets/axes.py):

    add             z + αn                       α from where the row is; α = 0 gives the latent exactly
    set_projection  z + (α − nᵀ(z−μ))n           α from the data's mean, so α = 0 is the average projection
    set_coordinate  z_j = α   (unit latent)      α from the space's origin
    set_coordinate  z_j = Q_j(α)   (quantile)    the value below which a share α of the data's own coordinate is
                    z_j = μ_j + ασ_j (sigma)     α from the data's mean

With `calibrate: row` the α of `add` is solved by row, so that decoded pictures show the strength (stages/code_sets/calibrated.py).

A coordinate j is the axis n = e_j. All in float64; codes are stored as float32. With a trust region, steps that leave it
are shortened to its edge and flagged `clipped`, or flagged `atypical` only (stages/code_sets/trust.py).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import TraverseStep
from stages.code_sets.axes import Axis, CoordinateMoments, Direction, coordinate_axis, direction_axis, row_dots
from stages.code_sets.calibrated import Calibrated, calibrated
from stages.code_sets.codes import Strip, Strips, codes_batch, distance, operation, unwarned
from stages.code_sets.parents import LATENT, NON_FINITE, read_parents
from stages.code_sets.quantiles import CoordinateQuantiles, quantile_axis
from stages.code_sets.trust import Trust, held

if TYPE_CHECKING:
    from stages.codecs.base import Codec

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Walked:
    axis: Axis
    strip: Strip
    alphas: Array  # (frames,) in latent units


class Traverse:
    """Expands rows into strips. Picklable plain data; call it with batches of one parent (stages.code_sets.parents).

    A row whose latent is not finite keeps its strips, with null
    latents and the flag `nan_input`.

    Raises JobError for a coordinate outside the latent, a sigma strength along an axis the data does not vary on, or
    missing moments; SpaceMismatch for a direction of another size.
    """

    parents = 1
    columns = LATENT

    def __init__(
        self,
        step: TraverseStep,
        directions: list[Direction],
        spec: LatentSpec,
        *,
        coordinates: CoordinateMoments | CoordinateQuantiles | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._step, self._spec, self._trust = step, spec, trust
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

    @property
    def needs_codec(self) -> bool:
        return self._step.calibrate == "row"

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        z, shape = rows.numbers[:, 0], (len(rows), self.strips, self.frames)
        codes, moved, lost = np.empty((*shape, self._spec.dim), np.float32), np.empty(shape), []
        marks: dict[str, npt.NDArray[np.bool_]] = {}
        with unwarned():
            for i, walked in enumerate(self._axes):
                made = self._made(walked, z, codec)
                codes[:, i], moved[:, i] = made.codes, distance(made.codes, z)
                lost.append(np.where((rows.lost == "") & ~made.scored, NON_FINITE, rows.lost))
                for flag, mask in made.marks.items():
                    marks.setdefault(flag, np.zeros(shape, np.bool_))[:, i] = mask
        strips = Strips(
            of=[[walked.strip for walked in self._axes]] * len(rows),
            strengths=self._step.strengths,
            unit=self._step.unit,
            latents=codes,
            lost=np.stack(lost, axis=1),
            marks=marks,
            moved=moved,
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _made(self, walked: _Walked, z: Array, codec: "Codec | None") -> Calibrated:
        if self._step.calibrate == "mean":
            codes, marks = held(self._trust, z, _walk(walked, z, self._step.mode))
            return Calibrated(codes, marks, np.ones(len(z), np.bool_))
        assert codec is not None, "the codec comes beside each batch"
        asked, axis = np.asarray(self._step.strengths, np.float64), walked.axis
        return calibrated(
            z, asked, axis=axis, move=axis.vector, trust=self._trust, codec=codec, at=str(self._step.name)
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


def _coordinate(
    step: TraverseStep, j: int, spec: LatentSpec, known: CoordinateMoments | CoordinateQuantiles | None
) -> _Walked:
    if step.unit == "quantile":
        assert not isinstance(known, CoordinateMoments), "quantiles come from a sample"
        return _walked(step, quantile_axis(j, spec, known, step.strengths, at="traverse"))
    assert not isinstance(known, CoordinateQuantiles), "lengths come from moments"
    from_mean = step.mode == "set_projection" or (step.mode == "set_coordinate" and step.unit == "sigma")
    return _walked(step, coordinate_axis(j, spec, known, unit=step.unit, at="traverse", from_mean=from_mean))


def _walked(step: TraverseStep, axis: Axis) -> _Walked:
    by_row = ("calibrate",) if step.calibrate == "row" else ()
    strip = Strip(axis.title, operation(step, "mode", "unit", *by_row, **axis.about), about=axis.title)
    return _Walked(axis, strip, axis.lengths(step.strengths))
