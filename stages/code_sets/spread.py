"""What code sets need to know of the data, in one pass each: mean and spread of the latents, and a sample of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.code_sets.axes import CoordinateMoments
from stages.moments import Moments
from stages.rows import finite_rows, read_latents
from stages.sample import Sample


@dataclass(frozen=True)
class CoordinateSpread:
    """A reduce stage over batches with `latent` of `dim` numbers. Rows that are null or not finite are left out.

    `full` keeps the covariance, not its diagonal alone.
    """

    dim: int
    full: bool = False

    def start(self) -> Moments:
        return Moments.empty(self.dim, full=self.full)

    def add(self, state: Moments, batch: pa.RecordBatch) -> Moments:
        latents, good = finite_rows(batch.column("latent"))
        state.absorb(Moments.of(latents[good], full=self.full))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


def coordinate_moments(state: Moments) -> CoordinateMoments:
    """Mean and standard deviation (divided by n − 1) per coordinate, each (d,)."""
    return CoordinateMoments(mean=state.z_mean, std=np.sqrt(state.z_variance))


@dataclass(slots=True)
class Sampled:
    """`sample` of the rows that are finite, and how many are not: `non_finite`, of all rows, not of the sample's."""

    sample: Sample
    non_finite: int = 0


@dataclass(frozen=True)
class LatentSample:
    """A reduce stage over batches with `id` and `latent`: the rows with the smallest hashes of their ids, at most `capacity`.

    Rows that are not finite are left out and counted; the sample depends on the ids alone.
    """

    dim: int
    capacity: int

    def start(self) -> Sampled:
        return Sampled(Sample(self.dim, 0, self.capacity))

    def add(self, state: Sampled, batch: pa.RecordBatch) -> Sampled:
        for block in read_latents(batch):
            state.sample.add(block)
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Sampled, b: Sampled) -> Sampled:
        return Sampled(a.sample.merged(b.sample), a.non_finite + b.non_finite)
