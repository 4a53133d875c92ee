"""Second moments of the widest rows, known along a few directions: S ≈ U G Uᵀ + ρ(I − UUᵀ), never formed.

U (d, k) is the range that a randomised finder took for the strongest directions (Halko, Martinsson and Tropp 2011), G the
second moments of the rows along U, exact, and ρ what is left of the trace, spread evenly over the other d − k directions:
shrinkage of the rest towards its mean. Rows that span at most k directions are caught whole, and the sketch is exact;
otherwise `note` says how much of the variance U holds: what S does between U and the rest, and within the rest, is lost.
So a sketch chooses (a penalty, a shrinkage), and solves a system as the preconditioner of passes over the rows, which stop
at a residual that is told.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.moments import Moments
from stages.scatter.conjugate import Solved
from stages.scatter.strips import Floats, Matrix
from stages.scatter.whole import RANK_TOLERANCE, inverse

EXACT = 1e-9
"""A rest below this share of the trace is rounding."""


@dataclass(frozen=True)
class Frame:
    """Coordinates of a sketch: (z − centre)/unit along `basis` (d, k), orthonormal columns; `unit` (d,)."""

    centre: Floats
    unit: Floats
    basis: Floats


@dataclass(frozen=True)
class Along:
    """A fold: moments of the rows along a frame's basis."""

    frame: Frame

    def start(self) -> Moments:
        return Moments.empty(self.frame.basis.shape[1], full=True)

    def add(self, state: Moments, x: Matrix, z: Matrix) -> Moments:
        state.absorb(Moments.of((x - self.frame.centre) / self.frame.unit @ self.frame.basis, full=True))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


@dataclass(frozen=True)
class Sketched:
    """D⁻¹SD⁻¹ as far as a frame shows it, D = diag(frame.unit): `inside` (k, k) along the basis, `trace` of all of it."""

    frame: Frame
    inside: Floats
    trace: float

    @property
    def rest(self) -> float:
        """The mean eigenvalue across the basis."""
        d, k = self.frame.basis.shape
        left = self.trace - float(np.trace(self.inside))
        return left / (d - k) if d > k and left > EXACT * self.trace else 0.0

    @property
    def note(self) -> str:
        """What stands on less than all of S, to be said of a choice; nothing where the rows lie within the basis."""
        if not self.rest:
            return ""
        k, held = self.frame.basis.shape[1], float(np.trace(self.inside)) / self.trace
        return f" on a sketch of {k} directions with {100 * held:.1f} % of the variance"

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """Eigenvalues (k,) and vectors in columns (d, k)."""
        values, turn = np.linalg.eigh(self.inside)
        return np.maximum(values, 0), self.frame.basis @ turn

    def __matmul__(self, columns: Floats) -> Floats:
        """S·columns, in the latents' own coordinates; (d, m) → (d, m), or (d,) → (d,)."""
        values, vectors = self.spectrum
        scaled = (columns.T * self.frame.unit).T
        along = vectors.T @ scaled
        image = vectors @ ((values - self.rest) * along.T).T + self.rest * scaled
        return np.asarray((image.T * self.frame.unit).T)

    def solve(self, rhs: Floats, shifts: Floats) -> Solved:
        """x (s, d, m) of (D⁻¹SD⁻¹ + σI)x = b for every column b of `rhs` (d, m) and its shifts σ (s, m), S being the sketch."""
        values, vectors = self.spectrum
        along = vectors.T @ rhs
        across = rhs - vectors @ along
        tiny = RANK_TOLERANCE * float(values.max(initial=0))
        found = []
        for shift in shifts:
            outside = self.rest + shift
            kept = outside > tiny
            x = vectors @ (inverse(values, shift) * along)
            found.append(x + across * np.where(kept, 1 / np.where(kept, outside, 1.0), 0.0))
        return Solved(np.stack(found), np.zeros(shifts.shape))

    def squared_norm(self, unit: Floats) -> float:
        """Σ of the squares of D⁻¹SD⁻¹; `unit` must be the frame's."""
        assert np.array_equal(unit, self.frame.unit), "a sketch knows one set of coordinates"
        d, k = self.frame.basis.shape
        return float((self.spectrum[0] ** 2).sum() + self.rest**2 * (d - k))
