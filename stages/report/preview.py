"""Thumbnails of files that could not be used. The bytes are hostile until shown otherwise: sizes are checked before pixels."""

import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.report.data import Picture

MAX_BYTES = 4 * 2**20
MAX_PIXELS = 16_000_000
SIDE = 128


def thumbnail(data: bytes) -> Picture | None:
    """As much of the picture as decodes, at most `SIDE` pixels a side; None when nothing does or it is too large to try."""
    if len(data) > MAX_BYTES:
        return None
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if width * height > MAX_PIXELS:
        return None
    try:
        # OpenCV gives what it has of a truncated file, where Pillow raises.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if pixels is None:
        return None
    return Picture.of(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8), longest=SIDE)


def hex_lines(data: bytes) -> str:
    """The first 16 bytes, four a line."""
    return "\n".join(data[i : i + 4].hex(" ") for i in range(0, min(len(data), 16), 4))
