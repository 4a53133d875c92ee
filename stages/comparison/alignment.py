"""Orthogonal Procrustes between two latent spaces, and how alike they are.

x ≈ μ_x + s·(y − μ_y)R,  R = UVᵀ of Σ_yx = USVᵀ, s = ΣS/tr RᵀΣ_yyR  (Schönemann 1966; Gower & Dijksterhuis 2004)

Where y is not the wider one tr RᵀΣ_yyR = tr Σ_yy, the textbook's. Of a wider y only what R keeps counts: numbers of its own, which x has
nothing of, must not shrink the rest.

Disparity is the share of x's variance that is not explained. Judged on rows that took no part in the fit it is near 1 for
spaces that have nothing to do with each other; on the fitted rows it flatters. Linear CKA = ‖Σ_xy‖²/(‖Σ_xx‖‖Σ_yy‖), Frobenius
(Kornblith et al. 2019).
"""

from dataclasses import dataclass

import numpy as np

from stages.attributes import Floats
from stages.comparison.paired import Joint


@dataclass(frozen=True, eq=False)
class Alignment:
    """`rotation` (d_y, d_x), orthonormal rows or columns; `scale` s; means (d_x,) and (d_y,)."""

    rotation: Floats
    scale: float
    x_mean: Floats
    y_mean: Floats

    def __call__(self, y: Floats) -> Floats:
        """(n, d_y) → (n, d_x): where the rows of y would lie among the x, about μ_x."""
        return np.asarray(self.scale * ((y - self.y_mean) @ self.rotation))


def procrustes(joint: Joint) -> Alignment | None:
    """The rotation from y to x that goes with their covariance, and its best scale; None where one of them does not vary."""
    if joint.n < 2 or np.trace(joint.yy) <= 0 or np.trace(joint.xx) <= 0:
        return None
    left, values, right = np.linalg.svd(joint.xy.T, full_matrices=False)
    rotation = left @ right
    spread = float(((joint.yy @ rotation) * rotation).sum())
    return Alignment(rotation, float(values.sum()) / spread if spread > 0 else 0.0, joint.x_mean, joint.y_mean)


def disparity(alignment: Alignment, joint: Joint) -> float | None:
    """tr(residual)/tr(total) of x on the rows of `joint`, both about the alignment's means; None without variance."""
    shift_x, shift_y = joint.x_mean - alignment.x_mean, joint.y_mean - alignment.y_mean
    total = float(np.trace(joint.xx) + joint.n * shift_x @ shift_x)
    if joint.n == 0 or total <= 0:
        return None
    yy = joint.yy + joint.n * np.outer(shift_y, shift_y)
    xy = joint.xy + joint.n * np.outer(shift_x, shift_y)
    s, rotation = alignment.scale, alignment.rotation
    explained = 2 * s * float((xy.T * rotation).sum()) - s**2 * float(((yy @ rotation) * rotation).sum())
    return (total - explained) / total


def linear_cka(joint: Joint) -> float | None:
    """In [0, 1], 1 for equal up to rotation and scale; None where one of them does not vary."""
    below = float(np.linalg.norm(joint.xx) * np.linalg.norm(joint.yy))
    return float((joint.xy**2).sum()) / below if below > 0 else None
