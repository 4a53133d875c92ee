"""The one scan of a diagnosis: means and variances, norms, posterior terms and a sample of rows, for any number of rows.

Of all rows: means, variances, norms, posterior sums. Of the sample alone (at most MAX_SAMPLE_ROWS rows, fixed by the hash of
their ids): covariances, neighbours, distributions, two-sample tests. Sums are kept in float64 and merge: any chunking and any
order of rows gives the same numbers up to rounding, and exactly the same sample. Rows with a number that is not finite leave
first, counted.
"""

import math
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.dlpack import from_dlpack

from stages.code_sets.token_priors import TokenCounts
from stages.columns import matrix_of
from stages.diagnosis.norms import NormHistogram
from stages.moments import Moments
from stages.row_hash import Hashes, hash_ids, salted
from stages.rows import Latents, widen
from stages.stage import Passes

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BLOCK_VALUES = 2**18
"""2 MB of float64: they stay in the cache from one look to the next, and threads seldom meet between array operations."""
LAST_HASH = 2**64 - 1
MAX_SAMPLE_ROWS = 2**16
MAX_SAMPLE_VALUES = 2**22
WIDEST = float(np.finfo(np.float32).max)
"""Σσ² of a posterior that float32 can hold. exp of a wild log-variance is more: such a row counts as not finite."""
FAR = 1e-2
"""Scatter ÷ Σz² under which a coordinate lies so far from zero that a difference of sums would lose digits."""


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


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the scan knows. `moments` are of the latents, variances alone; `posterior` None where no log-variance is stored."""

    moments: Moments
    norms: NormHistogram
    sample: CodeSample
    posterior: PosteriorSums | None = None
    drawn_norms: NormHistogram | None = None
    """Root of the mean squared norm of draws from each row's posterior: √(‖μ‖² + Σσ²)."""
    non_finite: int = 0
    codebook: TokenCounts | None = None
    """How often each code was used; None for continuous families."""

    @property
    def n(self) -> int:
        return self.moments.n


@dataclass(frozen=True)
class Scan:
    """Reduce stage over batches with `id`, `latent` and, if `logvar`, `logvar`; and `codes`, if `codebook` says how many there are.

    `expected`: rows that will come, from which it follows whose hashes can be among the smallest; the others' are not copied.
    """

    dim: int
    logvar: bool
    capacity: int = field(default=MAX_SAMPLE_ROWS)
    expected: int | None = None
    codebook: int | None = None

    def start(self) -> Scanned:
        capacity = max(1, min(self.capacity, MAX_SAMPLE_ROWS, MAX_SAMPLE_VALUES // self.dim))
        empty = NormHistogram.empty()
        return Scanned(
            Moments.empty(self.dim, full=False),
            empty,
            CodeSample(capacity, limit=_limit(capacity, self.expected)),
            PosteriorSums.empty(self.dim) if self.logvar else None,
            empty if self.logvar else None,
            codebook=None if self.codebook is None else TokenCounts.empty(self.codebook, bigram=False),
        )

    def add(self, state: Scanned, batch: pa.RecordBatch) -> Scanned:
        if not batch.num_rows:
            return state
        rows = batch.num_rows
        found = self._summed(batch, centred=_far(state.moments))
        good = found.finite & self._there(batch)
        if not good.all():
            batch = batch.filter(pa.array(good))
            found = self._summed(batch, centred=_far(state.moments))
        moments = found.moments()
        if moments is None:
            found = self._summed(batch, centred=True)
            moments = found.moments()
            assert moments is not None
        drawn, posterior = state.drawn_norms, state.posterior
        if drawn is not None and posterior is not None and found.posterior is not None:
            drawn = drawn.merged(NormHistogram.of(found.squares + found.variances))
            posterior = posterior.merged(found.posterior)
        return Scanned(
            state.moments.merged(moments),
            state.norms.merged(NormHistogram.of(found.squares)),
            self._sampled(state.sample, batch),
            posterior,
            drawn,
            state.non_finite + rows - batch.num_rows,
            _used(state.codebook, batch),
        )

    def merge(self, a: Scanned, b: Scanned) -> Scanned:
        return Scanned(
            a.moments.merged(b.moments),
            a.norms.merged(b.norms),
            a.sample.merged(b.sample),
            a.posterior.merged(b.posterior) if a.posterior and b.posterior else None,
            a.drawn_norms.merged(b.drawn_norms) if a.drawn_norms and b.drawn_norms else None,
            a.non_finite + b.non_finite,
            a.codebook.merged(b.codebook) if a.codebook and b.codebook else None,
        )

    def _there(self, batch: pa.RecordBatch) -> Bools:
        """(rows,), which rows have all that is summed."""
        columns = [batch.column(name) for name in (("latent", "logvar") if self.logvar else ("latent",))]
        return np.asarray(
            np.logical_and.reduce([column.is_valid().to_numpy(zero_copy_only=False) for column in columns]), np.bool_
        )

    def _summed(self, batch: pa.RecordBatch, *, centred: bool) -> "_Summed":
        """Every row is looked at in float64 once, in blocks that lie in one place in memory."""
        rows = min(max(1, BLOCK_VALUES // self.dim), max(1, batch.num_rows))
        latents = _Widened(batch.column("latent"), rows, 0)
        logvars = _Widened(batch.column("logvar"), rows, 1) if self.logvar else None
        found = _Summed(batch.num_rows, self.dim, centred=centred, logvar=self.logvar)
        # Rows that are not finite spoil the sums, and are seen in `finite`.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, batch.num_rows, rows):
                block = slice(start, start + rows)
                found.add(block, latents[block], None if logvars is None else logvars[block])
        return found

    def _sampled(self, sample: CodeSample, batch: pa.RecordBatch) -> CodeSample:
        hashes = sample_hashes(batch.column("id"))
        kept = np.flatnonzero(hashes <= np.uint64(sample.limit))
        if not len(kept):
            return sample
        rows = batch.take(pa.array(kept))
        logvars = widen(matrix_of(rows.column("logvar"))) if self.logvar else None
        return sample.added(
            SampledCodes(hashes[kept], rows.column("id"), widen(matrix_of(rows.column("latent"))), logvars)
        )


class _Summed:
    """The sums of one batch, block by block, as if all rows were finite: `squares` ‖μ‖² and `variances` Σσ² (n,), and the rest.

    Added up in place with few calls: what Python does for a block holds up the other threads. `centred`: each block about
    its own mean, for rows far from zero.
    """

    def __init__(self, rows: int, dim: int, *, centred: bool, logvar: bool) -> None:
        self.squares, self.variances, self._logs = np.zeros((3, rows))
        self.posterior = PosteriorSums.empty(dim) if logvar else None
        self._ones, self._dims = np.ones(rows), np.ones(dim)
        self._total, self._square = np.zeros((2, dim))
        self._centred = Moments.empty(dim, full=False) if centred else None

    def add(self, block: slice, latents: Floats, logvars: Floats | None) -> None:
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
    def finite(self) -> Bools:
        """(rows,). Squares and sums of float32 fit into float64: they are finite exactly where all numbers of the row are."""
        return np.isfinite(self.squares) & np.isfinite(self._logs) & (self.variances < WIDEST)

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


def _used(counts: TokenCounts | None, batch: pa.RecordBatch) -> TokenCounts | None:
    """The counts with a batch's tokens."""
    if counts is None:
        return None
    found = TokenCounts.empty(len(counts.single), bigram=False)
    found.add(matrix_of(batch.column("codes")))
    return counts.merged(found)


def scan(
    dim: int, *, logvar: bool, rows: int, capacity: int = MAX_SAMPLE_ROWS, codebook: int | None = None
) -> Passes[Scanned, Scanned]:
    """The scan of `rows` rows: one pass, and another where so many of them were not finite that the sample came out short."""
    found = yield Scan(dim, logvar, capacity, expected=rows, codebook=codebook)
    if len(found.sample) < min(found.sample.capacity, found.n):
        found = yield Scan(dim, logvar, capacity, codebook=codebook)
    return found


def _limit(capacity: int, expected: int | None) -> int:
    """The hash under which at least `capacity` of `expected` hashes lie, but for six deviations of their number."""
    enough = capacity + 6 * math.sqrt(capacity)
    if expected is None or expected <= enough:
        return LAST_HASH
    return int(LAST_HASH * (enough / expected))


def _far(known: Moments) -> bool:
    """Whether the rows so far lie far from zero in some coordinate: then so will the next ones."""
    return known.n > 0 and bool((known.zz < FAR * (known.zz + known.n * known.z_mean**2)).any())
