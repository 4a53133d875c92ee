"""Mean of the rows, and their standard deviation along given directions: what `sigma` strengths and projections need."""

from dataclasses import dataclass

import numpy as np

from stages.components.eigen import Floats
from stages.components.found import Rows
from stages.components.over_latents import Matrix
from stages.moments import Moments


@dataclass(slots=True)
class Spread:
    """Moments of the latents and of their scores along each direction, diagonals only."""

    latents: Moments
    scores: Moments

    def rows(self, *, non_finite: int = 0) -> Rows:
        return Rows(self.latents.n, non_finite, self.latents.z_mean, np.sqrt(self.scores.z_variance))


@dataclass(frozen=True)
class Along:
    """A fold over latents; `directions` (k, d) of unit length."""

    directions: Floats

    def start(self) -> Spread:
        k, d = self.directions.shape
        return Spread(Moments.empty(d, full=False), Moments.empty(k, full=False))

    def add(self, state: Spread, x: Matrix, z: Matrix) -> Spread:
        state.latents.absorb(Moments.of(z, full=False))
        state.scores.absorb(Moments.of(z @ self.directions.T, full=False))
        return state

    def merge(self, a: Spread, b: Spread) -> Spread:
        return Spread(a.latents.merged(b.latents), a.scores.merged(b.scores))
