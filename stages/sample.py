"""A sample of rows that merges: those with the smallest hashes of their ids (a bottom-k sketch).

Which rows are kept does not depend on batches, splits or order, only on the ids. Memory is bounded by the capacity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from stages.attributes import Bools
from stages.row_hash import Hashes, salted
from stages.rows import Block, Latents

MAX_ROWS = 2**16
MAX_VALUES = 2**23

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class SampledRows:
    """`hashes` and `held_out` (rows,), `latents` (rows, d), `classes` (rows, columns) 1, 0 or UNKNOWN."""

    hashes: Hashes
    held_out: Bools
    latents: Latents
    classes: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.hashes)

    def pick(self, rows: npt.NDArray[np.int64]) -> "SampledRows":
        return SampledRows(self.hashes[rows], self.held_out[rows], self.latents[rows], self.classes[rows])


@dataclass(slots=True)
class Sample:
    """Half as much again as `capacity` rows, and a block, while it grows; `rows()` gives the sample itself."""

    dim: int
    columns: int
    capacity: int
    limit: int = 2**64 - 1
    parts: list[SampledRows] = field(default_factory=list)

    @classmethod
    def empty(cls, dim: int, *, columns: int) -> "Sample":
        return cls(dim, columns, max(1, min(MAX_ROWS, MAX_VALUES // dim)))

    def add(self, block: Block) -> None:
        """Keeps those of the block's rows that may be in the sample."""
        classes = np.where(block.known, block.values > 0.5, UNKNOWN).astype(np.int8)
        self.offer(SampledRows(salted(block.hashes, "sample"), block.held_out, block.latents, classes))

    def offer(self, rows: SampledRows) -> None:
        """Keeps those of the rows that may be in the sample; what is kept is a copy."""
        kept = np.flatnonzero(rows.hashes <= np.uint64(self.limit))
        if len(kept):
            self.parts.append(rows.pick(kept))
        self._shrink()

    def merged(self, other: "Sample") -> "Sample":
        """The sample of both sets of rows; neither is changed."""
        both = Sample(self.dim, self.columns, self.capacity, min(self.limit, other.limit), [*self.parts, *other.parts])
        both._shrink()
        return both

    def pick(self, columns: Sequence[int]) -> "Sample":
        """The same rows with some of the columns."""
        parts = [replace(part, classes=part.classes[:, list(columns)]) for part in self.parts]
        return replace(self, columns=len(columns), parts=parts)

    def rows(self) -> SampledRows:
        """The `capacity` rows with the smallest hashes, or all there are, ordered by hash."""
        together = self._together()
        order = np.argsort(together.hashes, kind="stable")
        return together.pick(order[: self.capacity])

    def release(self) -> SampledRows:
        """As `rows`, and lets go of what the sample held."""
        rows, self.parts = self.rows(), []
        return rows

    def _shrink(self) -> None:
        if sum(map(len, self.parts)) < 1.5 * self.capacity:
            return
        together = self._together()
        order = np.argpartition(together.hashes, self.capacity - 1)[: self.capacity]
        self.parts = [together.pick(order)]
        self.limit = int(together.hashes[order].max())

    def _together(self) -> SampledRows:
        if not self.parts:
            latents, classes = np.zeros((0, self.dim), np.float32), np.zeros((0, self.columns), np.int8)
            return SampledRows(np.zeros(0, np.uint64), np.zeros(0, bool), latents, classes)
        return SampledRows(
            np.concatenate([p.hashes for p in self.parts]),
            np.concatenate([p.held_out for p in self.parts]),
            np.concatenate([p.latents for p in self.parts]),
            np.concatenate([p.classes for p in self.parts]),
        )
