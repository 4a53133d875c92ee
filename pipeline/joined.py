"""The rows two latents tables have in common, joined by id: which rows once, on the driver; latents where the workers are.

Ids are bucketed by ranges of their hash, so one bucket of each table is in memory at a time, whatever the tables' size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.code_set import BATCH_ROWS, SELECTION, bucketed, buckets_for, read_bucket
from pipeline.spill import Spill, write_spill
from pipeline.store.splits import ADDRESS
from pipeline.store.table import Table
from stages.columns import matrix_of
from stages.rows import widen

SPLIT_BYTES = 32 * 2**20
BATCH_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Side:
    """One table at one version; `where` selects rows of it."""

    table: Table
    version: int
    where: str | None = None

    def ids(self) -> Iterator[pa.RecordBatch]:
        return self.table.scan(["id", "_rowid"], where=self.where, version=self.version)

    def latents(self, rows: list[int]) -> "tuple[np.ndarray[Any, np.dtype[np.float32]], pa.Array]":
        """The latents of rows (n, d), NaN where there is none, and where the rows lie at this version."""
        found = self.table.take_rows(rows, ["latent", ADDRESS], version=self.version)
        column = found.column("latent").combine_chunks()
        latents = widen(matrix_of(column)).copy()
        latents[~column.is_valid().to_numpy(zero_copy_only=False)] = np.nan
        return latents, found.column(ADDRESS).combine_chunks()


def join(ours: Side, theirs: Side, url: str, *, options: Mapping[str, Any]) -> Spill:
    """Writes the ids both have and where they stand in each, ordered by hash of the id."""
    buckets = buckets_for(max(side.table.count_rows(side.where, version=side.version) for side in (ours, theirs)))
    with TemporaryDirectory(prefix="latentmill-join-") as folder:
        paths = []
        for name, side in (("ours", ours), ("theirs", theirs)):
            (Path(folder) / name).mkdir()
            paths.append(bucketed(side.ids(), Path(folder) / name, buckets=buckets))
        return write_spill(_common(*paths), url, schema=SELECTION, batch_rows=BATCH_ROWS, options=options)


def _common(ours: list[Path], theirs: list[Path]) -> Iterator[pa.RecordBatch]:
    for mine, other in zip(ours, theirs, strict=True):
        right = read_bucket(other).select(["id", "row"]).rename_columns(["id", "other"])
        both = read_bucket(mine).join(right, keys="id", join_type="inner")
        both = both.sort_by([("hash", "ascending"), ("id", "ascending")])
        count = both.num_rows
        rows = np.stack([both.column(name).to_numpy() for name in ("row", "other")], axis=1).reshape(-1)
        ids = pa.ListArray.from_arrays(
            pa.array(np.arange(count + 1, dtype=np.int32)), both.column("id").combine_chunks()
        )
        pairs = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * 2), pa.array(rows))
        yield pa.RecordBatch.from_arrays([ids, pairs], names=SELECTION.names[1:])


@dataclass(frozen=True)
class JoinedSplits:
    """Splits of `id` and `latent` = [ours | theirs], `dim` numbers in all, an empty `labels`, and ours' `_rowaddr`."""

    pairs: Spill
    ours: Side
    theirs: Side
    dim: int

    @property
    def batch_rows(self) -> int:
        return max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * self.dim)))

    @property
    def split_rows(self) -> int:
        return max(1, SPLIT_BYTES // (4 * self.dim))

    def __len__(self) -> int:
        return -(-self.pairs.rows // self.split_rows)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        start = index * self.split_rows
        stop = min(start + self.split_rows, self.pairs.rows)
        for at in range(start, stop, self.batch_rows):
            chosen = self.pairs.read(at, min(at + self.batch_rows, stop))
            rows = chosen.column("rows").flatten().to_numpy().reshape(-1, 2)
            (mine, addresses), (other, _) = (
                side.latents(rows[:, i].tolist()) for i, side in enumerate((self.ours, self.theirs))
            )
            both = np.concatenate([mine, other], axis=1)
            latent = pa.FixedSizeListArray.from_arrays(pa.array(both.reshape(-1)), self.dim)
            labels = pa.array([{}] * len(both), pa.struct([]))
            ids = chosen.column("ids").flatten()
            yield pa.record_batch({"id": ids, "latent": latent, "labels": labels, ADDRESS: addresses})
