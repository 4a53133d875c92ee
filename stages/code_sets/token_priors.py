"""Priors of token sequences, counted in one pass, and sequences drawn from them (latent-science §4).

A categorical prior draws every token by how often its code occurs; a bigram prior draws the first by how often it comes
first and each other by what follows its predecessor, in raster order. Counts add, so any split and any order give the same
prior. `smoothing` is added to every count (Laplace), so nothing is impossible; temperature τ takes probabilities to p^(1/τ).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.steps.tokens import MAX_BIGRAM_CODES
from stages.code_sets.discrete_edits import Tokens, in_codebook
from stages.code_sets.noise import streams
from stages.columns import matrix_of

Counts = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


@dataclass(slots=True)
class TokenCounts:
    """`single` and `first` (K,): occurrences anywhere and as first token; `pairs` (K, K): a token and the next; `bad_rows` left out."""

    single: Counts
    first: Counts
    pairs: Counts | None
    bad_rows: int = 0

    @classmethod
    def empty(cls, codes: int, *, bigram: bool) -> Self:
        """No tokens yet. Raises ValueError for a bigram table that would be too large."""
        if bigram and codes > MAX_BIGRAM_CODES:
            raise ValueError(f"{codes} codes make {codes}² pairs; bigrams end at {MAX_BIGRAM_CODES} codes")
        pairs = np.zeros((codes, codes), np.int64) if bigram else None
        return cls(np.zeros(codes, np.int64), np.zeros(codes, np.int64), pairs)

    def add(self, tokens: Tokens) -> None:
        """Counts rows of tokens (n, *grid), raster order. Rows with an index outside the codebook are left out and counted."""
        usable = in_codebook(tokens, len(self.single))
        rows = tokens[usable].reshape(int(usable.sum()), -1)
        self.bad_rows += int((~usable).sum())
        self.single += np.bincount(rows.reshape(-1), minlength=len(self.single))
        self.first += np.bincount(rows[:, 0], minlength=len(self.first))
        if self.pairs is not None:
            places = rows[:, :-1].reshape(-1) * len(self.single) + rows[:, 1:].reshape(-1)
            self.pairs += np.bincount(places, minlength=self.pairs.size).reshape(self.pairs.shape)

    def merged(self, other: "TokenCounts") -> "TokenCounts":
        """The counts of both; neither is changed."""
        pairs = None if self.pairs is None or other.pairs is None else self.pairs + other.pairs
        return TokenCounts(self.single + other.single, self.first + other.first, pairs, self.bad_rows + other.bad_rows)


@dataclass(frozen=True)
class CountTokens:
    """Reduce stage over batches with `codes`: how often each of `codes` codes occurs, and, for `bigram`, which follow which."""

    codes: int
    bigram: bool

    def start(self) -> TokenCounts:
        return TokenCounts.empty(self.codes, bigram=self.bigram)

    def add(self, state: TokenCounts, batch: pa.RecordBatch) -> TokenCounts:
        state.add(matrix_of(batch.column("codes")))
        return state

    def merge(self, a: TokenCounts, b: TokenCounts) -> TokenCounts:
        return a.merged(b)


def draw_sequences(
    counts: TokenCounts,
    names: list[str],
    length: int,
    *,
    step: str,
    seed: int,
    smoothing: float = 1.0,
    temperature: float = 1.0,
) -> Tokens:
    """One sequence a name, (n, length), from a stream of its own (stages.code_sets.noise): a bigram's where pairs were counted.

    Raises ValueError when nothing was counted and nothing is added, or a temperature is not positive.
    """
    if not temperature > 0 or smoothing < 0:
        raise ValueError(f"temperature {temperature} must be positive, smoothing {smoothing} not negative")
    places = np.array([stream.random(length) for stream in streams(names, step=step, seed=seed)]).reshape(-1, length)
    if counts.pairs is None:
        return _pick(_cumulated(counts.single, smoothing, temperature)[None], np.zeros(places.shape, np.int64), places)
    drawn = np.empty(places.shape, np.int64)
    start = _cumulated(counts.first, smoothing, temperature)[None]
    drawn[:, 0] = _pick(start, np.zeros(len(places), np.int64), places[:, 0])
    for at in range(1, length):
        before = drawn[:, at - 1]
        needed, which = np.unique(before, return_inverse=True)
        # Without smoothing a code that was last wherever it occurred has no successor: any code may follow it.
        rows = np.stack([_cumulated(counts.pairs[k], smoothing, temperature, fallback=counts.single) for k in needed])
        drawn[:, at] = _pick(rows, which, places[:, at])
    return drawn


def _cumulated(counts: Counts, smoothing: float, temperature: float, *, fallback: Counts | None = None) -> Array:
    """Cumulated probabilities (K,), ending at 1."""
    weights = counts + smoothing
    if not weights.sum() > 0:
        if fallback is None or not fallback.sum() > 0:
            raise ValueError("no token was counted: count some, or set smoothing above 0")
        weights = fallback.astype(np.float64)
    # Divided by the largest first: a high power of large counts would overflow.
    powers = (weights / weights.max()) ** (1 / temperature)
    total = np.cumsum(powers)
    return np.asarray(total / total[-1])


def _pick(cumulated: Array, which: Tokens, places: Array) -> Tokens:
    """For each place in [0, 1) the code whose interval holds it, by row `which` of `cumulated`."""
    picked = np.empty(places.shape, np.int64)
    for row in np.unique(which):
        mine = which == row
        picked[mine] = np.searchsorted(cumulated[row], places[mine], side="right")
    return picked
