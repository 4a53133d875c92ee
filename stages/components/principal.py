"""Principal components of rows of any width, from mergeable statistics, in bounded memory.

Up to `Limits.full` numbers a row the statistic is Σzzᵀ itself, from one pass, and the eigenvectors are LAPACK's. Up to
`Limits.strips` it is kept in strips, a pass each (stages/scatter/strips.py): as exact. Wider rows go through randomised subspace
iteration, whose residuals say how exact it is (`subspace.py`): a sketch is rows × columns, and nothing of size p × p exists.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stages.components.eigen import Eigen, Floats, leading
from stages.components.lanczos import lanczos
from stages.components.over_latents import Counted, Matrix, Over
from stages.components.subspace import subspace
from stages.moments import Moments
from stages.scatter.strips import BLOCK_VALUES, in_strips
from stages.stage import Passes


@dataclass(frozen=True)
class Limits:
    """Widths up to which the moments are kept whole, and in strips; and how large a strip may be."""

    full: int = 4096
    strips: int = 16384
    block_values: int = BLOCK_VALUES


@dataclass(frozen=True)
class SecondMoments:
    """A fold: the statistic of rows of `dim` numbers; `full` keeps Σxxᵀ, not its diagonal alone."""

    dim: int
    full: bool

    def start(self) -> Moments:
        return Moments.empty(self.dim, full=self.full)

    def add(self, state: Moments, x: Matrix, z: Matrix) -> Moments:
        state.absorb(Moments.of(x, full=self.full))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


@dataclass(frozen=True)
class Sketch:
    """A fold: Σ(x−centre)(x−centre)ᵀQ for a block of columns Q (p, l), of rows whose coordinates are in `unit`, (p,) or 1."""

    centre: Floats
    columns: Floats
    unit: Floats | float = 1.0

    def start(self) -> Floats:
        return np.zeros_like(self.columns)

    def add(self, state: Floats, x: Matrix, z: Matrix) -> Floats:
        centred = (x - self.centre) / self.unit
        state += centred.T @ (centred @ self.columns)
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


@dataclass(frozen=True, slots=True)
class Principal:
    """Components of `n` rows with mean `mean` (p,): `eigen` holds variances (divided by n − 1), unit vectors and residuals.

    `total` is the variance over all p coordinates. With fewer than two rows there are no components.
    """

    n: int
    non_finite: int
    mean: Floats
    total: float
    eigen: Eigen


def principal(
    over: Over, *, dim: int, count: int, limits: Limits, seed: int = 0, passes: int = 8
) -> Passes[Any, Principal]:
    """The `count` components of largest variance, at most `dim`. `seed` and `passes` matter to the widest rows only."""
    count = min(count, dim)
    first: Counted[Moments] = yield over(SecondMoments(dim, full=dim <= limits.full))
    moments = first.state
    total = float(moments.z_variance.sum())
    none = Eigen(np.zeros(0), np.zeros((0, dim)), np.zeros(0))
    found = Principal(moments.n, first.non_finite, moments.z_mean, total, none)
    if moments.n < 2:
        return found
    share = 1 / (moments.n - 1)
    if dim <= limits.full:
        eigen = leading(moments.zz, count)
    elif dim <= limits.strips and count < dim:
        (strips,) = yield from in_strips(
            over, lambda counted: [counted.state], centre=found.mean, block_values=limits.block_values
        )
        eigen = lanczos(strips, count)
    else:
        sketch: Callable[[Floats], Any] = lambda columns: over(Sketch(found.mean, columns))  # noqa: E731
        eigen = yield from subspace(
            sketch, lambda counted: counted.state, dim=dim, count=count, seed=seed, passes=passes
        )
    return replace(found, eigen=eigen.scaled(share))
