"""Several directions at once: projection, symmetric (Löwdin) orthogonalisation, and the dual basis (latent-science §3).

Directions are the rows of V (k, d); they must be linearly independent, and whoever is not is named, never worked around.
Projection takes from each direction what the others' plane holds of it, in order or against a given set. Löwdin (1950)
gives the orthonormal set nearest to all of them, whatever their order: (VVᵀ)^(−½)V. The dual basis D = (VVᵀ)⁻¹V has
D Vᵀ = I: a step along its row i changes score i alone, so z' = z + (s − (z − origin)Vᵀ)D reaches all set-points s at once.
Orthogonal is not unconfounded: a direction that was fitted confounded stays so (fit with `ols` or balanced cells instead).
"""

from dataclasses import dataclass

import numpy as np

from stages.attributes import Floats

RANK_TOLERANCE = 1e-6
"""Singular values of the unit rows below this share of the largest count as zero: rows closer than about a micro-radian."""


class Dependent(ValueError):
    """Directions that cannot be told apart; `rows` are the positions of those that take part in the dependence."""

    def __init__(self, rows: tuple[int, ...]) -> None:
        super().__init__(f"directions {', '.join(map(str, rows))} are linearly dependent")
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Basis:
    """Independent directions: `vectors` V (k, d) as given, `dual` D (k, d) with D Vᵀ = I; `condition` ≥ 1 of the unit rows."""

    vectors: Floats
    dual: Floats
    condition: float

    @classmethod
    def of(cls, vectors: Floats) -> "Basis":
        """vectors (k, d), k ≥ 1, finite. Raises Dependent with the rows that have zero length or follow from others."""
        v = np.atleast_2d(np.asarray(vectors, np.float64))
        lengths = np.linalg.norm(v, axis=1)
        if dependent := dependent_rows(v):
            raise Dependent(dependent)
        left, values, right = np.linalg.svd(v / lengths[:, None], full_matrices=False)
        dual = (left / values) @ right / lengths[:, None]
        return cls(v, dual, float(values[0] / values[-1]))


def dependent_rows(vectors: Floats) -> tuple[int, ...]:
    """Positions of the rows of (k, d) that take part in a linear dependence; zero rows are dependent on their own."""
    lengths = np.linalg.norm(vectors, axis=1)
    zero = lengths == 0
    used = np.flatnonzero(~zero)
    found = zero.copy()
    if len(used):
        unit = vectors[used] / lengths[used, None]
        # Full only where rows outnumber coordinates: elsewhere it would make a (d, d) matrix for nothing.
        left, values, _ = np.linalg.svd(unit, full_matrices=unit.shape[0] > unit.shape[1])
        rank = int((values > RANK_TOLERANCE * values[0]).sum())
        # The left null space holds the coefficients of every vanishing combination of rows.
        found[used] = (left[:, rank:] ** 2).sum(1) > RANK_TOLERANCE
    return tuple(np.flatnonzero(found).tolist())


def project_out(vectors: Floats, others: Floats) -> Floats:
    """What is left of each row of `vectors` (k, d) outside the span of `others` (m, d), by least squares.

    Raises Dependent for others that are not independent. A row that lies in their span, to rounding, comes back as zero.
    """
    if not len(others):
        return np.array(vectors, np.float64)
    basis = Basis.of(others)
    # Twice: the second round takes out what rounding left of near-parallel rows (Björck 1967).
    left = vectors - (vectors @ basis.dual.T) @ basis.vectors
    left -= (left @ basis.dual.T) @ basis.vectors
    lost = np.linalg.norm(left, axis=1) <= RANK_TOLERANCE * np.linalg.norm(vectors, axis=1)
    left[lost] = 0.0
    return np.asarray(left)


def lowdin(vectors: Floats) -> Floats:
    """The orthonormal rows nearest to the unit rows of (k, d) in least squares. Raises Dependent."""
    v = np.asarray(vectors, np.float64)
    if dependent := dependent_rows(v):
        raise Dependent(dependent)
    # (UUᵀ)^(−½)U = PQᵀ of the thin singular value decomposition U = PΣQᵀ.
    left, _, right = np.linalg.svd(v / np.linalg.norm(v, axis=1)[:, None], full_matrices=False)
    return np.asarray(left @ right)
