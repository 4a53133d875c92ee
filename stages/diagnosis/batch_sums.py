"""The sums of one batch in a diagnosis: moments, norms and posterior terms, block by block, in float64.

What is added up in place, in few calls and in the same memory, lets the other threads work meanwhile.
"""

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.dlpack import from_dlpack

from stages.columns import matrix_of
from stages.moments import Moments

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BLOCK_VALUES = 2**18
"""2 MB of float64: they stay in the cache from one look to the next, and threads seldom meet between array operations."""
WIDEST = float(np.finfo(np.float32).max)
"""Σσ² of a posterior that float32 can hold. exp of a wild log-variance is more: such a row counts as not finite."""
FAR = 1e-2
"""Scatter ÷ Σz² under which a coordinate lies so far from zero that a difference of sums would lose digits."""


@dataclass(frozen=True, slots=True)
class PosteriorSums:
    """Per coordinate, of rows with a posterior: Σ log σ², Σ σ², Σ σ (d,); of whole rows: Σ KL and Σ KL², in nats."""

    logvar: Floats
    variance: Floats
    std: Floats
    kl: float = 0.0
    kl_squared: float = 0.0

    @classmethod
    def empty(cls, dim: int) -> "PosteriorSums":
        return cls(np.zeros(dim), np.zeros(dim), np.zeros(dim))

    @classmethod
    def of(cls, squares: Floats, logvars: Floats) -> "tuple[PosteriorSums, Floats]":
        """From ‖μ‖² (n,) and log σ² (n, d); and Σσ² of every row (n,)."""
        with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks at the widths
            std = np.exp(0.5 * logvars)
            variance = std * std
            rows, dims = np.ones(len(logvars)), np.ones(logvars.shape[1])
            variances = variance @ dims
            kl = 0.5 * (squares + variances - logvars @ dims - len(dims))
            return cls(rows @ logvars, rows @ variance, rows @ std, float(kl.sum()), float(kl @ kl)), variances

    def merged(self, other: "PosteriorSums") -> "PosteriorSums":
        return PosteriorSums(
            self.logvar + other.logvar,
            self.variance + other.variance,
            self.std + other.std,
            self.kl + other.kl,
            self.kl_squared + other.kl_squared,
        )


def far_from_zero(known: Moments) -> bool:
    """Whether the rows so far lie far from zero in some coordinate: then so will the next ones."""
    return known.n > 0 and bool((known.zz < FAR * (known.zz + known.n * known.z_mean**2)).any())


def sums_of(batch: pa.RecordBatch, *, logvar: bool, centred: bool) -> "BatchSums":
    """Every row is looked at in float64 once, in blocks that lie in one place in memory."""
    columns = [batch.column(name) for name in (("latent", "logvar") if logvar else ("latent",))]
    dim = columns[0].type.list_size
    rows = min(max(1, BLOCK_VALUES // dim), max(1, batch.num_rows))
    latents, *logvars = (_Widened(column, rows, place) for place, column in enumerate(columns))
    there = np.logical_and.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in columns])
    found = BatchSums(np.asarray(there, np.bool_), dim, centred=centred, logvar=logvar)
    # Rows that are not finite spoil the sums, and are seen in `complete`.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, batch.num_rows, rows):
            block = slice(start, start + rows)
            found.add(block, latents[block], *(wide[block] for wide in logvars))
    return found


class BatchSums:
    """The sums of one batch, block by block, as if all rows were finite: `squares` ‖μ‖² and `variances` Σσ² (n,), and the rest.

    Added up in place with few calls: what Python does for a block holds up the other threads. `centred`: each block about
    its own mean, for rows far from zero. `there` (rows,): which rows have all that is summed.
    """

    def __init__(self, there: Bools, dim: int, *, centred: bool, logvar: bool) -> None:
        rows = len(there)
        self._there = there
        self.squares, self.variances, self._logs = np.zeros((3, rows))
        self.posterior = PosteriorSums.empty(dim) if logvar else None
        self._ones, self._dims = np.ones(rows), np.ones(dim)
        self._total, self._square = np.zeros((2, dim))
        self._centred = Moments.empty(dim, full=False) if centred else None

    def add(self, block: slice, latents: Floats, logvars: Floats | None = None) -> None:
        """The rows `block` of the batch: latents and log-variances (n, d)."""
        squares = np.vecdot(latents, latents, out=self.squares[block])
        if self._centred is None:
            self._total += self._ones[: len(latents)] @ latents
            self._square += np.einsum("ij,ij->j", latents, latents)
        elif np.isfinite(squares).all():
            self._centred.absorb(Moments.of(latents, full=False))
        if logvars is not None and self.posterior is not None:
            sums, self.variances[block] = PosteriorSums.of(squares, logvars)
            self.posterior = self.posterior.merged(sums)
            self._logs[block] = logvars @ self._dims

    @property
    def complete(self) -> Bools:
        """(rows,). Squares and sums of float32 fit into float64: they are finite exactly where all numbers of the row are."""
        return self._there & np.isfinite(self.squares) & np.isfinite(self._logs) & (self.variances < WIDEST)

    def moments(self) -> Moments | None:
        """Of all rows, variances alone. None where some coordinate lies so far from zero that plain sums lose digits."""
        n, dim = len(self.squares), len(self._total)
        if self._centred is not None:
            return self._centred
        if not n:
            return Moments.empty(dim, full=False)
        mean = self._total / n
        scatter = self._square - n * mean**2
        if (scatter < FAR * self._square).any():
            return None
        return Moments(n, mean, np.zeros(dim), scatter, np.zeros((dim, 0)), np.zeros((0, 0)))


class _Widened:
    """Blocks of a float16 or float32 column as float64 (rows, d), one after another in the same memory.

    Fresh memory for every block, or batch, would cost as much as the sums: a thread keeps its own, by `place` in the batch.
    """

    def __init__(self, column: pa.FixedSizeListArray, rows: int, place: int) -> None:
        size = column.type.list_size
        values = column.values.slice(column.offset * size, len(column) * size)
        # DLPack lends Arrow's memory out, which numpy would have to copy for torch; it knows no nulls.
        flat = torch.from_numpy(matrix_of(column).copy()) if values.null_count else from_dlpack(values)
        self._source = flat.view(len(column), size)
        kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = _ROOM.__dict__.setdefault("blocks", {})
        if place not in kept or len(kept[place][0]) < rows * size:
            kept[place] = (torch.empty(rows * size), torch.empty(rows * size, dtype=torch.float64))
        single, wide = kept[place]
        self._single = single[: rows * size].view(rows, size) if flat.dtype == torch.float16 else None
        self._wide = wide[: rows * size].view(rows, size)

    def __getitem__(self, block: slice) -> Floats:
        """Rows of the column; overwritten by the next call."""
        source = self._source[block]
        # By way of float32: torch has quick code for both steps, and slow code for the leap.
        if self._single is not None:
            source = self._single[: len(source)].copy_(source)
        found: Floats = self._wide[: len(source)].copy_(source).numpy()
        return found


_ROOM = threading.local()
