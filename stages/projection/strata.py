"""A stratified sample of rows that does not depend on their order: from every group the rows with the smallest hashes.

A rare group would be a handful of points, or none, in a plain sample. Here every group may fill the same number of places;
what small groups leave free goes to the larger ones.
"""

import heapq
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.row_hash import Hashes, salted

MAX_GROUPS = 64
SALT = "projection sample"


@dataclass(slots=True)
class Strata:
    """Keeps the `capacity` rows with the smallest hashes of every group; `taken` chooses among them."""

    capacity: int
    groups: dict[Hashable, list[tuple[int, str]]] = field(default_factory=dict)

    def add(self, ids: Sequence[str], hashes: Hashes, groups: Iterable[Hashable]) -> None:
        """Rows by id, with the group each is in (None is a group too). Raises ValueError beyond MAX_GROUPS groups."""
        for i, number, group in zip(ids, salted(hashes, SALT).tolist(), groups, strict=True):
            held = self.groups.setdefault(group, [])
            if len(self.groups) > MAX_GROUPS:
                raise ValueError(f"more than {MAX_GROUPS} values")
            # A heap of negated hashes: its first entry is the largest hash kept, and the first to go.
            entry = (-number, i)
            if len(held) < self.capacity:
                heapq.heappush(held, entry)
            elif entry > held[0]:
                heapq.heapreplace(held, entry)

    def taken(self) -> list[str]:
        """At most `capacity` ids, in the order of their hashes."""
        # In an order of their own: which of two equal groups gets an odd place may not depend on which came first.
        groups = [held for _, held in sorted(self.groups.items(), key=lambda item: (item[0] is None, str(item[0])))]
        chosen = []
        for held, places in zip(groups, shares([len(held) for held in groups], self.capacity), strict=True):
            chosen += sorted(held, reverse=True)[:places]
        return [i for _, i in sorted(chosen, reverse=True)]


def shares(sizes: Sequence[int], places: int) -> list[int]:
    """Places for groups of these sizes: equal, but no group has more than its size. They add up to min(places, Σ sizes)."""
    left, given = min(places, sum(sizes)), [0] * len(sizes)
    order = np.argsort(sizes, kind="stable").tolist()
    for position, group in enumerate(order):
        given[group] = min(sizes[group], left // (len(order) - position))
        left -= given[group]
    return given
