"""A score against chance: the same score of the same rows with the labels of other rows.

Rows of labels move as wholes, so factors that go together still do; only their tie to the codes is cut. A score of noise is
not 0 (modularity gives .6, FactorVAE one over the number of factors), so no score is shown without its null.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.row_hash import Hashes, salted

Order = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Null:
    """Scores under permutation, in the order they were made."""

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def highest(self) -> float:
        """The level a score must pass: the 95 % quantile, which for fewer than 20 permutations is their highest."""
        return float(np.quantile(self.scores, 0.95, method="higher"))

    def p_value(self, score: float) -> float:
        """Share of permutations, the true order among them, that score at least as high."""
        return (1 + sum(s >= score for s in self.scores)) / (1 + len(self.scores))


def permutation_null(score: Callable[[Order], float], orders: Iterable[Order]) -> Null:
    """`score(order)` must score row i's code with the labels of row order[i]."""
    return Null(tuple(score(order) for order in orders))


def orders_of(hashes: Hashes, count: int) -> list[Order]:
    """Permutations that follow from the rows' ids alone: they do not depend on batches, splits or machines."""
    return [np.argsort(salted(hashes, f"null {i}"), kind="stable") for i in range(count)]
