"""Leading eigenvectors of a matrix that is never formed: only M·Q is known, and each M·Q is a pass over the data.

Randomised subspace iteration (Halko, Martinsson and Tropp 2011, §4.5): from a seeded Gaussian block, every pass multiplies
by M and orthonormalises; Rayleigh–Ritz on the same product gives eigenvalues, vectors and residuals without another pass.
It stops when the wanted residuals are below `TOLERANCE` of the largest eigenvalue, or after the allowed passes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from stages.components.eigen import Eigen, Floats
from stages.stage import Passes, ReduceStage

TOLERANCE = 1e-9
"""Residuals below this share of the largest eigenvalue are as good as zero: eigenvalues are then off by its square."""
OVERSAMPLE = 10


def subspace(
    stage: Callable[[Floats], ReduceStage[Any]],
    product: Callable[[Any], Floats],
    *,
    dim: int,
    count: int,
    seed: int,
    passes: int,
) -> Passes[Any, Eigen]:
    """The `count` leading eigenpairs of a symmetric matrix M ≥ 0 (dim, dim).

    `stage(Q)` is the reduce stage whose state `product` turns into M·Q, both (dim, columns). With as many columns as
    dimensions the first pass is exact.
    """
    columns = min(dim, count + max(OVERSAMPLE, count // 4))
    draws = np.random.Generator(np.random.Philox(seed)).standard_normal((dim, columns))
    basis = np.linalg.qr(draws)[0]
    found = None
    for _ in range(max(1, passes)):
        image = product((yield stage(basis)))
        found = _ritz(basis, image).first(count)
        if (found.residuals <= TOLERANCE * max(float(found.values[0]), 0.0)).all():
            break
        basis = np.linalg.qr(image)[0]
    assert found is not None
    return found


def _ritz(basis: Floats, image: Floats) -> Eigen:
    """The best eigenpairs within the span of `basis`, whose image under M is `image`."""
    small = basis.T @ image
    values, turn = np.linalg.eigh((small + small.T) / 2)
    vectors = basis @ turn
    residuals = np.linalg.norm(image @ turn - vectors * values, axis=0)
    return Eigen.of(values, vectors, residuals=residuals)
