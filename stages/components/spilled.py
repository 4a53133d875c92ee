"""The second moments of wide rows in blocks: exact where the whole matrix is too large for one process.

With the mean known, Σ(z−μ)(z−μ)ᵀ is a plain sum, so one pass can keep a strip of its upper triangle alone, and strips are
written to disk as passes finish. The eigenvectors come from Lanczos on the strips, read from disk as they are needed.

Memory, at d = 16,384 (float64): a strip is at most BLOCK_VALUES × 8 = 134 MB; a worker holds one that grows and one that is
merged; the file is d²/2 × 8 = 1.07 GB, mapped, so the system may drop its pages; Lanczos keeps 2k+1 vectors of d numbers,
21 MB at k = 80. Passes: 10 (d²/2 ÷ BLOCK_VALUES = 8, and strips are rectangles around a triangle).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from stages.components.eigen import Eigen, Floats
from stages.components.over_latents import Matrix, Over
from stages.stage import Passes

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


def spilled(over: Over, *, centre: Floats, count: int, block_values: int = BLOCK_VALUES) -> Passes[Any, Eigen]:
    """The `count` leading eigenpairs of Σ(x−centre)(x−centre)ᵀ (not divided by n); one pass a strip. count < p."""
    p = len(centre)
    with TemporaryDirectory(prefix="latentmill-moments-") as folder:
        strips: list[tuple[int, Floats]] = []
        for start, stop in cuts(p, block_values):
            counted = yield over(Strip(centre, start, stop))
            path = Path(folder) / f"{start}.npy"
            np.save(path, counted.state)
            del counted
            strips.append((start, np.load(path, mmap_mode="r")))
        found = _lanczos(_product(strips, p), p, count)
        del strips  # unmapped before the folder goes
        return found


def cuts(p: int, block_values: int) -> list[tuple[int, int]]:
    """Rows of the strips: as many as keep a strip, from its diagonal to the right edge, within `block_values` numbers."""
    edges = [0]
    while edges[-1] < p:
        edges.append(min(p, edges[-1] + max(1, block_values // (p - edges[-1]))))
    return list(pairwise(edges))


def _product(strips: list[tuple[int, Floats]], p: int) -> Callable[[Floats], Floats]:
    def apply(vector: Floats) -> Floats:
        vector = vector.reshape(-1)
        out = np.zeros(p)
        for start, strip in strips:
            stop = start + len(strip)
            # A strip holds both halves of its diagonal block, and what is right of it stands below it too.
            out[start:stop] += strip @ vector[start:]
            out[stop:] += vector[start:stop] @ strip[:, len(strip) :]
        return out

    return apply


def _lanczos(apply: Callable[[Floats], Floats], p: int, count: int) -> Eigen:
    operator = LinearOperator((p, p), matvec=apply, dtype=np.float64)
    # The same start everywhere: the answer may not depend on the machine beyond rounding.
    first = np.random.Generator(np.random.Philox(0)).standard_normal(p)
    if not apply(first).any():
        return Eigen(np.zeros(count), np.eye(count, p), np.zeros(count))
    values, vectors = eigsh(operator, k=count, which="LA", v0=first, tol=0)
    residuals = [float(np.linalg.norm(apply(v) - x * v)) for x, v in zip(values, vectors.T, strict=True)]
    return Eigen.of(values, vectors, residuals=np.array(residuals))
