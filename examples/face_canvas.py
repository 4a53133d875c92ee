"""A canvas for smooth cartoon shapes: filled four times too large with sub-pixel vertices, then reduced by area.

Lengths and positions are in pixels of the finished picture, before a fixed zoom about CENTRE; colours are RGB, 0 … 255.
"""

import colorsys
from typing import Any

import cv2
import numpy as np

SIDE = 64
SCALE = 4
FRACTION_BITS = 4
ZOOM = 1.13
CENTRE = (32.0, 36.0)

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


class Canvas:
    """A picture under way on a wall whose colour runs from `top` to `bottom`."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        rows = np.linspace(0, 1, SIDE * SCALE, dtype=np.float32)[:, None, None]
        wall = np.array(top, np.float32) * (1 - rows) + np.array(bottom, np.float32) * rows
        self.wall = wall.astype(np.uint8)
        self.large = np.repeat(self.wall, SIDE * SCALE, axis=1)

    def polygon(self, points: Points, colour: Colour) -> None:
        cv2.fillPoly(self.large, [_fixed(points)], colour, cv2.LINE_8, FRACTION_BITS)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        thick = max(1, round(ZOOM * width * SCALE))
        cv2.polylines(self.large, [_fixed(points)], False, colour, thick, cv2.LINE_8, FRACTION_BITS)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        scale = SCALE << FRACTION_BITS
        centre = (round(zoomed(x, CENTRE[0]) * scale), round(zoomed(y, CENTRE[1]) * scale))
        axes = (max(1, round(ZOOM * rx * scale)), max(1, round(ZOOM * ry * scale)))
        cv2.ellipse(self.large, centre, axes, 0, 0, 360, colour, cv2.FILLED, cv2.LINE_8, FRACTION_BITS)

    def tint(self, points: Points, colour: Colour, amount: float) -> None:
        """Mixes `colour` into what is already drawn inside the outline."""
        fixed = _fixed(points)
        x, y, w, h = cv2.boundingRect(fixed >> FRACTION_BITS)
        left, top = max(0, x), max(0, y)
        box = self.large[top : y + h, left : x + w]
        mask = np.zeros(box.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed - (np.array([left, top], np.int32) << FRACTION_BITS)], 1, cv2.LINE_8, FRACTION_BITS)
        mixed = cv2.addWeighted(box, 1 - amount, np.full_like(box, colour), amount, 0)
        np.copyto(box, mixed, where=mask[:, :, None].astype(bool))

    def finished(self, *, light: float, centre_x: float, half_width: float) -> np.ndarray:
        """(64, 64, 3) uint8; all but the wall lit from one side, `light` −1 (left) … 1 (right)."""
        small = cv2.resize(self.large, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        wall = self.wall.reshape(SIDE, SCALE, 1, 3).mean(axis=1)
        drawn = np.clip(np.abs(small - wall).max(axis=2) / 48, 0, 1)
        x = (np.arange(SIDE, dtype=np.float32) + 0.5 - zoomed(centre_x, CENTRE[0])) / (ZOOM * half_width)
        towards = light * np.clip(x, -1, 1)
        gain = 1 + drawn * np.where(towards > 0, 0.1, 0.4) * towards[None, :]
        lit: np.ndarray = np.clip(small * gain[:, :, None] + 0.5, 0, 255).astype(np.uint8)
        return lit


def zoomed(value: float, centre: float) -> float:
    return (value - centre) * ZOOM + centre


def _fixed(points: Points) -> Any:
    """Points in fixed-point canvas pixels, (n, 2) int32, as OpenCV takes them."""
    at = (np.array(points, np.float64) - CENTRE) * ZOOM + CENTRE
    return np.rint(at * (SCALE << FRACTION_BITS)).astype(np.int32)


def mix(a: Colour, b: Colour, amount: float) -> Colour:
    red, green, blue = (round(x * (1 - amount) + y * amount) for x, y in zip(a, b, strict=True))
    return red, green, blue


def ramp(stops: tuple[Colour, ...], position: float) -> Colour:
    place = max(0.0, min(1.0, position)) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    return mix(stops[low], stops[low + 1], place - low)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue
