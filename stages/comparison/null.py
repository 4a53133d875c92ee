"""Is there any relation at all between two latent spaces? The rows of one are dealt to the images anew, again and again.

Judged on a sample, in each space's first principal components of the training rows, so that a wide latent cannot fit noise.
The statistic is the held-out disparity; p = (1 + permutations at or below the observed)/(1 + permutations).
"""

from dataclasses import dataclass

import numpy as np

from stages.attributes import Bools, Floats
from stages.comparison.alignment import disparity, procrustes
from stages.comparison.paired import Joint
from stages.moments import Moments

COMPONENTS = 64
SAMPLE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Null:
    """`observed` disparity of the sample, those of the permutations (ascending), and p."""

    observed: float
    permuted: tuple[float, ...]
    p: float


def permutation_null(x: Floats, y: Floats, held_out: Bools, *, permutations: int, seed: int) -> Null | None:
    """x (n, d_x), y (n, d_y): rows of the same images. None with fewer than 8 training or 4 held-out rows."""
    train = ~held_out
    if train.sum() < 8 or held_out.sum() < 4:
        return None
    x, y = _components(x, train), _components(y, train)
    observed = _judged(x, y, train)
    if observed is None:
        return None
    found = []
    for i in range(permutations):
        order = np.random.default_rng([seed, i]).permutation(len(x))
        value = _judged(x, y[order], train)
        if value is not None:
            found.append(value)
    below = sum(value <= observed for value in found)
    return Null(observed, tuple(sorted(found)), (1 + below) / (1 + len(found)))


def _components(z: Floats, train: Bools) -> Floats:
    """Coordinates in the first principal components of the training rows, about their mean."""
    mean = z[train].mean(axis=0)
    kept = min(COMPONENTS, z.shape[1], int(train.sum()) // 4)
    _, _, axes = np.linalg.svd(z[train] - mean, full_matrices=False)
    return np.asarray((z - mean) @ axes[:kept].T)


def _judged(x: Floats, y: Floats, train: Bools) -> float | None:
    both = np.concatenate([x, y], axis=1)
    fitted = procrustes(Joint.of(Moments.of(both[train], full=True), x.shape[1]))
    return None if fitted is None else disparity(fitted, Joint.of(Moments.of(both[~train], full=True), x.shape[1]))
