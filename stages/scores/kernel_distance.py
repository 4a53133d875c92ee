"""Kernel distance (KID, Bińkowski et al. 2018): unbiased squared maximum mean discrepancy with the kernel (xᵀy/d + 1)³.

Unbiased at any n, unlike FID, and so at times below 0. It is averaged over blocks of rows that do not overlap: the blocks
are independent, so their spread gives an interval.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

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
