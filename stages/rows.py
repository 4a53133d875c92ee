"""Labelled latents as blocks of numbers: what every pass of a fit reads.

Invariant: a row whose latent is missing or not finite leaves here, before anything is accumulated, and is counted
(latent-science §1). A block holds at most BLOCK_VALUES numbers, whatever the size of the batches an executor brings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from stages.attributes import Bools, Column, Floats, read_labels
from stages.columns import matrix_of
from stages.row_hash import Hashes, fractions, hash_ids

BLOCK_VALUES = 2**21
HOLDOUT_SALT = "fit holdout"
"""One salt for all fits of a dataset: their AUCs are measured on the same rows and compare."""

GROUPS = "group"
"""The column of group hashes, where there is one."""

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """Rows with finite latents: `latents` (rows, d), `values` and `known` (rows, columns). `non_finite` rows left it."""

    ids: pa.Array
    latents: Latents
    labels: pa.StructArray
    values: Floats
    known: Bools
    holdout: float
    non_finite: int
    told_groups: Hashes | None = None

    def __len__(self) -> int:
        return len(self.latents)

    @cached_property
    def hashes(self) -> Hashes:
        """(rows,), from the ids. Made when asked for: not every pass draws or holds out."""
        return hash_ids(self.ids)

    @property
    def groups(self) -> Hashes:
        """(rows,), a hash of the rows that belong together; of the row alone where no groups were told."""
        return self.hashes if self.told_groups is None else self.told_groups

    @cached_property
    def held_out(self) -> Bools:
        """(rows,), which rows only score. Rows of a group are held out together."""
        if self.holdout == 0:
            return np.zeros(len(self), bool)
        return fractions(self.groups, HOLDOUT_SALT) < self.holdout


def read_blocks(batch: pa.RecordBatch, columns: Sequence[Column], *, holdout: float) -> Iterator[Block]:
    """Blocks of a batch with columns `id`, `latent`, `labels` and maybe `group` (stages/grouping.py).

    `holdout`: share of rows to hold out, in [0, 1).
    """
    rows = max(1, BLOCK_VALUES // batch.schema.field("latent").type.list_size)
    for start in range(0, batch.num_rows, rows):
        yield _block(batch.slice(start, rows), columns, holdout)


def read_latents(batch: pa.RecordBatch) -> Iterator[Block]:
    """Blocks of a batch with columns `id` and `latent`, and no labels."""
    no_labels = pa.nulls(batch.num_rows, pa.struct([]))
    labels = pa.RecordBatch.from_arrays(
        [batch.column("id"), batch.column("latent"), no_labels], ["id", "latent", "labels"]
    )
    yield from read_blocks(labels, (), holdout=0)


def _block(batch: pa.RecordBatch, columns: Sequence[Column], holdout: float) -> Block:
    latents, finite = finite_rows(batch.column("latent"))
    dropped = int(len(finite) - finite.sum())
    if dropped:
        latents, batch = latents[finite], batch.filter(pa.array(finite))
    labels = batch.column("labels")
    values, known = read_labels(labels, columns, lambda: hash_ids(batch.column("id")))
    groups = batch.column(GROUPS).to_numpy() if GROUPS in batch.schema.names else None
    return Block(batch.column("id"), latents, labels, values, known, holdout, dropped, groups)


def latent_blocks(batch: pa.RecordBatch) -> Iterator[tuple[Latents, Bools]]:
    """Blocks of a batch with column `latent`: the finite rows (n, d), and which rows of the block those are (rows,)."""
    size = max(1, BLOCK_VALUES // batch.schema.field("latent").type.list_size)
    for start in range(0, batch.num_rows, size):
        latents, finite = finite_rows(batch.column("latent").slice(start, size))
        yield (latents if finite.all() else latents[finite]), finite


def finite_rows(column: pa.FixedSizeListArray | pa.ChunkedArray) -> tuple[Latents, Bools]:
    """All rows of a latent column in float32 (n, d), and which are present and finite (n,)."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    latents = widen(matrix_of(column))
    return latents, _finite(latents) & column.is_valid().to_numpy(zero_copy_only=False)


def widen(latents: npt.NDArray[Any]) -> Latents:
    """float16 or float32 (rows, d) as float32, exactly. Arrow's memory is read-only, so float16 is copied first."""
    if latents.dtype == np.float32:
        return latents
    # NumPy converts half precision one number at a time; torch does it 30 times as fast.
    return torch.from_numpy(latents.copy()).to(torch.float32).numpy()


def _finite(latents: Latents) -> Bools:
    # One product tells that all is well, which is nearly always; only otherwise is every number looked at.
    with np.errstate(invalid="ignore", over="ignore"):
        sums = latents @ np.ones(latents.shape[1], np.float32)
    if np.isfinite(sums).all():
        return np.ones(len(latents), bool)
    return np.asarray(np.isfinite(latents).all(axis=1))
