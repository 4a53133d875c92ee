"""Curvature of a classifier's loss from part of the rows: what makes a distributed Newton method short.

The Hessian of one problem is Σ q x xᵀ with q the loss's second derivative (logistic: p(1 − p)) and x = (latent − centre, 1). A row is taken with chance
min(1, k·q/Σq) and weight q over that chance, so the rows near the boundary, which carry the curvature, are the ones paid for, and k of
them tell it within √(coefficients/k). Whether a row is taken follows from the hash of its id. Where one matrix a problem is too
much memory, all problems share one (stages/directions/shared_curvature.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from stages.directions.newton import Floats
from stages.row_hash import Hashes, fractions

MAX_BYTES = 2**27
"""Of the Hessians of all problems together."""
MAX_INVERSE_BYTES = 2**28
"""Of the inverse Hessians that are kept for a bootstrap."""
ROWS_A_COEFFICIENT = 128
FLOOR = 1e-6
"""Added to diagonals, as a share of them: above the rounding of sums of float32 products."""
FLOOR_PRECISE = 1e-12
"""The same for float64."""
_ITERATIONS = 8


def hessians_at_once(coefficients: int) -> int:
    """How many fit in memory."""
    return MAX_BYTES // (8 * coefficients**2)


def estimated_hessian(
    latents: npt.NDArray[Any], q: npt.NDArray[Any], hashes: Hashes, *, total: float, rows: int = ROWS_A_COEFFICIENT
) -> npt.NDArray[Any]:
    """Of the rows at hand, (coefficients, coefficients), in the precision of the latents (rows, d), centred; q (rows,).

    `total`: Σq of all rows that are to be drawn from; `rows` a coefficient are drawn, and more where that costs little.
    """
    d = latents.shape[1]
    wanted = max(rows * d, 2**26 // d**2)
    chance = np.minimum(1.0, wanted / max(total, 1e-30) * q.astype(np.float64))
    taken = np.flatnonzero(fractions(hashes, "curvature") < chance)
    root = np.sqrt(q[taken] / chance[taken]).astype(latents.dtype)
    x = np.empty((len(taken), d + 1), latents.dtype)
    np.multiply(latents[taken], root[:, None], out=x[:, :d])
    x[:, d] = root
    return np.asarray(x.T @ x)


class Curvature:
    """The Hessian of every problem, factored."""

    def __init__(self, hessians: list[Floats], penalty: Floats, *, floor: float = FLOOR) -> None:
        """hessians: of the losses over the whole dataset; penalty (coefficients,): the weight of ½w² beside them."""
        self._penalty = penalty
        self._floor = floor
        self._hessians = hessians
        self._factors = [self._factor(h) for h in hessians]

    def replaced(self, better: Mapping[int, Floats], penalty: Floats) -> "Curvature":
        """The same with better Hessians for some problems."""
        return Curvature([better.get(i, h) for i, h in enumerate(self._hessians)], penalty, floor=self._floor)

    def solve(self, gradients: Floats, of: npt.NDArray[np.int64]) -> Floats:
        """gradients (coefficients, any number) → inverse Hessian × gradient, each with the Hessian of problem `of[i]`."""
        return np.column_stack([cho_solve(self._factors[i], g) for i, g in zip(of, gradients.T, strict=True)])

    def solve_all(self, problem: int, gradients: Floats) -> Floats:
        """Inverse Hessian of one problem × gradients (coefficients, any number)."""
        return np.asarray(cho_solve(self._factors[problem], gradients))

    def parameters(self, problem: int) -> float:
        """Effective number of coefficients: tr (H + P)⁻¹ H."""
        inverse = self.solve_all(problem, np.eye(len(self._penalty)))
        return len(self._penalty) - float(self._penalty @ np.diagonal(inverse))

    def weakest(self, problem: int, gram: Floats, start: Floats) -> float:
        """The smallest vᵀHv / vᵀGv, from `start` on, by inverse iteration: next to nothing where an optimum is at infinity.

        gram (coefficients, coefficients): Σ x xᵀ over the same rows; start (coefficients,): a guess at the direction.
        """
        gram = gram + self._floor * np.diag(np.diagonal(gram))
        ratio = np.inf
        if not start.any():  # an optimum at 0 points nowhere
            start = np.ones_like(start)
        for _ in range(_ITERATIONS):
            start = start / np.sqrt(start @ gram @ start)
            ratio = float(start @ self._hessians[problem] @ start)
            start = cho_solve(self._factors[problem], gram @ start)
        return ratio

    def standard_errors(self, problem: int) -> Floats:
        """Of the penalised estimate, (coefficients,): √diag of (H + P)⁻¹ H (H + P)⁻¹."""
        inverse = cho_solve(self._factors[problem], np.eye(len(self._penalty)))
        variance = np.einsum("ij,ij->i", inverse @ self._hessians[problem], inverse)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))

    def _factor(self, hessian: Floats) -> tuple[Floats, bool]:
        # The floor keeps a factor possible where latents are constant or collinear.
        diagonal = np.diagonal(hessian)
        floor = self._floor * np.maximum(diagonal, 1e-9 * diagonal.mean() + 1e-30)
        factor: tuple[Floats, bool] = cho_factor(hessian + np.diag(self._penalty + floor))
        return factor


class Inverses:
    """Inverse Hessians alone, in single precision: what one step of a bootstrap needs, where `Curvature` does not fit in memory."""

    def __init__(self, penalty: Floats) -> None:
        """penalty (coefficients,): the weight of ½w² beside the losses."""
        self._penalty = penalty
        self._factors: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        self._parameters: list[float] = []

    @classmethod
    def fit_in_memory(cls, coefficients: int, problems: int) -> bool:
        return 4 * problems * coefficients**2 <= MAX_INVERSE_BYTES

    def add(self, hessian: Floats) -> None:
        """That of the next problem: of the losses, over the whole dataset."""
        unit = np.sqrt(np.diagonal(hessian) + self._penalty + 1e-30)
        scaled = (hessian + np.diag(self._penalty)) / np.outer(unit, unit)
        scaled[np.diag_indices(len(unit))] += FLOOR
        factor, _ = cho_factor(scaled)
        inverse = cho_solve((factor, False), np.diag(self._penalty / unit))
        self._parameters.append(len(unit) - float((np.diagonal(inverse) / unit).sum()))
        self._factors.append((factor.astype(np.float32), unit.astype(np.float32)))

    def solve_all(self, problem: int, gradients: Floats) -> Floats:
        """As `Curvature.solve_all`."""
        factor, unit = self._factors[problem]
        scaled = (gradients / unit[:, None]).astype(np.float32)
        return np.asarray(cho_solve((factor, False), scaled) / unit[:, None], np.float64)

    def parameters(self, problem: int) -> float:
        """As `Curvature.parameters`."""
        return self._parameters[problem]
