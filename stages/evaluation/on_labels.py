"""Numbers of labelled rows against all labels at once, under every bootstrap weight, from one mergeable sum.

State (1 + replicates, 1 + J, 1 + J + P): Σw (1, y)ᵀ(1, y, x) of J labels y and P numbers x, row 0 with weight 1. It holds both
the difference of means and the least squares of every x on the labels, for every replicate, and merges by adding.
"""

import numpy as np

from stages.attributes import Floats
from stages.bootstrap import poisson_weights
from stages.row_hash import Hashes

PRODUCTS = 2**22
MAX_SUMS = 2**25
"""Most numbers in a state (256 MiB)."""


def fits(labels: int, numbers: int, *, replicates: int) -> bool:
    """Whether the sums are small enough to be kept."""
    return (1 + replicates) * (1 + labels) * (1 + labels + numbers) <= MAX_SUMS


def empty_sums(labels: int, numbers: int, *, replicates: int) -> Floats:
    """No rows yet."""
    return np.zeros((1 + replicates, 1 + labels, 1 + labels + numbers))


def add_rows(state: Floats, values: Floats, numbers: Floats, groups: Hashes, *, seed: int) -> None:
    """Adds rows in place: labels `values` (n, J), all known; `numbers` (n, P), all finite; `groups` (n,) hashes."""
    weights = poisson_weights(groups, len(state) - 1, seed=seed)
    weights = np.column_stack([np.ones(len(groups)), weights]).astype(np.float64)
    left = np.column_stack([np.ones(len(values)), values])
    both = np.column_stack([left, numbers])
    step = max(1, PRODUCTS // (left.shape[1] * both.shape[1]))
    for start in range(0, len(both), step):
        cut = slice(start, start + step)
        products = (left[cut, :, None] * both[cut, None]).reshape(len(both[cut]), -1)
        state += (weights[cut].T @ products).reshape(state.shape)


def scatter(sums: Floats) -> tuple[Floats, Floats]:
    """(Σw ỹỹᵀ (replicates, J, J), Σw ỹx̃ᵀ (replicates, J, P)) about the means; NaN in a replicate without rows."""
    labels = sums.shape[1] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = sums[:, 1:, 1:] - sums[:, 1:, :1] * sums[:, :1, 1:] / sums[:, :1, :1]
    return centred[:, :, :labels], centred[:, :, labels:]


def means_apart(sums: Floats) -> Floats:
    """(replicates, J, P): mean of x where the label is 1 less that where it is 0; NaN in a replicate of one class."""
    labels = sums.shape[1] - 1
    n, y = sums[:, 0, 0, None, None], sums[:, 1:, :1]
    x, yx = sums[:, :1, 1 + labels :], sums[:, 1:, 1 + labels :]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(yx / y - (x - yx) / (n - y))


def least_squares(sums: Floats) -> Floats:
    """(replicates, J, P): change of x a unit of one label with the others held fixed."""
    yy, yx = scatter(sums)
    usable = np.isfinite(yy).all(axis=(1, 2)) & np.isfinite(yx).all(axis=(1, 2))
    found = np.full_like(yx, np.nan)
    # The pseudo-inverse: a replicate that drew one class only has no answer for it, and must not stop the others.
    found[usable] = np.linalg.pinv(yy[usable], hermitian=True) @ yx[usable]
    return found
