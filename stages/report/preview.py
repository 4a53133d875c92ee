"""Thumbnails of files that could not be used. The bytes are hostile until shown otherwise: sizes are checked before pixels."""

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from stages.layout import Pixels
from stages.report.data import Picture

MAX_BYTES = 4 * 2**20
MAX_PIXELS = 16_000_000
SIDE = 128
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def thumbnail(data: bytes) -> Picture | None:
    """As much of the picture as decodes, at most `SIDE` pixels a side; None when nothing does or it is too large to try.

    A JPEG that ends early shows what it has; other formats only come whole.
    """
    if len(data) > MAX_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = _pixels(data)
    except (*UNREADABLE, Image.DecompressionBombWarning):
        return None
    return None if pixels is None else Picture.of(pixels, longest=SIDE)


def hex_lines(data: bytes) -> str:
    """The first 16 bytes, four a line."""
    return "\n".join(data[i : i + 4].hex(" ") for i in range(0, min(len(data), 16), 4))


def _pixels(data: bytes) -> Pixels | None:
    with Image.open(io.BytesIO(data)) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            return None
        if picture.format != "JPEG":
            return np.asarray(picture.convert("RGB"))
    return np.asarray(simplejpeg.decode_jpeg(data, min_height=SIDE, min_width=SIDE, strict=False))
