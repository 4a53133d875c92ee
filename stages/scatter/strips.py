"""Second moments of wide rows in strips on disk: exact where the whole matrix is too large for one process.

With a centre fixed beforehand, Σ(z−c)(z−c)ᵀ is a plain sum, so one pass can keep a strip of its upper triangle alone, and
strips are written to disk as passes finish. Products with the matrix read them from there; solutions come from conjugate
gradients on those products.

Memory, at d = 16,384 (float64): a pass keeps at most BLOCK_VALUES × 8 = 134 MB; a worker holds one state that grows and one
that is merged; a matrix is d²/2 × 8 = 1.07 GB of a file, mapped, so the system may drop its pages. Passes: 10 (d²/2 ÷
BLOCK_VALUES = 8, and strips are rectangles around a triangle), times the matrices that are kept side by side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.scatter.conjugate import MAX_ITERATIONS, Solved, conjugate_gradients
from stages.scatter.spilled import Spilled
from stages.stage import Passes, ReduceStage

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[Any]

BLOCK_VALUES = 2**24
_STRIPE = 256


@dataclass(frozen=True)
class Strip:
    """A fold: rows `start` to `stop` of the upper triangle of Σ(x−centre)(x−centre)ᵀ, (stop−start, p−start)."""

    centre: Floats
    start_row: int
    stop_row: int

    def start(self) -> Floats:
        return np.zeros((self.stop_row - self.start_row, len(self.centre) - self.start_row))

    def add(self, state: Floats, x: Matrix, z: Matrix) -> Floats:
        right = x[:, self.start_row :] - self.centre[self.start_row :]
        for at in range(0, len(state), _STRIPE):
            rows = slice(at, min(at + _STRIPE, len(state)))
            state[rows] += right[:, rows].T @ right
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


@dataclass(frozen=True)
class Strips:
    """A symmetric matrix (d, d) ≥ 0 by strips of its upper triangle, on disk."""

    strips: tuple[Spilled, ...]
    note = ""

    @property
    def dim(self) -> int:
        return self.strips[0].shape[1]

    def __matmul__(self, columns: Floats) -> Floats:
        """(d, m) → (d, m), or (d,) → (d,)."""
        out = np.zeros(columns.shape)
        for start, strip in self._read():
            stop = start + len(strip)
            # A strip holds both halves of its diagonal block, and what is right of it stands below it too.
            out[start:stop] += strip @ columns[start:]
            out[stop:] += strip[:, len(strip) :].T @ columns[start:stop]
        return out

    def solve(
        self, rhs: Floats, shifts: Floats, *, unit: Floats | float = 1.0, iterations: int = MAX_ITERATIONS
    ) -> Solved:
        """x (s, d, m) of (D⁻¹SD⁻¹ + σI)x = b for every column b of `rhs` (d, m) and its shifts σ (s, m); D is diag(unit),
        `unit` (d, m) or 1.
        """
        return conjugate_gradients(lambda v: (self @ (v / unit)) / unit, rhs, shifts, iterations=iterations)

    def squared_norm(self, unit: Floats) -> float:
        """Σ of the squares of D⁻¹SD⁻¹, D = diag(unit), `unit` (d,)."""
        weight, total = 1 / unit**2, 0.0
        for start, strip in self._read():
            along = weight[start : start + len(strip)] @ strip**2
            double = np.where(np.arange(len(along)) < len(strip), 1.0, 2.0)
            total += float((along * double) @ weight[start:])
        return total

    def dense(self) -> Floats:
        """The whole matrix, in memory."""
        found = np.empty((self.dim, self.dim))
        for start, strip in self._read():
            stop = start + len(strip)
            found[start:stop, start:] = strip
            found[stop:, start:stop] = strip[:, len(strip) :].T
        for spilled in self.strips:
            spilled.let_go()
        return found

    def _read(self) -> Iterator[tuple[int, Floats]]:
        return ((strip.start, strip.numbers) for strip in self.strips)


def in_strips(
    over: Callable[[Strip], ReduceStage[Any]],
    matrices: Callable[[Any], Sequence[Floats]],
    *,
    centre: Floats,
    block_values: int,
) -> Passes[Any, list[Strips]]:
    """Matrices Σ(z−centre)(z−centre)ᵀ of several sets of rows, by a pass a strip of at most `block_values` numbers.

    `over` makes the reduce stage of a strip; `matrices` tells each matrix's strip from its state.
    """
    kept: list[list[Spilled]] = []
    for start, stop in cuts(len(centre), block_values):
        state = yield over(Strip(centre, start, stop))
        kept.append([Spilled.of(start, strip) for strip in matrices(state)])
        del state
    return [Strips(strips) for strips in zip(*kept, strict=True)]


def together(parts: Sequence[Strips], *, n: int, shift: Floats) -> Strips:
    """Σ(z−μ)(z−μ)ᵀ of the `n` rows of all parts about their own mean μ, of parts kept about one centre; `shift` = μ − centre."""
    found = []
    for pieces in zip(*(part.strips for part in parts), strict=True):
        start = pieces[0].start
        strip = np.zeros(pieces[0].shape)
        for piece in pieces:
            strip += piece.numbers
            piece.let_go()
        for at in range(0, len(strip), _STRIPE):
            rows = shift[start + at : start + min(at + _STRIPE, len(strip))]
            strip[at : at + _STRIPE] -= np.outer(n * rows, shift[start:])
        found.append(Spilled.of(start, strip))
    return Strips(tuple(found))


def cuts(p: int, block_values: int) -> list[tuple[int, int]]:
    """Rows of the strips: as many as keep a strip, from its diagonal to the right edge, within `block_values` numbers."""
    edges = [0]
    while edges[-1] < p:
        edges.append(min(p, edges[-1] + max(1, block_values // (p - edges[-1]))))
    return list(pairwise(edges))
