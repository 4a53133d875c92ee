"""Delete-a-group jackknife (Kott 2001) of scores that are made of rows: what they are without each group of the rows.

Rows are dealt into groups by a hash, those that belong together into one; a score is made again without one group after
the other, and t of (groups − 1) degrees times the spread gives the interval. Two sets that share no row lose the same group at once:
what the groups of both say adds up, as the variances of independent sets do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.moments import Floats
from stages.row_hash import Hashes, salted
from stages.scores.frechet import root

GROUPS = 20
FEWEST_GROUPS = 10
"""From fewer an interval would be a guess."""
JACKKNIFE_FEATURES = 512
"""Of wider features the Fréchet distance has no interval: it would be an eigenproblem for every group of every set."""

Groups = npt.NDArray[np.integer]


def dealt(owners: Hashes) -> npt.NDArray[np.int8]:
    """The group of every row, 0 to GROUPS − 1, from the hash of what it belongs to."""
    return (salted(owners, "fidelity groups") % np.uint64(GROUPS)).astype(np.int8)


def jackknife_interval(value: float, without: Floats, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """About `value`, from the score `without` each group (groups,); (None, None) of fewer than FEWEST_GROUPS."""
    count = len(without)
    if count < FEWEST_GROUPS:
        return None, None
    spread = without - without.mean()
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt((count - 1) / count * (spread @ spread)))
    return value - reach, value + reach


@dataclass(frozen=True, eq=False)
class Normals:
    """Means (k, F) and covariances (k, F, F) of several sets of rows."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, eq=False)
class Grouped:
    """Features (n, F) in float64, each row in one of the groups (n,)."""

    features: Floats
    groups: Groups

    @cached_property
    def numbers(self) -> npt.NDArray[np.integer]:
        """Of the groups that have rows."""
        return np.unique(self.groups)

    @cached_property
    def largest(self) -> int:
        """Rows of the largest group."""
        return int(np.unique(self.groups, return_counts=True)[1].max(initial=0))

    @property
    def full_rank(self) -> bool:
        """Whether a covariance still has full rank without the largest group."""
        n, count = self.features.shape
        return bool(n - self.largest > count + 1)

    @cached_property
    def normals(self) -> Normals:
        """Of all rows, then without each of `numbers`; of all alone where that would be too much, or too few."""
        narrow = self.features.shape[1] <= JACKKNIFE_FEATURES and self.full_rank
        return self.normals_without(self.numbers if narrow else ())

    @cached_property
    def roots(self) -> Floats:
        """The roots of the covariances of `normals`."""
        return root(self.normals.covariance)

    def normals_without(self, numbers: Sequence[int] | npt.NDArray[np.integer]) -> Normals:
        """Of all rows, then without each group of `numbers`, from sums of each."""
        n = len(self.features)
        mean = self.features.mean(axis=0)
        centred = self.features - mean
        squares = centred.T @ centred
        means, covariances = [mean], [squares / (n - 1)]
        for number in numbers:
            part = centred[self.groups == number]
            left = n - len(part)
            moved = -part.sum(axis=0) / left
            means.append(mean + moved)
            covariances.append((squares - part.T @ part - left * np.outer(moved, moved)) / (left - 1))
        return Normals(np.array(means), np.array(covariances))
