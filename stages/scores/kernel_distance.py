"""Kernel distance (KID, Bińkowski et al. 2018): unbiased squared maximum mean discrepancy with the kernel (xᵀy/d + 1)³.

Unbiased at any n, unlike FID, and so at times below 0. It is averaged over blocks of rows that do not overlap: the blocks
are independent, so their spread gives an interval. Rows that belong together would be in several blocks: of those, all pairs
from different groups are taken, and groups are left out one after the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.scores.grouped import FEWEST_GROUPS, Groups, jackknife_interval

BLOCK = 1000
MANY = 100
"""Rows that are cut into blocks at all: smaller blocks than ten rows would say little of their spread."""
DEGREE = 3


@dataclass(frozen=True, slots=True)
class KernelDistance:
    """`value` (may be negative), its interval where two blocks or more make one, and rows used of each set."""

    value: float
    low: float | None
    high: float | None
    n: int
    blocks: int


def kernel_distance(
    a: npt.NDArray[Any], b: npt.NDArray[Any], *, block: int = BLOCK, confidence: float = 0.95
) -> KernelDistance:
    """Of rows a (n, d) and b (m, d), both in an order that says nothing (by hash of the id).

    Equally many rows of each are used, in whole blocks. Fewer than two blocks of `block` rows are cut into ten smaller ones,
    and fewer than MANY rows are one block. ValueError below two rows.
    """
    rows = min(len(a), len(b))
    if rows < 2:
        raise ValueError(f"{len(a)} and {len(b)} rows; the unbiased estimate needs at least 2 of each")
    size = block if rows >= 2 * block else rows // 10 if rows >= MANY else rows
    count = rows // size
    values = [discrepancy(a[i * size : (i + 1) * size], b[i * size : (i + 1) * size]) for i in range(count)]
    value = float(np.mean(values))
    if count < 2:
        return KernelDistance(value, None, None, size, 1)
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return KernelDistance(value, value - reach, value + reach, size * count, count)


def grouped_kernel_distance(
    a: npt.NDArray[Any], a_groups: Groups, b: npt.NDArray[Any], b_groups: Groups, *, confidence: float = 0.95
) -> KernelDistance:
    """Of rows a (n, d) in groups (n,), and b: unbiased also where rows of one group go together, because pairs within one are
    not taken. ValueError where a set has fewer than two groups. `blocks` counts groups that both have.
    """
    numbers = np.union1d(a_groups, b_groups)
    x, y = (
        [np.asarray(rows[groups == g], np.float64) for g in numbers] for rows, groups in ((a, a_groups), (b, b_groups))
    )
    sizes = np.array([[len(part) for part in parts] for parts in (x, y)])
    if (sizes > 0).sum(1).min() < 2:
        raise ValueError("fewer than 2 groups; pairs are of different ones")
    within_a, within_b, across = _sums(x, x), _sums(y, y), _sums(x, y)

    def left(kept: npt.NDArray[np.bool_]) -> float:
        n, m = sizes[:, kept]
        others = ~np.eye(int(kept.sum()), dtype=bool)
        parts = np.ix_(kept, kept)
        inside = [(s[parts][others].sum() / np.outer(c, c)[others].sum()) for s, c in ((within_a, n), (within_b, m))]
        return float(sum(inside) - 2 * across[parts].sum() / (n.sum() * m.sum()))

    value = left(np.ones(len(numbers), bool))
    both = int((sizes > 0).all(0).sum())
    low = high = None
    if both >= FEWEST_GROUPS:
        low, high = jackknife_interval(value, np.array([left(numbers != g) for g in numbers]), confidence)
    return KernelDistance(value, low, high, min(len(a), len(b)), both)


def _sums(x: list[npt.NDArray[np.float64]], y: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """(groups, groups): the kernel summed over all pairs of two groups' rows."""
    return np.array([[kernel(one, other).sum() if len(one) and len(other) else 0.0 for other in y] for one in x])


def discrepancy(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The unbiased squared discrepancy of a (n, d) and b (m, d), all pairs at once: memory n × m."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(x), len(y)
    within = (_kernel_sum(x) - _own(x)) / (n * (n - 1)) + (_kernel_sum(y) - _own(y)) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def kernel(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n, m): (xᵀy/d + 1)³ of every pair of rows."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** DEGREE)


def _kernel_sum(x: npt.NDArray[np.float64]) -> float:
    return float(kernel(x, x).sum())


def _own(x: npt.NDArray[np.float64]) -> float:
    """The kernel of every row with itself, summed."""
    return float(((np.einsum("ij,ij->i", x, x) / x.shape[1] + 1) ** DEGREE).sum())
