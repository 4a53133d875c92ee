"""Numbers fixed by a row's id, for whole columns at once: who is held out, who is in a sample.

The same id gives the same number on every machine, in any batch and in any order (design §5.4). The hash takes the UTF-8
bytes eight at a time (little-endian, zero-padded) through the finaliser of SplitMix64 (Steele, Lea, Flood 2014); the length
is mixed in first, so padding cannot make two ids equal. It is not cryptographic: ids are not adversaries here.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def hash_ids(ids: pa.Array) -> Hashes:
    """A 64-bit hash of every id. `ids`: strings without nulls; ValueError names the first row that is null."""
    if ids.null_count:
        raise ValueError(f"row {ids.is_null().to_pylist().index(True)} has no id; every row needs one")
    if not len(ids):
        return np.empty(0, np.uint64)
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        ids = ids.cast(pa.large_string())
    _, ends, data = ids.buffers()
    places = np.int64 if pa.types.is_large_string(ids.type) else np.int32
    offsets = np.frombuffer(ends, places)[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)
    text = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    if (lengths == lengths[0]).all():
        # Names that are numbered evenly lie side by side as a matrix: nothing has to be gathered.
        return _hash_equal_lengths(text[offsets[0] : offsets[-1]].reshape(len(ids), lengths[0]))
    hashes = np.empty(len(ids), np.uint64)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        hashes[rows] = _hash_equal_lengths(text[offsets[rows, None] + np.arange(length)])
    return hashes


def hash_structs(rows: pa.StructArray) -> Hashes:
    """A 64-bit hash of every row of typed values, never 0. A null row equals one whose values are all null."""
    hashes: Hashes = _mix(np.zeros(len(rows), np.uint64))
    for place in range(rows.type.num_fields):
        column = pc.struct_field(rows, place)
        known = column.is_valid().to_numpy(zero_copy_only=False)
        hashes = _mix(hashes ^ np.where(known, _mix(_words(column) ^ np.uint64(place + 1)), np.uint64(0)))
    return np.maximum(hashes, np.uint64(1))


def _words(column: pa.Array) -> Hashes:
    """A 64-bit word for every value; nulls give any."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return hash_ids(column.fill_null(""))
    if pa.types.is_floating(kind):
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
        return np.asarray(numbers + 0.0).view(np.uint64)  # minus zero is zero
    return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)).view(np.uint64)


def fractions(hashes: Hashes, salt: str) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), one a hash; different salts give independent ones."""
    # 53 bits, because a float64 holds no more: rounding up to 1.0 is impossible.
    return (salted(hashes, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def salted(hashes: Hashes, salt: str) -> Hashes:
    """The hashes mixed with `salt`: an independent set of hashes for another purpose."""
    seed = np.uint64(int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little"))
    return _mix(hashes ^ seed)


def _hash_equal_lengths(text: npt.NDArray[np.uint8]) -> Hashes:
    """text: (rows, length) bytes."""
    hashes = _mix(np.full(len(text), text.shape[1], np.uint64))
    for word in _eights(text):
        hashes ^= word
        hashes = _mix(hashes)
    return hashes


def _eights(text: npt.NDArray[np.uint8]) -> Iterator[Hashes]:
    """The rows' bytes (rows, length) eight at a time as numbers (rows,), the last ones padded with zeros."""
    rows, length = text.shape
    if length < 8:
        padded = np.zeros((rows, 8 if length else 0), np.uint8)
        padded[:, :length] = text
        yield from padded.view("<u8").T
        return
    # Numbers are read where they lie, a row apart: to copy bytes a few at a time costs more than the hash.
    flat = np.ascontiguousarray(text).reshape(-1)

    def at(place: int) -> Hashes:
        return np.ndarray((rows,), "<u8", flat, place, (length,)).astype(np.uint64)

    for place in range(0, length - 7, 8):
        yield at(place)
    if rest := length % 8:
        yield at(length - 8) >> np.uint64(8 * (8 - rest))


def _mix(x: Hashes) -> Hashes:
    """Mixes in place, and returns it."""
    x += _GAMMA
    x ^= x >> np.uint64(30)
    x *= _FIRST
    x ^= x >> np.uint64(27)
    x *= _SECOND
    x ^= x >> np.uint64(31)
    return x
