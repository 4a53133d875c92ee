"""Norms of latents against √d: where a code of N(0, I) in d dimensions lies, and how far from there one is.

‖z‖² of N(0, I) is χ² with d degrees of freedom, so (‖z‖² − d)/√(2d), the typicality, is about N(0, 1), and ‖z‖ is about √d with
a standard deviation of 1/√2 at any d. The density is greatest at the origin, which is √d/.707 deviations from where codes lie
(22.6 at d = 256): log p(z) ranks the origin best, typicality tells it apart.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PER_OCTAVE = 512
LOWEST = -20
OCTAVES = 44
NORM_STD = math.sqrt(0.5)


def typicality(squared_norms: Floats, dim: int) -> Floats:
    """(‖z‖² − d)/√(2d): about N(0, 1) for codes of N(0, I); −√(d/2) at the origin."""
    return (squared_norms - dim) / math.sqrt(2 * dim)


def norm_deviations(norms: Floats, dim: int) -> Floats:
    """(‖z‖ − √d)/√½: how many standard deviations a norm is from the shell."""
    return (norms - math.sqrt(dim)) / NORM_STD


@dataclass(frozen=True, slots=True)
class NormHistogram:
    """Counts of norms in bins of equal ratio (.14 %), from 2⁻²⁰ to 2²⁴; the first also takes what is smaller. Mergeable, exact.

    `total`, `squares`: Σ‖z‖ and Σ‖z‖².
    """

    counts: npt.NDArray[np.int64]
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def empty(cls) -> "NormHistogram":
        return cls(np.zeros(PER_OCTAVE * OCTAVES, np.int64))

    @classmethod
    def of(cls, squared_norms: Floats) -> "NormHistogram":
        with np.errstate(divide="ignore"):
            octaves = 0.5 * np.log2(squared_norms)
        bins = np.clip((octaves - LOWEST) * PER_OCTAVE, 0, PER_OCTAVE * OCTAVES - 1).astype(np.int64)
        counts = np.bincount(bins, minlength=PER_OCTAVE * OCTAVES)
        return cls(counts, float(np.sqrt(squared_norms).sum()), float(squared_norms.sum()))

    def merged(self, other: "NormHistogram") -> "NormHistogram":
        return NormHistogram(self.counts + other.counts, self.total + other.total, self.squares + other.squares)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def centres(self) -> Floats:
        """The norm in the middle of every bin."""
        return np.asarray(2.0 ** (LOWEST + (np.arange(len(self.counts)) + 0.5) / PER_OCTAVE))

    @property
    def mean(self) -> float:
        return self.total / self.n

    @property
    def std(self) -> float:
        """Of the norm; rounding of a difference, so zero below 1e-7 of the mean."""
        return math.sqrt(max(self.squares / self.n - self.mean**2, 0.0))

    def quantile(self, share: float) -> float:
        """The norm below which `share` of the rows lie, to a bin's width."""
        at = int(np.searchsorted(np.cumsum(self.counts), share * self.n, side="left"))
        return float(2.0 ** (LOWEST + (at + 0.5) / PER_OCTAVE))

    def beyond(self, dim: int, deviations: float) -> float:
        """Share of rows whose |typicality| is greater than `deviations`."""
        return float(self.counts[np.abs(typicality(self.centres**2, dim)) > deviations].sum() / self.n)

    def bars(self, low: float, high: float, count: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The histogram again in `count` equal bins from `low` to `high`: their edges (count + 1,) and the rows in each."""
        held = np.flatnonzero(self.counts)
        rows, edges = np.histogram(self.centres[held], bins=count, range=(low, high), weights=self.counts[held])
        return edges, rows.astype(np.int64)
