"""The one scan of a diagnosis: means and variances, norms, posterior terms and a sample of rows, for any number of rows.

Of all rows: means, variances, norms, posterior sums. Of the sample alone (at most MAX_SAMPLE_ROWS rows, fixed by the hash of
their ids): covariances, neighbours, distributions, two-sample tests. Sums are kept in float64 and merge: any chunking and any
order of rows gives the same numbers up to rounding, and exactly the same sample. Rows with a number that is not finite leave
first, counted.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.code_sets.token_priors import TokenCounts
from stages.columns import matrix_of
from stages.diagnosis.batch_sums import PosteriorSums, far_from_zero, sums_of
from stages.diagnosis.code_sample import MAX_SAMPLE_ROWS, CodeSample, SampledCodes, sample_hashes
from stages.diagnosis.norms import NormHistogram
from stages.moments import Moments
from stages.rows import widen
from stages.stage import Passes


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
    capacity: int = MAX_SAMPLE_ROWS
    expected: int | None = None
    codebook: int | None = None

    def start(self) -> Scanned:
        empty = NormHistogram.empty()
        return Scanned(
            Moments.empty(self.dim, full=False),
            empty,
            CodeSample.empty(self.capacity, self.dim, expected=self.expected),
            PosteriorSums.empty(self.dim) if self.logvar else None,
            empty if self.logvar else None,
            codebook=None if self.codebook is None else TokenCounts.empty(self.codebook, bigram=False),
        )

    def add(self, state: Scanned, batch: pa.RecordBatch) -> Scanned:
        if not batch.num_rows:
            return state
        rows, centred = batch.num_rows, far_from_zero(state.moments)
        found = sums_of(batch, logvar=self.logvar, centred=centred)
        if not found.complete.all():
            batch = batch.filter(pa.array(found.complete))
            found = sums_of(batch, logvar=self.logvar, centred=centred)
        moments = found.moments()
        if moments is None:
            found = sums_of(batch, logvar=self.logvar, centred=True)
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
