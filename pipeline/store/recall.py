"""Recall of an index: what share of the true nearest neighbours it finds, on rows of the table itself.

Truth is one streaming pass over all vectors in float64, for all queries at once. Rows at the same distance as the k-th
neighbour count as neighbours too, so duplicates in the data do not look like misses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.columns import matrix_of

TIE = 1e-6
"""Relative difference of distances that counts as equal: rounding of float32 search."""


@dataclass(frozen=True)
class Neighbours:
    """For each query the ids of its true neighbours: the k nearest other rows, and those tied with the last."""

    ids: list[frozenset[str]]
    k: int


def matrix(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A FixedSizeList column as (n, d) float64; null rows are NaN."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = np.asarray(matrix_of(array), np.float64)
    if array.null_count:
        rows = np.where(array.is_valid().to_numpy(zero_copy_only=False)[:, None], rows, np.nan)
    return rows


def exact_neighbours(
    batches: Iterable[pa.RecordBatch],
    queries: npt.NDArray[np.float64],
    own: Sequence[str],
    *,
    column: str,
    k: int,
    metric: str,
) -> Neighbours:
    """The k nearest rows of each query (q, d), leaving out the row whose id is its own.

    Batches carry `id` and `column`. Memory: q × (3k + batch rows).
    """
    keep = 3 * k + 1
    best = np.full((len(queries), 0), np.inf)
    names = np.empty((len(queries), 0), object)
    for batch in batches:
        ids = np.array(batch.column("id").to_pylist(), object)
        with np.errstate(invalid="ignore"):  # rows that are not finite are nobody's neighbours: `_within` drops them
            near = distances(queries, matrix(batch.column(column)), metric)
        near[np.asarray(own, object)[:, None] == ids[None, :]] = np.inf
        best = np.concatenate([best, near], axis=1)
        names = np.concatenate([names, np.broadcast_to(ids, near.shape)], axis=1)
        if best.shape[1] > keep:
            chosen = np.argpartition(best, keep - 1, axis=1)[:, :keep]
            best, names = np.take_along_axis(best, chosen, 1), np.take_along_axis(names, chosen, 1)
    return Neighbours([_within(b, n, k) for b, n in zip(best, names, strict=True)], k)


def distances(queries: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """(q, n): squared Euclidean distance for `l2`, 1 − cos for `cosine`; the units Lance uses."""
    if metric == "cosine":
        cosine: npt.NDArray[np.float64] = 1 - _unit(queries) @ _unit(rows).T
        return cosine
    squares = (queries**2).sum(1)[:, None] + (rows**2).sum(1)[None, :]
    l2: npt.NDArray[np.float64] = np.maximum(squares - 2 * queries @ rows.T, 0)
    return l2


def recall(truth: Neighbours, search: Callable[[int], Sequence[str]]) -> float:
    """Mean share of true neighbours among the first k that `search(query number)` returns (itself left out)."""
    shares = []
    for number, ids in enumerate(truth.ids):
        wanted = min(truth.k, len(ids))
        if wanted:
            shares.append(len(ids.intersection(search(number)[: truth.k])) / wanted)
    return float(np.mean(np.minimum(shares, 1))) if shares else 1.0


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = rows / np.where(norm == 0, 1, norm)
    return unit


def _within(near: npt.NDArray[np.float64], names: npt.NDArray[np.object_], k: int) -> frozenset[str]:
    real = np.isfinite(near)
    near, names = near[real], names[real]
    if len(near) <= k:
        return frozenset(names.tolist())
    last = np.partition(near, k - 1)[k - 1]
    return frozenset(names[near <= last * (1 + TIE) + 1e-12].tolist())
