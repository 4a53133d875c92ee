"""Geometry and colour: how any decoded picture becomes the codec's picture (schemas.codec.Preprocess).

Order: orientation, colour, crop, resize. Cropping comes before resizing, on the source's grid, so the work and the memory
follow the target's size and not the source's aspect. `area` is OpenCV's box average (exact for whole ratios);
the other kernels are Pillow's, which widen with the ratio and so do not alias when they shrink (OpenCV's do).
EXIF orientation numbers: TIFF 6.0, tag 274.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.codec import Preprocess

Pixels = NDArray[np.uint8]

_KERNEL = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def orient(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The picture as it is meant to be seen. `orientation` is EXIF's 1 to 8; anything else counts as 1."""
    match orientation:
        case 2:
            return image[:, ::-1]
        case 3:
            return image[::-1, ::-1]
        case 4:
            return image[::-1]
        case 5:
            return image.swapaxes(0, 1)
        case 6:
            return image.swapaxes(0, 1)[:, ::-1]
        case 7:
            return image[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return image.swapaxes(0, 1)[::-1]
        case _:
            return image


def over_background(rgba: NDArray[np.uint8], background: tuple[int, int, int]) -> Pixels:
    """H×W×4 with straight alpha → H×W×3 over an opaque colour, rounded to nearest."""
    if rgba[..., 3].min() == 255:
        return rgba[..., :3]
    opaque = np.asarray(background, np.uint16)

    def mix(rows: NDArray[np.uint8]) -> NDArray[np.uint16]:
        alpha = rows[..., 3:].astype(np.uint16)
        # At most 255·255 + 127 = 65,152, so 16 bits hold it.
        return (rows[..., :3] * alpha + opaque * (255 - alpha) + 127) // 255

    return by_rows(mix, rgba, 3)


def by_rows(change: Callable[[NDArray[Any]], NDArray[Any]], image: NDArray[Any], channels: int) -> Pixels:
    """Applies a per-pixel change a band of rows at a time, so a large picture needs no wide copy of itself."""
    changed = np.empty((*image.shape[:2], channels), np.uint8)
    band = max(1, 2**18 // max(1, image.shape[1]))
    for top in range(0, image.shape[0], band):
        changed[top : top + band] = change(image[top : top + band])
    return changed


def smallest_source(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Height and width below which a decoder must not shrink an oriented picture, or resizing would enlarge it again."""
    if preprocess.resize == "contain":
        return _contained(height, width, preprocess.size)
    return preprocess.size


def fit(image: Pixels, preprocess: Preprocess, *, height: int, width: int) -> Pixels:
    """An oriented H×W×3 picture in the codec's size, by its resize policy.

    `height` and `width` are the whole picture's: its aspect counts, not that of an `image` a decoder has shrunk to eighths.
    """
    target = preprocess.size
    if image.shape[:2] == target:
        return image
    if preprocess.resize == "stretch":
        return _resized(image, target, preprocess.interpolation)
    if preprocess.resize == "cover":
        return _resized(_cropped(image, preprocess), target, preprocess.interpolation)
    inner = _resized(image, _contained(height, width, target), preprocess.interpolation)
    canvas = np.empty((*target, 3), np.uint8)
    canvas[:] = preprocess.background
    top, left = (target[0] - inner.shape[0]) // 2, (target[1] - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def _contained(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the picture's own aspect inside `target`, at least one pixel a side."""
    if height * target[1] >= width * target[0]:
        return target[0], max(1, _rounded(width * target[0], height))
    return max(1, _rounded(height * target[1], width)), target[1]


def _cropped(image: Pixels, preprocess: Preprocess) -> Pixels:
    """The largest part of the picture with the target's aspect."""
    (height, width), (rows, columns) = image.shape[:2], preprocess.size
    if width * rows > height * columns:
        keep = max(1, _rounded(height * columns, rows))
        left = (width - keep) // 2
        return image[:, left : left + keep]
    keep = max(1, _rounded(width * rows, columns))
    top = 0 if preprocess.crop == "top" else (height - keep) // 2
    return image[top : top + keep]


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _resized(image: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    if image.shape[:2] == size:
        return image
    if interpolation == "area":
        return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    source = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(source.resize(size[::-1], _KERNEL[interpolation]))
