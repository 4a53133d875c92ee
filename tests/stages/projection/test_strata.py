"""The stratified sample: equal shares, the smallest hashes, and the same rows whatever their order and batches."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.projection.strata import MAX_GROUPS, SALT, Strata, shares
from stages.row_hash import hash_ids, salted


def sampled(ids: list[str], groups: list[str | None], capacity: int, *, size: int = 7) -> list[str]:
    strata = Strata(capacity)
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        strata.add(ids[part], hash_ids(pa.array(ids[part], pa.string())), groups[part])
    return strata.taken()


def rows(n: int, seed: int) -> tuple[list[str], list[str | None]]:
    rng = np.random.default_rng(seed)
    return [f"{i}.png" for i in range(n)], rng.choice(
        np.array(["cat", "dog", None], object), n, p=[0.9, 0.08, 0.02]
    ).tolist()


@given(st.integers(0, 200), st.integers(1, 60), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_order_and_batches_do_not_matter(n: int, capacity: int, size: int, seed: int) -> None:
    ids, groups = rows(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    found = sampled(ids, groups, capacity)
    assert found == sampled([ids[i] for i in order], [groups[i] for i in order], capacity, size=size)
    assert len(found) == min(n, capacity) == len(set(found))


def test_each_group_gives_its_smallest_hashes_in_equal_shares() -> None:
    ids, groups = rows(2000, 1)
    found = sampled(ids, groups, 90)
    hashes = dict(zip(ids, salted(hash_ids(pa.array(ids)), SALT).tolist(), strict=True))
    assert found == sorted(found, key=hashes.__getitem__)
    of = dict(zip(ids, groups, strict=True))
    for group in ("cat", "dog", None):
        mine = sorted((i for i in ids if of[i] == group), key=hashes.__getitem__)
        assert {i for i in found if of[i] == group} == set(mine[:30])
        assert len(mine) > 30


@pytest.mark.parametrize(
    ("sizes", "places", "given_"),
    [([10, 10], 6, [3, 3]), ([1, 10, 10], 9, [1, 4, 4]), ([2, 3], 100, [2, 3]), ([], 5, []), ([5, 5, 5], 7, [2, 2, 3])],
)
def test_small_groups_leave_their_places_to_larger_ones(sizes: list[int], places: int, given_: list[int]) -> None:
    assert shares(sizes, places) == given_


def test_too_many_groups_are_refused() -> None:
    ids = [f"{i}" for i in range(MAX_GROUPS + 1)]
    with pytest.raises(ValueError, match="more than"):
        sampled(ids, list(ids), 5)
