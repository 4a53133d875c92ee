"""Conjugate gradients for symmetric systems of which only products are known, for several shifts of the matrix at once.

(A + σI)x = b for all σ of a column span the same Krylov spaces, and residuals of different σ are parallel, so one product an
iteration serves every shift (Jegerlehner 1996; Frommer and Maass 1999). The smallest shift converges last. From x = 0 a
singular but consistent system gets its least solution.

Where a product is a pass over the data, a preconditioner makes the passes few.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.stage import Passes

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_ITERATIONS = 4000
TRIED_ITERATIONS = 500
"""Where a solution is only tried: what takes more is badly determined, and seldom the best."""
TOLERANCE = 1e-11
"""Iterations stop when the residual they keep track of is below this share of b."""
REACHED = 1e-8
"""A solution counts as reached when its true residual is below this share of b."""
MAX_PASSES = 12
PASSES_TOLERANCE = 1e-6
"""The same where a product is a pass: closer than the rows' own noise would ever tell."""


@dataclass(frozen=True, slots=True)
class Solved:
    """Solutions `x` (s, d, m), and the length of each one's residual as a share of b's, (s, m)."""

    x: Floats
    residual: Floats

    @property
    def reached(self) -> Bools:
        """(s, m)"""
        return self.residual <= REACHED


def residual_words(residual: float) -> tuple[str, ...]:
    """What to say of a solution by passes that ended early; nothing of others."""
    if residual <= PASSES_TOLERANCE:
        return ()
    return (f"approximate: passes ended at a residual of {residual:.1g}",)


def conjugate_gradients(
    apply: Callable[[Floats], Floats], rhs: Floats, shifts: Floats, *, iterations: int = MAX_ITERATIONS
) -> Solved:
    """x (s, d, m) of (A + σI)x = b for every column b of `rhs` (d, m) and its shifts σ ≥ 0 (s, m), in `iterations` at most.

    `apply`: (d, m) → A·columns (d, m), A ≥ 0 and maybe another one for each column.
    """
    base = shifts.min(axis=0)
    apart = shifts - base
    x = np.zeros((len(shifts), *rhs.shape))
    p, steps = rhs.copy(), np.broadcast_to(rhs, x.shape).copy()
    r = rhs.copy()
    size = (r * r).sum(0)
    goal = TOLERANCE**2 * size
    share = np.ones(shifts.shape)  # of the base system's residual that is left of each shift's
    ratio, alpha, beta = np.ones(shifts.shape), np.ones(rhs.shape[1]), np.zeros(rhs.shape[1])
    for _ in range(iterations):
        q = apply(p) + base * p
        bend = (p * q).sum(0)
        going = (size > goal) & (bend > 0)  # without bend the rows say nothing of what is left of b
        if not going.any():
            break
        before, alpha = alpha, np.where(going, size / np.where(bend > 0, bend, 1.0), 0.0)
        held = alpha * beta / np.where(before > 0, before, 1.0)
        ratio = 1 / (1 + alpha * apart + held * (1 - ratio))
        share = share * ratio
        r -= alpha * q
        left = (r * r).sum(0)
        beta = np.where(going, left / np.where(size > 0, size, 1.0), 0.0)
        for k, one in enumerate(steps):
            x[k] += (alpha * ratio[k]) * one
            one *= beta * ratio[k] ** 2
            one += share[k] * r
        p = r + beta * p
        size = left
    return Solved(x, _residual(apply, rhs, shifts, x))


def _residual(apply: Callable[[Floats], Floats], rhs: Floats, shifts: Floats, x: Floats) -> Floats:
    """Computed anew: rounding may have carried the iterations' own residuals away."""
    left = [np.linalg.norm(rhs - apply(one) - shift * one, axis=0) for one, shift in zip(x, shifts, strict=True)]
    return np.array(left) / _length(rhs)


def by_passes(
    multiply: Callable[[Floats], Passes[Any, Floats]],
    precondition: Callable[[Floats], Floats],
    rhs: Floats,
    shifts: Floats,
) -> Passes[Any, Solved]:
    """x (1, d, m) of (A + σI)x = b for every column b of `rhs` (d, m) and its shift (m,): a pass an iteration, MAX_PASSES at most.

    `multiply`: (d, m) → A·columns; `precondition`: (d, m) → about (A + σI)⁻¹·columns, symmetric and positive.
    """
    x, r, p = np.zeros_like(rhs), rhs.copy(), precondition(rhs)
    drop, goal = (r * p).sum(0), PASSES_TOLERANCE * _length(rhs)
    for _ in range(MAX_PASSES):
        going = np.linalg.norm(r, axis=0) > goal
        if not going.any():
            break
        q = (yield from multiply(p)) + shifts * p
        bend = (p * q).sum(0)
        alpha = np.where(going & (bend > 0), drop / np.where(bend > 0, bend, 1.0), 0.0)
        x += alpha * p
        r -= alpha * q
        z = precondition(r)
        before, drop = drop, (r * z).sum(0)
        p = z + np.where(before > 0, drop / np.where(before > 0, before, 1.0), 0.0) * p
    return Solved(x[None], (np.linalg.norm(r, axis=0) / _length(rhs))[None])


def _length(columns: Floats) -> Floats:
    """(m,), 1 for a column of zeros."""
    length = np.linalg.norm(columns, axis=0)
    return np.where(length > 0, length, 1.0)
