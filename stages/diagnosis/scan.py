"""The one scan of a diagnosis: means and variances, norms, posterior terms and a sample of rows, for any number of rows.

Everything is kept in float64, in blocks that stay in the processor's cache, and merges: any chunking and any order of rows
gives the same numbers up to rounding, and exactly the same sample. Rows with a number that is not finite leave first, counted.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.columns import matrix_of
from stages.diagnosis.norms import NormHistogram
from stages.moments import Moments
from stages.row_hash import Hashes, hash_ids, salted
from stages.rows import Latents, widen

Floats = npt.NDArray[np.float64]
BLOCK_VALUES = 2**19
"""16 MB of float64. Smaller blocks would stay in the cache, but threads that fold side by side would wait for each other."""
MAX_SAMPLE_ROWS = 2**16
MAX_SAMPLE_VALUES = 2**22


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
    limit: int = 2**64 - 1

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
    def of(cls, squares: Floats, logvars: Floats) -> "PosteriorSums":
        """From ‖μ‖² (n,) and log σ² (n, d)."""
        std = np.exp(0.5 * logvars)
        variance = std * std
        ones, dim = np.ones(len(logvars)), logvars.shape[1]
        kl = 0.5 * (squares + (variance - logvars) @ np.ones(dim) - dim)
        return cls(ones @ logvars, ones @ variance, ones @ std, float(kl.sum()), float(kl @ kl))

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

    @property
    def n(self) -> int:
        return self.moments.n


@dataclass(frozen=True)
class Scan:
    """Reduce stage over batches with `id`, `latent` and, if `logvar`, `logvar`."""

    dim: int
    logvar: bool
    capacity: int = field(default=MAX_SAMPLE_ROWS)

    def start(self) -> Scanned:
        capacity = max(1, min(self.capacity, MAX_SAMPLE_ROWS, MAX_SAMPLE_VALUES // self.dim))
        empty = NormHistogram.empty()
        return Scanned(
            Moments.empty(self.dim, full=False),
            empty,
            CodeSample(capacity),
            PosteriorSums.empty(self.dim) if self.logvar else None,
            empty if self.logvar else None,
        )

    def add(self, state: Scanned, batch: pa.RecordBatch) -> Scanned:
        rows = max(1, BLOCK_VALUES // self.dim)
        for start in range(0, batch.num_rows, rows):
            state = self._block(state, batch.slice(start, rows))
        return state

    def merge(self, a: Scanned, b: Scanned) -> Scanned:
        return Scanned(
            a.moments.merged(b.moments),
            a.norms.merged(b.norms),
            a.sample.merged(b.sample),
            a.posterior.merged(b.posterior) if a.posterior and b.posterior else None,
            a.drawn_norms.merged(b.drawn_norms) if a.drawn_norms and b.drawn_norms else None,
            a.non_finite + b.non_finite,
        )

    def _block(self, state: Scanned, batch: pa.RecordBatch) -> Scanned:
        latents, good = finite_rows(batch.column("latent"))
        logvars = None
        if self.logvar:
            logvars, known = finite_rows(batch.column("logvar"))
            good &= known
        dropped = int(len(good) - good.sum())
        if dropped:
            latents, batch = latents[good], batch.filter(pa.array(good))
            logvars = None if logvars is None else logvars[good]
        if not len(latents):
            return replace(state, non_finite=state.non_finite + dropped)
        origin = state.moments.origin if state.n else latents.mean(0, dtype=np.float64)
        moments, squares = _measured(latents, origin)
        posterior, drawn = state.posterior, state.drawn_norms
        if logvars is not None and posterior is not None and drawn is not None:
            spread = logvars.astype(np.float64)
            posterior = posterior.merged(PosteriorSums.of(squares, spread))
            drawn = drawn.merged(NormHistogram.of(squares + np.exp(spread) @ np.ones(self.dim)))
        return Scanned(
            state.moments.merged(moments),
            state.norms.merged(NormHistogram.of(squares)),
            self._sampled(state.sample, batch.column("id"), latents, logvars),
            posterior,
            drawn,
            state.non_finite + dropped,
        )

    def _sampled(self, sample: CodeSample, ids: pa.Array, latents: Latents, logvars: Latents | None) -> CodeSample:
        hashes = salted(hash_ids(ids), "diagnosis sample")
        kept = np.flatnonzero(hashes <= np.uint64(sample.limit))
        if not len(kept):
            return sample
        names = ids.take(pa.array(kept))
        return sample.added(
            SampledCodes(hashes[kept], names, latents[kept], None if logvars is None else logvars[kept])
        )


def _measured(latents: Latents, origin: Floats) -> tuple[Moments, Floats]:
    """Moments of rows (n, d), variances alone, and ‖z‖² (n,), in as few looks at the rows as it takes.

    `origin` lies near the data, so that neither loses digits when they sit far from zero.
    """
    n, dim = latents.shape
    away = np.subtract(latents, origin, dtype=np.float64)
    offset = (np.ones(n) @ away) / n
    scatter = np.einsum("ij,ij->j", away, away) - n * offset**2
    squares = np.einsum("ij,ij->i", away, away) + 2 * (away @ origin) + origin @ origin
    return Moments(n, origin, offset, scatter, np.zeros((dim, 0)), np.zeros((0, 0))), np.maximum(squares, 0.0)


def finite_rows(column: pa.FixedSizeListArray) -> tuple[Latents, npt.NDArray[np.bool_]]:
    """(rows, d) float32, and which rows are there and finite."""
    values = widen(matrix_of(column))
    with np.errstate(invalid="ignore", over="ignore"):
        sums = values @ np.ones(values.shape[1], np.float32)
    good = np.asarray(np.isfinite(sums))
    if not good.all():
        good = np.asarray(np.isfinite(values).all(axis=1))
    return values, good & column.is_valid().to_numpy(zero_copy_only=False)
