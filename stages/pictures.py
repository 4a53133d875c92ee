"""Pictures → encoded bytes: PNG, JPEG, WebP, animated WebP and GIF. The same pixels give the same bytes.

Each format goes to the fastest encoder that is deterministic (one core, 64×330 strip): PNG OpenCV with its default
SUB filter and run-length strategy .55 ms (zlib level 1: 1.2 ms, and larger), JPEG simplejpeg .07 ms, WebP Pillow .5 ms. No
timestamps, no text chunks.
"""

import io
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from stages.layout import Pixels

Format = Literal["png", "jpeg", "webp", "gif"]

SUFFIX: dict[str, str] = {"png": "png", "jpeg": "jpg", "webp": "webp", "gif": "gif"}
MAX_SIDE: dict[str, int] = {"png": 65_535, "jpeg": 65_500, "webp": 16_383, "gif": 65_535}
"""Longest side a format (or its encoder) can hold, in pixels."""
WEBP_EFFORT = 2
"""libwebp's `method`: two thirds of the time of the default 4, for files about 4 % larger."""


def encode(picture: Pixels, kind: Format, *, quality: int = 90) -> bytes:
    """One uint8 RGB picture (height, width, 3) as a file. `quality` 1 to 100 is for JPEG and WebP; PNG is lossless.

    Raises ValueError when a side is longer than the format holds.
    """
    _check_size(picture, kind)
    match kind:
        case "png":
            done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            if not done:
                raise ValueError(f"OpenCV could not encode a picture of shape {picture.shape} as PNG")
            return bytes(data.tobytes())
        case "jpeg":
            # 4:4:4: edits are judged by eye, and halved colour shows at 64 pixels.
            contiguous = np.ascontiguousarray(picture)
            return bytes(simplejpeg.encode_jpeg(contiguous, quality=quality, colorsubsampling="444"))
        case "webp":
            return _saved([picture], "WEBP", quality=quality, method=WEBP_EFFORT)
        case "gif":
            return _saved([picture], "GIF")


def animate(frames: Sequence[Pixels], kind: Literal["webp", "gif"], *, quality: int = 90, frame_ms: int = 120) -> bytes:
    """Frames of one size as an endless animation, `frame_ms` milliseconds each."""
    _check_size(frames[0], kind)
    if kind == "gif":
        return _saved(frames, "GIF", duration=frame_ms, loop=0)
    return _saved(frames, "WEBP", duration=frame_ms, loop=0, quality=quality, method=WEBP_EFFORT)


def _saved(frames: Sequence[Pixels], container: str, **options: int) -> bytes:
    first, *rest = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    out = io.BytesIO()
    if rest:
        first.save(out, container, save_all=True, append_images=rest, **options)
    else:
        first.save(out, container, **options)
    return out.getvalue()


def _check_size(picture: Pixels, kind: Format) -> None:
    if max(picture.shape[:2]) > MAX_SIDE[kind]:
        raise ValueError(
            f"a picture of {picture.shape[1]}×{picture.shape[0]} pixels does not fit {kind}, "
            f"which ends at {MAX_SIDE[kind]} a side: use another format or fewer frames"
        )
