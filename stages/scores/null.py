"""A score against chance: the same score of the same rows with the labels of other rows.

Rows of labels move as wholes, so factors that go together still do; only their tie to the codes is cut. A score of noise is
not 0 (modularity gives .6, FactorVAE one over the number of factors), so no score is shown without its null.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stages.row_hash import Hashes, salted

Order = npt.NDArray[np.int64]
Orders = TypeVar("Orders")


@dataclass(frozen=True, slots=True)
class Null:
    """Scores under permutation, in the order they were made."""

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def level(self) -> float:
        """What a score must pass: the 95 % quantile, which for fewer than 20 permutations is their highest."""
        return float(np.quantile(self.scores, 0.95, method="higher"))

    def p_value(self, score: float) -> float:
        """Share of permutations, the true order among them, that score at least as high."""
        return (1 + sum(s >= score for s in self.scores)) / (1 + len(self.scores))


def permutation_nulls(scores: Callable[[Orders], Mapping[str, float]], orders: Iterable[Orders]) -> dict[str, Null]:
    """A null for each score by name; `scores(order)` must score row i's code with the labels of row order[i].

    Where rows are dealt into train and test, `order` is whatever the score takes: a pair of orders, each within its part.
    """
    found: dict[str, list[float]] = {}
    for order in orders:
        for name, score in scores(order).items():
            found.setdefault(name, []).append(score)
    return {name: Null(tuple(values)) for name, values in found.items()}


def orders_of(hashes: Hashes, count: int) -> list[Order]:
    """Permutations of rows in the order of their `hashes`. They follow from the ids alone, on any split and machine.

    Rows of one hash, a group, follow one another, here and in what comes out: their labels move as a whole. Exact where groups have
    one size; else a group's labels may fall on the end of one group and the beginning of the next.
    """
    return [np.argsort(salted(hashes, f"null {i}"), kind="stable") for i in range(count)]
