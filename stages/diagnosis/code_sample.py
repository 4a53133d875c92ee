"""The sample of rows that a diagnosis looks at closely: those with the smallest hashes of their ids, whatever the order of rows.

A bottom-k sketch: bounded, mergeable, and exactly the same for any chunking.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.row_hash import Hashes, hash_ids, salted
from stages.rows import Latents

LAST_HASH = 2**64 - 1
MAX_SAMPLE_ROWS = 2**16
MAX_SAMPLE_VALUES = 2**22


def sample_hashes(ids: pa.Array) -> Hashes:
    """(rows,): the rows with the smallest are the sample."""
    return salted(hash_ids(ids), "diagnosis sample")


@dataclass(frozen=True, slots=True)
class SampledCodes:
    """Rows of the sample, ordered by hash. `latents`, `logvars` (rows, d) float32; `logvars` None where there are none."""

    hashes: Hashes
    names: pa.Array
    latents: Latents
    logvars: Latents | None

    def __len__(self) -> int:
        return len(self.hashes)

    def pick(self, rows: npt.NDArray[np.int64]) -> "SampledCodes":
        logvars = None if self.logvars is None else self.logvars[rows]
        return SampledCodes(self.hashes[rows], self.names.take(pa.array(rows)), self.latents[rows], logvars)

    @property
    def ids(self) -> list[str]:
        """The rows' ids."""
        return [str(name) for name in self.names.to_pylist()]

    def first(self, count: int) -> "SampledCodes":
        """The `count` rows with the smallest hashes: a sample of the same kind."""
        return self.pick(np.arange(min(count, len(self)), dtype=np.int64))


@dataclass(frozen=True, slots=True)
class CodeSample:
    """The rows with the smallest hashes of their ids (a bottom-k sketch); half as much again while it grows."""

    capacity: int
    parts: tuple[SampledCodes, ...] = ()
    limit: int = LAST_HASH
    """Rows with larger hashes cannot be in it, and need not be copied."""

    @classmethod
    def empty(cls, capacity: int, dim: int, *, expected: int | None) -> "CodeSample":
        """Of at most `capacity` rows of `dim` numbers, out of `expected` ones, as far as memory allows."""
        capacity = max(1, min(capacity, MAX_SAMPLE_ROWS, MAX_SAMPLE_VALUES // dim))
        return cls(capacity, limit=_limit(capacity, expected))

    def __len__(self) -> int:
        return min(self.capacity, sum(map(len, self.parts)))

    def added(self, part: SampledCodes) -> "CodeSample":
        return self._shrunk((*self.parts, part), self.limit)

    def merged(self, other: "CodeSample") -> "CodeSample":
        return self._shrunk((*self.parts, *other.parts), min(self.limit, other.limit))

    def rows(self) -> SampledCodes | None:
        """The sample itself; None without a row."""
        if not self.parts:
            return None
        together = _together(self.parts)
        return together.pick(np.argsort(together.hashes, kind="stable")[: self.capacity])

    def _shrunk(self, parts: tuple[SampledCodes, ...], limit: int) -> "CodeSample":
        if sum(map(len, parts)) < 1.5 * self.capacity:
            return replace(self, parts=parts, limit=limit)
        together = _together(parts)
        order = np.argpartition(together.hashes, self.capacity - 1)[: self.capacity]
        return replace(self, parts=(together.pick(order),), limit=int(together.hashes[order].max()))


def _together(parts: tuple[SampledCodes, ...]) -> SampledCodes:
    logvars = [p.logvars for p in parts if p.logvars is not None]
    return SampledCodes(
        np.concatenate([p.hashes for p in parts]),
        pa.concat_arrays([p.names for p in parts]),
        np.concatenate([p.latents for p in parts]),
        np.concatenate(logvars) if logvars else None,
    )


def _limit(capacity: int, expected: int | None) -> int:
    """The hash under which at least `capacity` of `expected` hashes lie, but for six deviations of their number."""
    enough = capacity + 6 * math.sqrt(capacity)
    if expected is None or expected <= enough:
        return LAST_HASH
    return int(LAST_HASH * (enough / expected))
