"""Discrete codes: tokens are swapped or re-quantised, never averaged."""

import numpy as np
import pytest

from stages.code_sets.discrete import codebook_lerp, token_swap
from stages.code_sets.discrete_edits import nearest_codes

T = np.linspace(0, 1, 11)
SEEDS = np.arange(3, dtype=np.uint64)


def codes(seed: int, entries: int = 64) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).integers(0, entries, (2, 3, 8, 8))
    return a, b


class TestTokenSwap:
    def test_every_token_is_of_one_end_and_the_share_grows_with_t(self) -> None:
        a, b = codes(0)
        path = token_swap(a, b, T, seeds=SEEDS)
        assert path.shape == (3, 11, 8, 8)
        assert ((path == a[:, None]) | (path == b[:, None])).all()
        differing = (a != b).sum(axis=(1, 2))
        swapped = (path != a[:, None]).sum(axis=(2, 3))
        np.testing.assert_array_equal(swapped, np.rint(T * differing[:, None]))

    def test_once_swapped_stays_swapped(self) -> None:
        a, b = codes(1)
        changed = token_swap(a, b, T, seeds=SEEDS) != a[:, None]
        assert (changed[:, 1:] >= changed[:, :-1]).all()

    def test_ends_are_the_codes_and_equal_codes_stay(self) -> None:
        a, b = codes(2)
        path = token_swap(a, b, [0, 1], seeds=SEEDS)
        np.testing.assert_array_equal(path[:, 0], a)
        np.testing.assert_array_equal(path[:, 1], b)
        np.testing.assert_array_equal(token_swap(a, a, T, seeds=SEEDS), np.repeat(a[:, None], 11, axis=1))

    def test_the_order_is_the_rows_own_by_its_seed(self) -> None:
        a, b = codes(3)
        whole = token_swap(a, b, T, seeds=SEEDS)
        np.testing.assert_array_equal(token_swap(a[1:2], b[1:2], T, seeds=SEEDS[1:2]), whole[1:2])
        assert (token_swap(a, b, [0.5], seeds=SEEDS + 5) != token_swap(a, b, [0.5], seeds=SEEDS)).any()

    def test_places_swap_in_the_same_order_whatever_else_differs(self) -> None:
        a, b = codes(4)
        fewer = b.copy()
        fewer[:, ::2] = a[:, ::2]
        both = token_swap(a, fewer, [0.5], seeds=SEEDS)[:, 0] != a
        order = [token_swap(a, b, [t], seeds=SEEDS)[:, 0] != a for t in np.linspace(0, 1, 200)]
        for row in range(3):  # some point of the longer swap has exactly those of the shorter one in these places
            assert any((swap[row][1::2] == both[row][1::2]).all() for swap in order)


class TestCodebookLerp:
    def test_every_token_is_the_nearest_entry_of_the_lerped_embedding(self) -> None:
        a, b = codes(5)
        book = np.random.default_rng(5).standard_normal((64, 6))
        path = codebook_lerp(a, b, T, codebook=book)
        for frame, t in enumerate(T[1:-1], 1):
            target = (1 - t) * book[a] + t * book[b]
            apart = np.linalg.norm(target[..., None, :] - book, axis=-1)
            found = np.take_along_axis(apart, path[:, frame][..., None], axis=-1)[..., 0]
            np.testing.assert_allclose(found, apart.min(axis=-1), rtol=1e-8)

    def test_indices_are_never_averaged(self) -> None:
        """Entries in an order that means nothing: halfway from 0 to 2 is the entry that lies there, not entry 1."""
        book = np.array([[0.0], [100], [10], [5]])
        assert codebook_lerp([[0]], [[2]], [0.5], codebook=book).tolist() == [[[3]]]

    def test_ends_are_the_codes_also_where_entries_coincide(self) -> None:
        book = np.zeros((64, 2))
        a, b = codes(6)
        path = codebook_lerp(a, b, [0, 0.5, 1], codebook=book)
        np.testing.assert_array_equal(path[:, 0], a)
        np.testing.assert_array_equal(path[:, 2], b)
        assert (path[:, 1] == 0).all(), "ties go to the lowest index"

    def test_the_way_back_is_the_same_way(self) -> None:
        a, b = codes(8)
        book = np.random.default_rng(8).standard_normal((64, 6))
        there, back = codebook_lerp(a, b, T, codebook=book), codebook_lerp(b, a, T, codebook=book)
        np.testing.assert_array_equal(there, back[:, ::-1])

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(7)
        rows, book = rng.standard_normal((50, 3)), rng.standard_normal((9, 3))
        whole = nearest_codes(rows, book)
        monkeypatch.setattr("stages.code_sets.discrete_edits.BLOCK_VALUES", 60)
        np.testing.assert_array_equal(nearest_codes(rows, book), whole)

    def test_no_rows(self) -> None:
        empty = np.empty((0, 4), np.int64)
        assert codebook_lerp(empty, empty, T, codebook=np.eye(3)).shape == (0, 11, 4)

    @pytest.mark.parametrize("bad", [-1, 3])
    def test_indices_outside_the_codebook_are_errors(self, bad: int) -> None:
        with pytest.raises(ValueError, match="from 0 to 2"):
            codebook_lerp([[0]], [[bad]], T, codebook=np.eye(3))


def test_floats_are_no_codes() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        token_swap([[0.5]], [[1.0]], T, seeds=[0])
