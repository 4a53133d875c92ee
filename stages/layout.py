"""Putting decoded frames together: strips, grids, labels under frames. Arrays in, one array out; nothing is encoded here.

Pictures are uint8 RGB, height × width × 3. A frame that could not be made is None and drawn as a crossed-out pale tile,
so a missing picture is seen as missing and all others stay in their column.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from stages.code_sets.codes import UNSIGNED

Pixels = npt.NDArray[np.uint8]

PAPER = (255, 255, 255)
INK = (70, 70, 70)
PALE, CROSS = (236, 236, 236), (176, 176, 176)


def gap_of(height: int, width: int) -> int:
    """Pixels of paper between tiles: about 3 % of a side, at least 2."""
    return max(2, round(min(height, width) / 32))


def label_height(height: int, width: int) -> int:
    """Pixels that a line of labels takes under a row of tiles."""
    return max(12, round(min(height, width) / 5))


def strip(frames: Sequence[Pixels | None], size: tuple[int, int], *, labels: Sequence[str] | None = None) -> Pixels:
    """Frames side by side in the given order, `size` = (height, width) each; `labels` one under each."""
    return grid([frames], size, labels=labels)


def grid(
    rows: Sequence[Sequence[Pixels | None]], size: tuple[int, int], *, labels: Sequence[str] | None = None
) -> Pixels:
    """Rows of frames under each other. Rows may be of different lengths; `labels` name the columns, under the last row."""
    height, width = size
    gap = gap_of(height, width)
    columns = max(map(len, rows))
    foot = label_height(height, width) if labels else 0
    tall, wide = grid_size(len(rows), columns, size, labelled=bool(labels))
    picture = np.full((tall, wide, 3), PAPER, np.uint8)
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            picture[top : top + height, left : left + width] = _missing(height, width) if frame is None else frame
    if labels:
        for c, label in enumerate(labels):
            _write(picture, label, center=c * (width + gap) + width // 2, width=width, foot=foot)
    return picture


def grid_size(rows: int, columns: int, size: tuple[int, int], *, labelled: bool) -> tuple[int, int]:
    """Height and width in pixels of what `grid` makes."""
    height, width = size
    gap = gap_of(height, width)
    foot = label_height(height, width) if labelled else 0
    return rows * (height + gap) - gap + foot, columns * (width + gap) - gap


def in_lines(frames: Sequence[Pixels | None], columns: int) -> list[Sequence[Pixels | None]]:
    """Frames in reading order, `columns` a line."""
    return [frames[i : i + columns] for i in range(0, len(frames), columns)]


def strength_labels(strengths: Sequence[float], unit: str) -> list[str]:
    """Strengths as short ASCII: signed where zero is a middle (`+1.5`), plain along a path (`0.25`), `q0.05` for quantiles."""
    if unit == "quantile":
        return [f"q{s:.3g}" for s in strengths]
    return [f"{s:.3g}" if unit in UNSIGNED or s == 0 else f"{s:+.3g}" for s in strengths]


def _missing(height: int, width: int) -> Pixels:
    tile = np.full((height, width, 3), PALE, np.uint8)
    for start, end in (((0, 0), (width - 1, height - 1)), ((0, height - 1), (width - 1, 0))):
        cv2.line(tile, start, end, CROSS, 1, cv2.LINE_AA)
    return tile


def _write(picture: Pixels, text: str, *, center: int, width: int, foot: int) -> None:
    """One label, centred in its column, in OpenCV's built-in font: the same pixels on every machine."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, foot / 32
    (wide, high), _ = cv2.getTextSize(text, font, scale, 1)
    if wide > width:
        scale *= width / wide
        (wide, high), _ = cv2.getTextSize(text, font, scale, 1)
    at = (center - wide // 2, picture.shape[0] - (foot - high) // 2)
    cv2.putText(picture, text, at, font, scale, INK, 1, cv2.LINE_AA)
