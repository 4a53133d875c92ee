"""Drawing codes by their factors: what the FactorVAE and β-VAE scores need, and a table of labels has only as a full grid.

Factors are drawn independently and uniformly, then a code with those factors. From rows that works when every combination
of levels has at least one row; a dataset with holes would change what the scores mean, so it is refused.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stages.scores.information import Floats, Levels

MAX_CELLS = 2**24


class FactorSampler(Protocol):
    """Codes by factor: levels are drawn uniformly from 0 to `sizes` − 1."""

    @property
    def sizes(self) -> tuple[int, ...]: ...

    def codes(self, levels: Levels, rng: np.random.Generator) -> npt.NDArray[Any]:
        """A code for each row of `levels` (n, f): (n, d)."""


@dataclass(frozen=True, slots=True)
class GridSampler:
    """Codes of a table's rows, which hold every combination of levels. Of several rows with one combination, any."""

    sizes: tuple[int, ...]
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    table: npt.NDArray[Any]

    @classmethod
    def of(cls, codes: npt.NDArray[Any], levels: Levels) -> "GridSampler":
        """Of codes (n, d) with levels (n, f), none unknown. ValueError says how many combinations have no row."""
        parts = [np.unique(column, return_inverse=True) for column in levels.T]
        sizes = tuple(len(found) for found, _ in parts)
        cells = int(np.prod([float(s) for s in sizes]))
        if cells > MAX_CELLS or cells > len(codes):
            raise ValueError(f"{len(codes):,} rows cannot hold all {cells:,} combinations of the factors' levels")
        cell = np.ravel_multi_index([inverse for _, inverse in parts], sizes)
        counts = np.bincount(cell, minlength=cells)
        if missing := int((counts == 0).sum()):
            raise ValueError(f"{missing:,} of the {cells:,} combinations of the factors' levels have no row")
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(sizes, np.argsort(cell, kind="stable"), starts, codes)

    def codes(self, levels: Levels, rng: np.random.Generator) -> npt.NDArray[Any]:
        cell = np.ravel_multi_index(list(levels.T), self.sizes)
        return np.asarray(self.table[self.rows[rng.integers(self.starts[cell], self.starts[cell + 1])]])


def draw_levels(sampler: FactorSampler, count: int, rng: np.random.Generator) -> Levels:
    """(count, f), independent and uniform."""
    return rng.integers(0, np.array(sampler.sizes), (count, len(sampler.sizes)))


def draw_codes(sampler: FactorSampler, count: int, rng: np.random.Generator) -> Floats:
    """(count, d) codes of independent uniform factors."""
    return sampler.codes(draw_levels(sampler, count, rng), rng).astype(np.float64)
