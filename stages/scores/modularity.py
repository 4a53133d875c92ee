"""Modularity (Ridgeway and Mozer 2018): does each dimension tell of one factor only?

1 − Σ_{j≠best} I_j² / (I_best² (f − 1)) a dimension, its mean over dimensions; a dimension that knows nothing scores 0, so
idle dimensions lower it. Noise does not score 0 but about .6: read it against its null.
"""

import numpy as np

from stages.scores.information import Floats


def modularity_per_dimension(mutual: Floats) -> Floats:
    """(d,), in [0, 1], of mutual information (d, f). ValueError for one factor: there is no other to confuse it with."""
    if mutual.shape[1] < 2:
        raise ValueError("1 factor; modularity needs at least 2")
    squared = mutual**2
    best = squared.max(1)
    others = squared.sum(1) - best
    ideal = best * (mutual.shape[1] - 1)
    return np.where(best > 0, 1 - others / np.where(best > 0, ideal, 1), 0.0)


def modularity(mutual: Floats) -> float:
    """The mean over dimensions."""
    return float(np.mean(modularity_per_dimension(mutual)))
