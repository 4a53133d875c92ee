"""Reads smile and glasses back from the pixels of a cartoon face: the ruler for edits, blind to how a picture was made.

Both look for strokes darker than the face's own skin beside them (a Hough transform over a bank of curves), so they hold
under any skin, light and turn, and on the soft pictures that an autoencoder decodes. Their units are their own: order and
differences along a strip carry meaning. tests/examples checks them on drawings with known factors, sharp and blurred.
"""

import functools
import math
from typing import Any

import numpy as np
import torch

from face_canvas import CENTRE, ZOOM

MOUTH_ROWS, MOUTH_COLUMNS = (39, 55), (10, 54)
EYE_ROWS, EYE_COLUMNS = (24, 44), (8, 56)
CHEEK_ROWS = (38, 48)
HALF_WIDTH = 17.2 * ZOOM  # of a head, pixels


def measure_smile(image: np.ndarray) -> float:
    """How far the ends of the mouth lie above its middle, in pixels: about −5 (frown) to 7 (broad smile).

    `image` is (64, 64, 3) uint8. Every parabola of the bank is scored by the mean darkness and redness under it; the
    answer is the mean bend of the best few, weighted by how near their score comes to the best.
    """
    region = image[slice(*MOUTH_ROWS), slice(*MOUTH_COLUMNS)].astype(np.float64) + 10
    red, green = region[:, :, 0], region[:, :, 1]
    # The ratio of channels does not change with light; brightness tells lips from teeth.
    tone = np.log(red / green) - 0.5 * np.log(green)
    ink = np.clip(tone - np.median(tone, axis=0), 0, 0.6)
    bends, curves = _mouths()
    score = (curves @ ink.ravel()).reshape(len(bends), -1).max(axis=1)
    weight = np.exp((score - score.max()) / (0.05 * score.max() + 1e-6))
    return float(weight @ bends / weight.sum())


def measure_glasses(image: np.ndarray) -> float:
    """How much darker than the cheeks the rims and the bridge are, in log units: near 0 without glasses, 0.3 and up with.

    `image` is (64, 64, 3) uint8. The lesser of rims and bridge counts, so neither lines under the eyes nor a dark nose
    pass for spectacles.
    """
    tone = np.log(image.astype(np.float64).mean(axis=2) + 10)
    cheek = np.median(tone[slice(*CHEEK_ROWS), slice(*EYE_COLUMNS)], axis=0)
    ink = np.clip(cheek - tone[slice(*EYE_ROWS), slice(*EYE_COLUMNS)], -0.2, 1.0).ravel()
    rims, bridges = _spectacles()
    return float(np.minimum(rims @ ink, bridges @ ink).max())


class FaceRuler:
    """Both measures as a scorer of `evaluate`: `scorer: face_measures:FaceRuler`, `allow_code: true`."""

    def __init__(self, *, device: str) -> None:
        pass

    @staticmethod
    def attributes_of(options: dict[str, Any]) -> tuple[str, ...]:
        return ("smiling", "glasses")

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """(n, 64, 64, 3) uint8 → (n, 2)."""
        return np.array([[measure_smile(i), measure_glasses(i)] for i in images.cpu().numpy()])


@functools.cache
def _mouths() -> tuple[np.ndarray, np.ndarray]:
    """Bends (k,) in pixels and the strokes (k·places, pixels of the region) of parabolas bent so."""
    rows, columns = np.arange(*MOUTH_ROWS, dtype=float), np.arange(*MOUTH_COLUMNS, dtype=float)
    bends = np.linspace(-5, 7, 25)
    curves = []
    for bend in bends:
        for x in np.arange(20, 45, 1.5):
            across = (columns - x) / 8
            for y in np.arange(42, 51, 0.75):
                height = y - bend * (across**2 - 0.4)
                stroke = np.exp(-0.5 * ((rows[:, None] - height) / 0.8) ** 2) * (np.abs(across) <= 1.05)
                curves.append((stroke / stroke.sum()).astype(np.float32).ravel())
    return bends, np.array(curves)


@functools.cache
def _spectacles() -> tuple[np.ndarray, np.ndarray]:
    """Strokes of the lower rims and of the bridge, (places, pixels of the region) each, for every turn and size."""
    rims, bridges = [], []
    for turn in np.radians(range(-25, 26, 5)):
        for gap in (0.38, 0.41, 0.44):
            for y in (30.1, 30.9, 31.7, 32.5):
                for radius in (5.9, 6.6):
                    rim, bridge = _frame(turn, gap, y, radius)
                    rims.append(_stroke(rim))
                    bridges.append(_stroke(bridge))
    return np.array(rims), np.array(bridges)


def _frame(turn: float, gap: float, y: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) of the lower halves of two rims, and of the bridge between them."""
    lower = np.radians(np.linspace(20, 160, 15))
    rims, inner = [], []
    for side in (-1, 1):
        angle = math.asin(side * gap) + turn
        x = CENTRE[0] - 0.5 + HALF_WIDTH * math.sin(angle)
        width = radius * max(0.72, math.cos(angle) / math.cos(math.asin(gap)))
        rims.append(np.stack([x + width * np.cos(lower), y + 0.92 * radius * np.sin(lower)], axis=1))
        inner.append(x - side * width)
    along = np.linspace(0, 1, 7)
    arch = y - 0.5 - 0.9 * (1 - (2 * along - 1) ** 2)
    return np.concatenate(rims), np.stack([inner[0] + (inner[1] - inner[0]) * along, arch], axis=1)


def _stroke(points: np.ndarray) -> np.ndarray:
    rows, columns = np.arange(*EYE_ROWS, dtype=float), np.arange(*EYE_COLUMNS, dtype=float)
    x, y = points[:, 0, None, None], points[:, 1, None, None]
    ink = np.exp(-0.5 * (((columns - x) / 0.9) ** 2 + ((rows[:, None] - y) / 0.9) ** 2)).sum(axis=0)
    stroke: np.ndarray = (ink / ink.sum()).astype(np.float32).ravel()
    return stroke
