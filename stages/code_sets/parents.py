"""What a code set is made from: rows of 0, 1, 2 or more images, each with its id and its latent.

One row of a selection becomes one row of these batches, and `strips × frames` codes. `seq` is the row's position in the
selection; a latent is null where the image has none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.tables import codes_field, latent_field
from stages.columns import matrix_of

Array = npt.NDArray[np.float64]
LATENT = ("latent",)
"""The columns of the latents table that most stages read."""
CODES = ("codes",)
"""What stages of discrete codecs read instead: indices of the codebook."""
MISSING = "missing"
"""Flag of a row one of whose images has no latent (or no logvar, where it is needed)."""
NAN_INPUT = "nan_input"
"""Flag of a row one of whose latents holds NaN or infinity."""
NON_FINITE = "non_finite"
"""Flag of what became infinite or NaN while it was computed."""


class CodeStage(Protocol):
    """Rows of parents → codes. Plain data that pickles; called in workers with batches of `parents_schema`."""

    @property
    def parents(self) -> int:
        """Images a row is made from; 0 for draws."""

    @property
    def strips(self) -> int:
        """Strips a row."""

    @property
    def frames(self) -> int:
        """Frames a strip."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of each parent."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """→ `schemas.batches.codes_schema`, rows × strips × frames, in order, numbered as if nothing came before row 0."""


def parents_schema(spec: LatentSpec, count: int, *, columns: Sequence[str] = LATENT) -> pa.Schema:
    """`seq`, `ids`, and `latent_0` … `latent_{count−1}`; the same for every other column that is read (`logvar_0` …)."""
    return pa.schema(
        [
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("ids", pa.list_(pa.string()), nullable=False),
            *(_field(column, spec).with_name(f"{column}_{i}") for column in columns for i in range(count)),
        ]
    )


def _field(column: str, spec: LatentSpec) -> pa.Field:
    return codes_field(spec) if column in CODES else latent_field(column, spec, "float32")


def parents_batch(
    seq: pa.Array | Sequence[int],
    ids: pa.Array | Sequence[Sequence[str]],
    latents: Sequence[pa.Array],
    *,
    columns: Sequence[str] = LATENT,
) -> pa.RecordBatch:
    """Columns of `parents_schema`; `latents` holds one FixedSizeList column a parent, of any type of number.

    With more `columns` than `latent`, all parents of the first come before all of the second.
    """
    count = len(latents) // len(columns)
    names = ["seq", "ids", *(f"{column}_{i}" for column in columns for i in range(count))]
    return pa.RecordBatch.from_arrays(
        [pa.array(seq, pa.int64()), pa.array(ids, pa.list_(pa.string())), *latents], names=names
    )


@dataclass(frozen=True)
class Parents:
    """A batch of rows as arrays: `seq` (n,), `ids` a list a row, `latents` (n, count, d) float64 (or tokens), `present` (n,).

    Rows that are not `present`, for want of a latent, hold zeros.
    """

    seq: npt.NDArray[np.int64]
    ids: list[list[str]]
    latents: Array
    present: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def lost(self) -> npt.NDArray[np.str_]:
        """(n,), the flag of a row that nothing can be made of: a latent is missing, or not finite; '' for the others."""
        bad = np.where(np.isfinite(self.latents).all(axis=(1, 2)), "", NAN_INPUT)
        return np.where(self.present, bad, MISSING)

    @property
    def numbers(self) -> Array:
        """(n, count, d), the latents, zeros for rows that are `lost`."""
        return np.where((self.lost == "")[:, None, None], self.latents, 0.0)


def read_parents(batch: pa.RecordBatch, spec: LatentSpec, count: int, *, column: str = "latent") -> Parents:
    """The arrays of a batch of `parents_schema`; `column` says which numbers stand as `latents`."""
    latents = np.zeros((batch.num_rows, count, math.prod(spec.token_shape) if column in CODES else spec.dim))
    present = np.ones(batch.num_rows, np.bool_)
    for i in range(count):
        values = batch.column(f"{column}_{i}")
        present &= values.is_valid().to_numpy(zero_copy_only=False)
        latents[:, i] = matrix_of(values)
    latents[~present] = 0.0
    return Parents(batch.column("seq").to_numpy(), batch.column("ids").to_pylist(), latents, present)
