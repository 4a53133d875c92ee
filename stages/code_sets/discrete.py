"""Between codes of a discrete autoencoder (VQ, FSQ): a seeded token swap, or straight lines of embeddings, quantised again.

Indices are names, not numbers: 3 is no more between 2 and 4 than 7 is, so nothing here ever averages them.
"""

import numpy as np
import numpy.typing as npt

from stages.code_sets.discrete_edits import Tokens, nearest_codes
from stages.code_sets.path import times_of


def token_swap(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike, *, seeds: npt.ArrayLike) -> Tokens:
    """a with the first round(t·m) of its m differing tokens replaced by b's, in an order drawn from each row's seed.

    a, b: (n, *shape) indices; t: (frames,) in [0, 1]; seeds: (n,) uint64 → (n, frames, *shape). Nested: a token once replaced
    stays replaced as t grows. t=0 is a, t=1 is b.
    """
    first, second, times = *_indices(a, b), times_of(t)
    if len(times) and not (times.min() >= 0 and times.max() <= 1):
        raise ValueError(f"t must be from 0 to 1, got {times.min():g} to {times.max():g}")
    flat_a, flat_b = first.reshape(len(first), -1), second.reshape(len(second), -1)
    out = np.repeat(flat_a[:, None, :], len(times), axis=1)
    for row, seed in enumerate(np.asarray(seeds, np.uint64)):
        differing = np.flatnonzero(flat_a[row] != flat_b[row])
        # Ranks are drawn for all places, so one place's rank does not depend on where else the codes differ.
        ranks = np.random.default_rng(int(seed)).random(flat_a.shape[1])
        order = differing[np.argsort(ranks[differing], kind="stable")]
        for frame, count in enumerate(np.rint(times * len(order)).astype(int)):
            out[row, frame, order[:count]] = flat_b[row, order[:count]]
    return out.reshape(len(first), len(times), *first.shape[1:])


def codebook_lerp(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike, *, codebook: npt.ArrayLike) -> Tokens:
    """Each token's embedding goes straight from a's to b's; every frame takes the nearest codebook entry (the lowest on a tie).

    a, b: (n, *shape) indices into `codebook` (K, d); t: (frames,) → (n, frames, *shape). t=0 and t=1 are a and b themselves,
    also where two entries coincide. Raises ValueError for indices outside the codebook.
    """
    first, second, times = *_indices(a, b), times_of(t)
    book = np.asarray(codebook, np.float64)
    if book.ndim != 2 or not np.isfinite(book).all():
        raise ValueError(f"codebook must be (entries, d) of finite numbers, got shape {book.shape}")
    for indices in (first, second):
        if indices.size and not (indices.min() >= 0 and indices.max() < len(book)):
            raise ValueError(f"indices must be from 0 to {len(book) - 1}, got {indices.min()} to {indices.max()}")
    # Only pairs that occur are worked out: there are often far fewer than tokens.
    pairs, where = np.unique(np.stack([first.ravel(), second.ravel()], axis=1), axis=0, return_inverse=True)
    out = np.empty((len(times), len(pairs)), np.int64)
    for frame, time in enumerate(times):
        out[frame] = nearest_codes((1 - time) * book[pairs[:, 0]] + time * book[pairs[:, 1]], book)
        if time in (0.0, 1.0):
            out[frame] = pairs[:, int(time)]
    spread = out[:, where.ravel()].reshape(len(times), *first.shape)
    return np.moveaxis(spread, 0, 1)


def _indices(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Tokens, Tokens]:
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"both codes must be (rows, *shape) alike, got {first.shape} and {second.shape}")
    if not (np.issubdtype(first.dtype, np.integer) and np.issubdtype(second.dtype, np.integer)):
        raise ValueError(f"codes must be whole numbers, got {first.dtype} and {second.dtype}")
    return first.astype(np.int64), second.astype(np.int64)
