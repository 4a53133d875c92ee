"""Replicates of the balanced difference of means, exact, in two passes: Σ_c π_c (m₊,c − m₋,c) under every replicate's weights.

The first pass sums the weights of both classes in every cell. They make a row's share in a replicate's estimate,
±ω π_c/n₊₋,c, so the second pass is one weighted sum of d numbers a column and replicate, however many cells there are.
A cell that a replicate leaves without a class is left out there, as a fit of those rows would leave it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Floats
from stages.bootstrap import poisson_weights
from stages.directions.cells import Key, cells_of
from stages.directions.judging import add_weights
from stages.directions.weighted_sums import Drawn
from stages.rows import Block, read_blocks
from stages.stage import Passes

PRODUCT_VALUES = 2**22
"""Most numbers of rows × replicates at a time."""


@dataclass(frozen=True)
class Places:
    """Where rows belong: for every column, the cells of the controls other than itself, each with two classes.

    `keys`: the cells of all controls that have rows.
    """

    columns: tuple[Column, ...]
    controls: tuple[str, ...]
    keys: tuple[Key, ...]

    @cached_property
    def _at(self) -> dict[Key, int]:
        return {key: at for at, key in enumerate(self.keys)}

    @cached_property
    def _others(self) -> list[tuple[npt.NDArray[np.int64], int]]:
        """By column: of each key the cell without the column's own label, and how many such cells there are."""
        found = []
        for column in self.columns:
            own = self.controls.index(column.label) if column.label in self.controls else len(self.controls)
            rest = [key[:own] + key[own + 1 :] for key in self.keys]
            number = {key: at for at, key in enumerate(dict.fromkeys(rest))}
            found.append((np.array([number[key] for key in rest], np.int64), len(number)))
        return found

    @property
    def sizes(self) -> list[int]:
        """Places of every column: its cells, times two classes."""
        return [2 * cells for _, cells in self._others]

    def of(self, block: Block) -> list[npt.NDArray[np.int64]]:
        """By column the place of every row, 2·cell + (0 positive, 1 negative); −1 for a row in none."""
        cell = np.full(len(block), -1, np.int64)
        for key, rows in cells_of(block.labels, self.controls):
            cell[rows] = self._at.get(key, -1)
        negative = (block.values <= 0.5).T
        return [
            np.where((cell >= 0) & known, 2 * other[cell] + minus, -1)
            for (other, _), known, minus in zip(self._others, block.known.T, negative, strict=True)
        ]


@dataclass(frozen=True)
class CellCounts:
    """A reduce stage: by column Σω of every place, (places, replicates)."""

    places: Places
    replicates: range

    def start(self) -> list[npt.NDArray[np.int32]]:
        return [np.zeros((size, len(self.replicates)), np.int32) for size in self.places.sizes]

    def add(self, state: list[npt.NDArray[np.int32]], batch: pa.RecordBatch) -> list[npt.NDArray[np.int32]]:
        for block in read_blocks(batch, self.places.columns, holdout=0):
            weights = poisson_weights(block.groups, self.replicates)
            for counts, place in zip(state, self.places.of(block), strict=True):
                add_weights(counts, place, place >= 0, weights)
        return state

    def merge(self, a: list[npt.NDArray[np.int32]], b: list[npt.NDArray[np.int32]]) -> list[npt.NDArray[np.int32]]:
        return [x + y for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class CellDifferences:
    """A reduce stage: (columns, replicates, d) Σ ω·share·z; `shares` by column (places, replicates)."""

    places: Places
    shares: Sequence[Floats]
    centre: Floats
    replicates: range

    def start(self) -> Floats:
        return np.zeros((len(self.shares), len(self.replicates), len(self.centre)))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        for block in read_blocks(batch, self.places.columns, holdout=0):
            z, weights = block.latents - self.centre, poisson_weights(block.groups, self.replicates)
            step = max(1, PRODUCT_VALUES // len(self.replicates))
            for sums, share, place in zip(state, self.shares, self.places.of(block), strict=True):
                inside = np.flatnonzero(place >= 0)
                for start in range(0, len(inside), step):
                    rows = inside[start : start + step]
                    sums += (share[place[rows]] * weights[rows]).T @ z[rows]
        return state

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


@dataclass(frozen=True)
class WeightedCells:
    """A way to replicates (`stages.directions.resampling.Method`). `centre` (d,)."""

    places: Places
    centre: Floats

    @property
    def bytes_a_replicate(self) -> int:
        return 8 * (2 * sum(self.places.sizes) + len(self.places.columns) * len(self.centre))

    def replicates(self, which: range) -> Passes[Any, Drawn]:
        counts: list[npt.NDArray[np.int32]] = yield CellCounts(self.places, which)
        shares = [_shares(n) for n in counts]
        sums: Floats = yield CellDifferences(self.places, shares, self.centre, which)
        # A replicate in which no cell holds both classes has no estimate.
        drawn = zip(shares, sums, strict=True)
        return [np.where((share != 0).any(axis=0)[:, np.newaxis], found, np.nan) for share, found in drawn]


def _shares(counts: npt.NDArray[np.int32]) -> Floats:
    """(places, replicates): ±π_c/n of a row of that place, 0 in cells without one of the classes."""
    n = counts.reshape(-1, 2, counts.shape[1]).astype(np.float64)
    both = (n > 0).all(axis=1)
    share = n.sum(1) * both
    share = share / np.maximum(share.sum(0), 1)
    signed = np.array([1.0, -1.0])[None, :, None] * share[:, None] / np.maximum(n, 1)
    return np.asarray(signed.reshape(counts.shape))
