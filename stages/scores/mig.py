"""Mutual information gap (Chen et al. 2018): how much more one dimension knows of a factor than any other dimension does.

(I₁ − I₂)/H a factor, of its two most informative dimensions, and the mean over factors. 1: each factor has a dimension of
its own. 0: two dimensions know it equally, also when both know it fully.
"""

import numpy as np

from stages.scores.information import Floats, Information


def mig_per_factor(found: Information) -> Floats:
    """(f,), at most 1. ValueError for fewer than two dimensions: there is no second to compare with."""
    return top_gap(found.mutual) / found.entropy


def mig(found: Information) -> float:
    """The mean over factors."""
    return float(np.mean(mig_per_factor(found)))


def top_gap(matrix: Floats) -> Floats:
    """Largest less second largest of each column of (d, f)."""
    if len(matrix) < 2:
        raise ValueError(f"{len(matrix)} dimensions; a gap between the two best needs at least 2")
    ordered = np.sort(matrix, axis=0)
    return np.asarray(ordered[-1] - ordered[-2])
