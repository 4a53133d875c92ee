"""Quantiles of the data along coordinates, in one pass that merges: from a sample of rows by hash of the id, its rank error stated.

Up to SAMPLE_ROWS rows (fewer when many coordinates are asked for) the quantiles are exact and equal NumPy's (linear, its default).
Of more rows, N, the n with the smallest hashes are a draw without replacement. The value given for q then has between a share
q − ε and q + ε of the data below it, with probability `CONFIDENCE`, where

    ε = √(ln(2/(1 − CONFIDENCE)) / 2n)

by Hoeffding's inequality, which holds without replacement too (Hoeffding 1963, §6) and asks nothing of the distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from stages.code_sets.axes import Axis, check_coordinate
from stages.rows import read_latents
from stages.sample import MAX_VALUES, Sample

SAMPLE_ROWS = 2**20
CONFIDENCE = 0.99


@dataclass(slots=True)
class Drawn:
    """`sample`: rows of the asked coordinates alone; `rows`: how many there were, finite in all coordinates."""

    sample: Sample
    rows: int = 0


@dataclass(frozen=True)
class CoordinateSample:
    """A reduce stage over batches with `id` and `latent`. Rows that are null or not finite are left out."""

    coordinates: tuple[int, ...]
    capacity: int = SAMPLE_ROWS

    def start(self) -> Drawn:
        rows = min(self.capacity, MAX_VALUES // len(self.coordinates))
        return Drawn(Sample(len(self.coordinates), 0, max(1, rows)))

    def add(self, state: Drawn, batch: pa.RecordBatch) -> Drawn:
        for block in read_latents(batch):
            state.sample.add(replace(block, latents=block.latents[:, list(self.coordinates)]))
            state.rows += len(block)
        return state

    def merge(self, a: Drawn, b: Drawn) -> Drawn:
        return Drawn(a.sample.merged(b.sample), a.rows + b.rows)


@dataclass(frozen=True, eq=False)
class CoordinateQuantiles:
    """`values` (coordinates, n) float64, each row ascending; `rank_error` ε, 0 where all rows of the data are in it."""

    coordinates: tuple[int, ...]
    values: npt.NDArray[np.float64]
    rank_error: float

    @classmethod
    def of(cls, drawn: Drawn, coordinates: tuple[int, ...]) -> "CoordinateQuantiles":
        kept = drawn.sample.rows().latents
        error = 0.0 if drawn.rows == len(kept) else math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * len(kept)))
        return cls(coordinates, np.sort(kept.T.astype(np.float64), axis=1), error)

    def at(self, j: int, shares: Sequence[float]) -> npt.NDArray[np.float64]:
        """The values at these quantiles of coordinate j, each share in (0, 1)."""
        return np.asarray(np.quantile(self.values[self.coordinates.index(j)], shares))


def quantile_axis(
    j: int, spec: LatentSpec, quantiles: CoordinateQuantiles | None, strengths: Sequence[float], *, at: str
) -> Axis:
    """Coordinate j, set to the values at the quantiles `strengths`, measured from the space's origin; `at` names the step in errors.

    Raises JobError for a coordinate outside the latent, without rows, and for a quantile so near 0 or 1 that the sample, by its
    rank error, cannot tell it from the end.
    """
    check_coordinate(j, spec, at=at)
    if quantiles is None or not quantiles.values.size:
        raise JobError.one(f"{at}.unit", "quantile", "there are no latents to take it from.", "encode some rows first")
    error = quantiles.rank_error
    if beyond := [q for q in strengths if not error <= q <= 1 - error]:
        reason = f"the sample tells quantiles within ±{error:.2g} only."
        raise JobError.one(f"{at}.strengths", beyond[0], reason, f"use {error:.2g} to {1 - error:.4g}, or unit: latent")
    found = quantiles.at(j, strengths).tolist()
    about = {"coordinate": j, "values": found, "rank_error": error}
    origin, vector = np.zeros(spec.dim), np.eye(1, spec.dim, j)[0]
    return Axis(
        f"coordinate {j}", vector, origin, 1.0, about, coordinate=j, values=dict(zip(strengths, found, strict=True))
    )
