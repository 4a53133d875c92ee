"""Decoding what cannot be decoded: every bad file comes out with its code and its name, and nothing ever raises."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagefiles import URI, chunk, encoded, failure, near, photo, pixels, run
from PIL import Image

from schemas.errors import FailureCode, RowFailure
from stages.images import Decoded


def test_zero_bytes() -> None:
    assert failure(b"") is FailureCode.ZERO_BYTES


@pytest.mark.parametrize(
    "data",
    [b"hello", b"\0" * 500, b"<html><body>404</body></html>", b"%PDF-1.4", b"\xff\xd8", b"B", b"RIFF\0\0\0\0WAVE"],
)
def test_not_an_image(data: bytes) -> None:
    assert failure(data) is (FailureCode.TRUNCATED if data == b"\xff\xd8" else FailureCode.NOT_AN_IMAGE)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
        b"\0\0\0\x1cftypavif" + b"\0" * 40,
        b"8BPS\0\1" + b"\0" * 40,
        b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
        b"\xff\x4f\xff\x51" + b"\0" * 40,
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"II*\0\x10\0\0\0CR\x02\0" + b"\0" * 40,
    ],
)
def test_unsupported(data: bytes) -> None:
    assert failure(data) is FailureCode.UNSUPPORTED


def test_12_bit_and_lossless_jpeg_are_unsupported() -> None:
    data = encoded(photo(16, 16), "JPEG")
    frame = data.index(b"\xff\xc0")
    assert failure(data[: frame + 4] + b"\x0c" + data[frame + 5 :]) is FailureCode.UNSUPPORTED
    assert failure(data[: frame + 1] + b"\xc3" + data[frame + 2 :]) is FailureCode.UNSUPPORTED


SAVED = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WebP", {}),
    "webp lossless": ("WebP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9, 0.98])
def test_files_cut_anywhere_are_truncated(name: str, share: float) -> None:
    """Half a JPEG must not become half grey pixels, in any format, at any place."""
    data = encoded(photo(), SAVED[name][0], **SAVED[name][1])
    assert failure(data[: int(len(data) * share)]) is FailureCode.TRUNCATED


def test_cmyk_and_oddly_subsampled_jpegs_cut_in_half_are_truncated() -> None:
    cmyk = encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG")
    assert failure(cmyk[: len(cmyk) // 2]) is FailureCode.TRUNCATED


def test_jpeg_without_its_end_marker_is_truncated() -> None:
    assert failure(encoded(photo(), "JPEG")[:-2]) is FailureCode.TRUNCATED


def test_bytes_after_the_end_do_no_harm() -> None:
    for name in ("jpeg", "png", "gif", "webp"):
        data = encoded(photo(64, 64), SAVED[name][0], **SAVED[name][1])
        assert (pixels(data + b"appended by a camera" * 50) == pixels(data)).all()


def test_damaged_jpeg_is_corrupt() -> None:
    data = bytearray(encoded(photo(), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xff\xd9" * 100  # a false end in the middle of the pixels
    assert failure(bytes(data)) is FailureCode.CORRUPT


def test_harmless_jpeg_warnings_are_passed_over() -> None:
    data = encoded(photo(64, 64), "JPEG")
    adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\x07"  # a colour transform number that does not exist
    assert near(pixels(data[:2] + adobe + data[2:]), photo(64, 64), 6)
    assert failure((data[:2] + adobe + data[2:])[: len(data) // 2]) is FailureCode.TRUNCATED


def test_damaged_png_is_corrupt() -> None:
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 0x10
    assert failure(bytes(data)) is FailureCode.CORRUPT


def test_headers_that_make_no_sense_are_corrupt() -> None:
    data = encoded(photo(16, 16), "JPEG")
    frame = data.index(b"\xff\xc0")
    assert failure(data[: frame + 5] + b"\0\0" + data[frame + 7 :]) is FailureCode.CORRUPT
    assert failure(data[:2] + data[-2:]) is FailureCode.TRUNCATED
    assert failure(data[:2] + b"\0\0\0\0" + data[2:]) is FailureCode.NOT_AN_IMAGE
    assert failure(data[:20] + b"\0" + data[20:]) is FailureCode.CORRUPT


def bomb_png(side: int) -> bytes:
    rows = zlib.compress(b"\0" * ((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_decompression_bombs_stop_at_the_header() -> None:
    bomb = bomb_png(30_000)
    assert len(bomb) < 200_000
    assert failure(bomb) is FailureCode.TOO_LARGE
    jpeg = encoded(photo(16, 16), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    assert failure(jpeg[: frame + 5] + b"\xff\xff\xff\xff" + jpeg[frame + 9 :]) is FailureCode.TOO_LARGE
    bmp = bytearray(encoded(photo(16, 16), "BMP"))
    struct.pack_into("<ii", bmp, 18, 60_000, 60_000)
    assert failure(bytes(bmp)) is FailureCode.TOO_LARGE


@pytest.mark.parametrize("name", SAVED)
def test_limits_are_exact(name: str) -> None:
    data = encoded(photo(50, 40), SAVED[name][0], **SAVED[name][1])
    assert isinstance(run(data, max_pixels=2000, max_bytes=len(data)), Decoded)
    assert failure(data, max_pixels=1999) is FailureCode.TOO_LARGE
    assert failure(data, max_bytes=len(data) - 1) is FailureCode.TOO_LARGE


@given(name=st.sampled_from(sorted(SAVED)), seed=st.integers(0, 10**6), hits=st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_damage_never_raises(name: str, seed: int, hits: int) -> None:
    data = bytearray(encoded(photo(24, 24), SAVED[name][0], **SAVED[name][1]))
    rng = np.random.default_rng(seed)
    for _ in range(hits):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    found = run(bytes(data[: int(rng.integers(1, len(data) + 1))] if seed % 3 == 0 else data), max_pixels=10**6)
    assert isinstance(found, Decoded) or URI in found.message


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\x40\0\0\0WEBP"]),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_never_raise(tail: bytes, signature: bytes) -> None:
    found = run(signature + tail, max_pixels=10**6)
    assert isinstance(found, Decoded | RowFailure)
