"""Row hashes: the same for an id everywhere, spread evenly, independent between salts."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.row_hash import fractions, hash_ids, salted

GOLDEN = ["e220a8397b1dcdaf", "5e025f9ade9eaf3e", "2a1ea643c58a2143", "b0e23fbff693e115"]
GOLDEN_FRACTIONS = [0.063833, 0.630388, 0.734061, 0.830167]
IDS = pa.array([f"celeba/{i:06d}.jpg" for i in range(20_000)])


def test_values_never_change() -> None:
    # Golden: a release that changes these would move rows between held-out and training.
    found = hash_ids(pa.array(["", "a", "celeba/000001.jpg", "žluťoučký kůň.png"]))
    assert [f"{h:016x}" for h in found] == GOLDEN
    assert fractions(found, "fit holdout").round(6).tolist() == GOLDEN_FRACTIONS


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(0, 30))
def test_an_id_has_one_hash_in_any_batch(ids: list[str], cut: int) -> None:
    column = pa.array(ids, pa.string())
    whole = hash_ids(column)
    np.testing.assert_array_equal(hash_ids(column.slice(cut)), whole[cut:])
    np.testing.assert_array_equal(hash_ids(column.cast(pa.large_string())), whole)
    assert len(set(whole.tolist())) == len(set(ids))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16, 17, 23, 24, 31])
def test_equal_lengths_hash_as_written_down(length: int) -> None:
    """Eight bytes at a time, little-endian, zero-padded, through SplitMix64's finaliser: one number at a time here."""

    def mixed(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    ids = [bytes(np.random.default_rng(i).integers(33, 126, length).tolist()).decode() for i in range(5)]
    expected = []
    for text in ids:
        value = mixed(length)
        for at in range(0, length, 8):
            value = mixed(value ^ int.from_bytes(text[at : at + 8].encode().ljust(8, b"\0"), "little"))
        expected.append(value)
    assert hash_ids(pa.array(["before", *ids], pa.string()).slice(1)).tolist() == expected


def test_padding_makes_no_two_ids_equal() -> None:
    assert len(set(hash_ids(pa.array(["a", "a\0", "a\0\0", "a\0\0\0\0\0\0\0\0"])).tolist())) == 4


def test_fractions_are_even_and_salts_independent() -> None:
    hashes = hash_ids(IDS)
    a, b = fractions(hashes, "one"), fractions(hashes, "two")
    counts = np.histogram(a, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # χ² with 19 degrees of freedom, p = .001
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.025
    assert ((a >= 0) & (a < 1)).all()


def test_bits_are_even() -> None:
    bits = (salted(hash_ids(IDS), "x")[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.02


def test_a_missing_id_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 has no id"):
        hash_ids(pa.array(["a", None]))
