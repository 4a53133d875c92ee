"""Encoded images made on the fly, for every test that needs some."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from schemas.codec import Preprocess
from schemas.errors import FailureCode, RowFailure
from stages.images import Decoded, decode

URI = "s3://bucket/faces/17.jpg"


def photo(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """Smooth colour with a little noise: behaves like a photograph under JPEG and resizing."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(int)
    return np.clip(smooth + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, fmt: str, **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, fmt, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def run(data: bytes, *, max_pixels: int = 10**8, max_bytes: int = 2**28, **preprocess: object) -> Decoded | RowFailure:
    return decode(data, preprocess=Preprocess(**preprocess), max_pixels=max_pixels, max_bytes=max_bytes, uri=URI)


def pixels(data: bytes, **preprocess: object) -> np.ndarray:
    found = run(data, **preprocess)
    assert isinstance(found, Decoded), found
    assert found.pixels.dtype == np.uint8
    return found.pixels


def failure(data: bytes, **limits: int) -> FailureCode:
    found = run(data, **limits)
    assert isinstance(found, RowFailure), f"decoded to {found.width}×{found.height}"
    assert URI in found.message
    return found.code


def near(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).mean()) <= tolerance
