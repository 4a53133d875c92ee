"""Which pairs of images an interpolate step walks between. Pure; deterministic; independent of the order of rows.

Choices go by a hash of the id (`schemas.identity.row_seed`), so they stay the same when rows move, and mostly the same when rows
are added. Random pairing keeps 2·count ids in memory, however many stream by.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from schemas.identity import row_seed

Pair = tuple[str, str]
Neighbours = Callable[[Sequence[str], int], Sequence[Sequence[str]]]
"""Given ids and k: for each id, up to k ids of its nearest neighbours, nearest first. It may name the id itself."""

ROUNDS = 64
SPARE_NEIGHBOURS = 8


def explicit_pairs(pairs: Iterable[Sequence[str]]) -> list[Pair]:
    """The pairs as given, each ordered pair once: the same pair twice would be one picture written twice."""
    return list(dict.fromkeys((a, b) for a, b in pairs))


def random_pairs(ids: Iterable[str], *, count: int, seed: int) -> list[Pair]:
    """Up to `count` different pairs of different images; each image at most once while there are 2·count of them.

    Fewer images than that are paired again in another order until `count` pairs, or (nearly) all there are, are found.
    """
    chosen = heapq.nsmallest(2 * count, ids, key=_by_hash(seed, 0))
    found: dict[frozenset[str], Pair] = {}
    for draw in range(ROUNDS):
        order = sorted(chosen, key=_by_hash(seed, draw))
        # The first round takes disjoint pairs; later ones, needed only for small sets, every neighbour in the order.
        for a, b in list(pairwise(order))[:: 2 if draw == 0 else 1]:
            if a != b:
                found.setdefault(frozenset((a, b)), (a, b))
        if len(found) >= count:
            break
    return list(found.values())[:count]


def random_triples(ids: Iterable[str], *, count: int, seed: int) -> list[tuple[str, str, str]]:
    """Up to `count` different triples of three different images; each image at most once while there are 3·count of them.

    Fewer images than that are put in other orders until `count` triples, or about all that a few orders give, are found.
    """
    chosen = heapq.nsmallest(3 * count, ids, key=_by_hash(seed, 0))
    found: dict[tuple[str, str, str], None] = {}
    for draw in range(ROUNDS):
        order = sorted(chosen, key=_by_hash(seed, draw))
        for i in range(0, len(order) - 2, 3):
            found.setdefault((order[i], order[i + 1], order[i + 2]))
        if len(found) >= count:
            break
    return list(found)[:count]


def nearest_pairs(ids: Iterable[str], *, count: int, seed: int, search: Neighbours) -> list[Pair]:
    """Up to `count` pairs (image, its nearest neighbour), for images chosen by hash; no pair twice, either way round."""
    anchors = heapq.nsmallest(2 * count, ids, key=_by_hash(seed, 0))
    found: dict[frozenset[str], Pair] = {}
    for anchor, near in zip(anchors, search(anchors, SPARE_NEIGHBOURS), strict=True):
        other = next((n for n in near if n != anchor and frozenset((anchor, n)) not in found), None)
        if other is not None:
            found[frozenset((anchor, other))] = (anchor, other)
        if len(found) == count:
            break
    return list(found.values())


def _by_hash(seed: int, draw: int) -> Callable[[str], tuple[int, str]]:
    return lambda row: (row_seed(row, f"pairs:{seed}", draw), row)
