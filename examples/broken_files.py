"""Spoils encoded pictures in the ways a real bucket does, so that failure handling can be seen and tested.

Each kind is named as the failure code that a run should give the file (schemas.errors.FailureCode).
"""

import struct
import zlib
from collections.abc import Callable


def spoil(data: bytes, kind: str) -> bytes:
    """`data`, a sound JPEG, made unusable in the way of `kind`, a key of KINDS."""
    return KINDS[kind](data)


def _truncated(data: bytes) -> bytes:
    return data[: len(data) * 2 // 5]


def _empty(_data: bytes) -> bytes:
    return b""


def _text(_data: bytes) -> bytes:
    return b"<html><body><h1>403 Forbidden</h1></body></html>\n"  # what a careless download saves


def _damaged(_data: bytes) -> bytes:
    """A PNG whose pixel data does not inflate: its checksums are right, its deflate stream is not."""
    return _png(64, 64, b"\x78\x9c" + b"\xff" * 64)


def _bomb(_data: bytes) -> bytes:
    """A PNG that claims 60,000 × 60,000 pixels, 10 GB when decoded, in under 100 bytes."""
    return _png(60_000, 60_000, zlib.compress(bytes(64)))


def _png(width: int, height: int, deflated: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", deflated) + chunk(b"IEND", b"")


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": _truncated,
    "zero_bytes": _empty,
    "not_an_image": _text,
    "corrupt": _damaged,
    "too_large": _bomb,
}
