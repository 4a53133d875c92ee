"""Edits of discrete codes: grids of indices into a codebook, never averaged (latent-science §4).

    replacement         indices under a mask are taken from a donor
    nearest-code add    embed, add a step, quantise again: argmin_k ‖e(i) + δ − e_k‖
    histogram transfer  as few tokens as possible change, until the codes occur as often as in a reference

Tokens are integers (n, *grid) from 0 to K − 1; the codebook is (K, c). A row with an index outside of it is not edited and not
`usable`; whoever makes codes of it flags it `bad_index`. Every edit reports the share of tokens that changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

Tokens = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BAD_INDEX = "bad_index"
BLOCK_VALUES = 2**22
TIE = 1e-12


@dataclass(frozen=True, eq=False)
class EditedTokens:
    """`tokens` (n, *grid); `changed` (n,), the share of a row's tokens that differ from before; `usable` (n,)."""

    tokens: Tokens
    changed: Array
    usable: Bools


def replace_tokens(tokens: Tokens, donors: Tokens, mask: Bools, *, codes: int) -> EditedTokens:
    """Tokens where `mask` is False, donors where it is True. donors and mask: (n, *grid), or (*grid) for all rows alike."""
    usable = in_codebook(tokens, codes) & in_codebook(np.broadcast_to(donors, tokens.shape), codes)
    return _edited(tokens, np.where(mask, donors, tokens), usable)


def nearest_code_add(tokens: Tokens, step: Array, codebook: Array, *, mask: Bools | None = None) -> EditedTokens:
    """Embeds, adds `step`, and takes the nearest code, the lower index of two equally near.

    step: (c,) or (*grid, c) for all rows, or (n, *grid, c); mask (*grid) or (n, *grid): where. A step too small to leave a
    code's cell changes nothing: `changed` is the strength that arrived.
    """
    usable = in_codebook(tokens, len(codebook))
    whole = np.broadcast_to(True if mask is None else mask, tokens.shape) & usable.reshape(-1, *[1] * (tokens.ndim - 1))
    moved = np.array(tokens)
    vectors = codebook[tokens[whole]] + np.broadcast_to(step, (*tokens.shape, codebook.shape[1]))[whole]
    moved[whole] = nearest_codes(vectors, codebook)
    return _edited(tokens, moved, usable)


def nearest_codes(vectors: Array, codebook: Array) -> Tokens:
    """Index of the nearest code (K, c) of every vector (m, c), the lower of two equally near. Memory is bounded by blocks.

    Halfway between two codes both are as near but for rounding, which must not choose: hence a tolerance.
    """
    # About the codes' own mean: far from zero the tolerance would take in codes that are not as near.
    centre = np.asarray(codebook, np.float64).mean(axis=0)
    book = codebook - centre
    half = np.einsum("kc,kc->k", book, book) / 2
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), rows := max(1, BLOCK_VALUES // len(book))):
        block = np.asarray(vectors[start : start + rows], np.float64) - centre
        scores = half - block @ book.T
        slack = TIE * (np.abs(scores).max(axis=1, keepdims=True) + half.max())
        found[start : start + rows] = (scores <= scores.min(axis=1, keepdims=True) + slack).argmax(axis=1)
    return found


def histogram_transfer(
    tokens: Tokens, shares: Array, *, seeds: Sequence[int], codebook: Array | None = None
) -> EditedTokens:
    """Changes as few tokens of each row as lead to the histogram `shares` (K,), which sum to 1.

    Which of a code's surplus tokens change is drawn from the row's seed. What they become: with a codebook, whatever is
    nearest in all (an assignment of least total squared distance), else drawn too. T tokens take the shares by largest remainder.
    """
    wanted = apportion(shares, int(np.prod(tokens.shape[1:])))
    usable = in_codebook(tokens, len(shares))
    moved = np.array(tokens)
    for row in np.flatnonzero(usable).tolist():
        moved[row] = _transferred(tokens[row].reshape(-1), wanted, seeds[row], codebook).reshape(tokens.shape[1:])
    return _edited(tokens, moved, usable)


def apportion(shares: Array, count: int) -> Tokens:
    """`count` things by `shares` (K,), whole numbers that sum to it: largest remainder, the lower index on a tie."""
    if not (np.isfinite(shares).all() and (shares >= 0).all() and abs(float(shares.sum()) - 1) < 1e-6):
        raise ValueError("shares must be finite, not negative, and sum to 1")
    exact = shares * count
    whole = np.floor(exact + 1e-9).astype(np.int64)
    left = count - int(whole.sum())
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[:left]] += 1
    return whole


def in_codebook(tokens: Tokens, codes: int) -> Bools:
    """Which rows of tokens (n, *grid) hold indices of a codebook of `codes` only, (n,)."""
    flat = tokens.reshape(len(tokens), -1)
    return np.asarray(((flat >= 0) & (flat < codes)).all(axis=1))


def _transferred(row: Tokens, wanted: Tokens, seed: int, codebook: Array | None) -> Tokens:
    """One row (T,) with the histogram `wanted` (K,)."""
    noise = np.random.Generator(np.random.Philox(seed))
    surplus = np.maximum(np.bincount(row, minlength=len(wanted)) - wanted, 0)
    lacking = np.maximum(wanted - np.bincount(row, minlength=len(wanted)), 0)
    order = noise.permutation(len(row))
    # The first `surplus` tokens of each code in a random order: rank within the code, by a stable sort.
    by_code = order[np.argsort(row[order], kind="stable")]
    starts = np.cumsum(np.bincount(row, minlength=len(wanted))) - np.bincount(row, minlength=len(wanted))
    rank = np.arange(len(row)) - starts[row[by_code]]
    leaving = by_code[rank < surplus[row[by_code]]]
    coming = np.repeat(np.arange(len(wanted)), lacking)
    moved = row.copy()
    if codebook is None:
        moved[leaving] = noise.permutation(coming)
    elif len(leaving):
        # ‖a − b‖² less ‖a‖² and ‖b‖², whose sums no assignment changes.
        here, there = linear_sum_assignment(-(codebook[row[leaving]] @ codebook[coming].T))
        moved[leaving[here]] = coming[there]
    return moved


def _edited(before: Tokens, after: Tokens, usable: Bools) -> EditedTokens:
    tokens = np.where(usable.reshape(-1, *[1] * (before.ndim - 1)), after, before)
    changed = (tokens != before).reshape(len(before), -1).mean(axis=1)
    return EditedTokens(tokens, changed, usable)
