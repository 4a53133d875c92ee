"""Directions of one codec carried into another's space by an alignment.

With x ≈ μ_x + s·(y − μ_y)R a unit direction v of y becomes vR of x, made unit again; R is orthonormal, so nothing is lost where
the new space is at least as wide. A score c·(v·y) + b becomes c‖vR‖/s · (v̂·x) + b′, with b′ such that the means map onto
each other. `agreement`: correlation of the two scores over held-out images.
"""

import math
from dataclasses import dataclass

import numpy as np

from stages.attributes import Floats
from stages.comparison.alignment import Alignment
from stages.comparison.paired import Joint


@dataclass(frozen=True, eq=False)
class Ported:
    """A direction in the new space: unit `vector` (d_x,), `sigma` of the compared rows along it, `kept` = ‖vR‖ in [0, 1]."""

    vector: Floats
    sigma: float
    raw_norm: float | None
    intercept: float | None
    kept: float
    agreement: float | None


def port(
    vector: Floats,
    alignment: Alignment,
    *,
    everything: Joint,
    held_out: Joint,
    raw_norm: float | None,
    intercept: float | None,
) -> Ported | None:
    """None where the alignment loses the direction altogether. `vector` (d_y,) of unit length."""
    carried = vector @ alignment.rotation
    kept = float(np.linalg.norm(carried))
    if kept < 1e-9 or alignment.scale <= 0:
        return None
    unit = np.asarray(carried / kept)
    sigma = math.sqrt(max(float(unit @ everything.xx @ unit), 0.0) / max(everything.n - 1, 1))
    norm = None if raw_norm is None else raw_norm * kept / alignment.scale
    offset = None
    if raw_norm is not None and norm is not None and intercept is not None:
        offset = intercept + raw_norm * float(vector @ alignment.y_mean) - norm * float(unit @ alignment.x_mean)
    return Ported(unit, sigma, norm, offset, min(kept, 1.0), _correlation(unit, vector, held_out))


def _correlation(unit: Floats, vector: Floats, joint: Joint) -> float | None:
    below = float(unit @ joint.xx @ unit) * float(vector @ joint.yy @ vector)
    return float(np.clip(unit @ joint.xy @ vector / math.sqrt(below), -1, 1)) if below > 0 else None
