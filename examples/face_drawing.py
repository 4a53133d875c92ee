"""Draws a cartoon face from known factors: ground truth that any direction, traversal or edit can be measured against.

Features sit on a turned ellipsoid: a point at fraction u of the head's half-width is drawn at sin(asin u + turn).
Everything that is not a factor (background, face and hair shape, spacing of the eyes) is a nuisance drawn from the
face's own seed.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

from face_canvas import Canvas, Colour, Points, hsv, mix, ramp

HAIR = {
    "black": (38, 32, 38),
    "brown": (104, 66, 40),
    "blond": (232, 192, 108),
    "red": (196, 84, 40),
    "grey": (176, 176, 184),
}
SKIN = ((255, 226, 204), (244, 200, 164), (205, 148, 106), (142, 94, 66))
STYLES = ("short", "side", "bob", "bun", "curly")
FRAMES = ((28, 28, 36), (30, 36, 78), (84, 22, 30), (56, 34, 20))


@dataclass(frozen=True, slots=True)
class Factors:
    """What is known about a face. `seed` fixes every nuisance."""

    smile: float = 0.6  # −1 frown … 1 broad smile
    glasses: bool = False
    hair: str = "brown"  # a key of HAIR
    skin: float = 0.3  # 0 lightest … 1 deepest
    turn: float = 0.0  # degrees, −15 (to the viewer's left) … 15; drawn well to 25
    light: float = 0.0  # −1 light from the left … 1 from the right
    old: bool = False  # age lines
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Nuisance:
    """What varies from face to face and is in no label. Lengths in pixels of the finished picture."""

    background: tuple[Colour, Colour]
    shirt: Colour
    iris: Colour
    frame: Colour
    style: str
    round_frames: bool
    rx: float
    ry: float
    jaw: float
    dx: float
    dy: float
    eye_gap: float
    eye_size: float
    brow: float
    mouth_width: float

    @classmethod
    def draw(cls, seed: int) -> "Nuisance":
        rng = random.Random(seed)
        hue = rng.random()
        return cls(
            background=(hsv(hue, 0.16, 0.97), hsv(hue + 0.04, 0.26, 0.9)),
            shirt=hsv(rng.random(), 0.55, 0.72),
            iris=rng.choice(((92, 62, 38), (60, 104, 150), (70, 122, 82), (44, 36, 34))),
            frame=rng.choice(FRAMES),
            style=rng.choice(STYLES),
            round_frames=rng.random() < 0.5,
            rx=rng.uniform(16.6, 18.0),
            ry=rng.uniform(19.8, 21.2),
            jaw=rng.uniform(0.06, 0.2),
            dx=rng.uniform(-0.5, 0.5),
            dy=rng.uniform(-0.4, 0.4),
            eye_gap=rng.uniform(0.38, 0.44),
            eye_size=rng.uniform(2.7, 3.2),
            brow=rng.uniform(-0.5, 0.5),
            mouth_width=rng.uniform(0.45, 0.5),
        )


def render_face(factors: Factors) -> np.ndarray:
    """The face as (64, 64, 3) uint8 RGB. The same factors give the same pixels."""
    face = _Face(factors)
    face.hair_behind()
    face.body()
    face.head()
    face.age_lines()
    face.cheeks()
    face.eyes()
    face.nose()
    face.mouth()
    face.hair_in_front()
    if factors.glasses:
        face.spectacles()
    return face.canvas.finished(light=factors.light, centre_x=face.cx, half_width=face.n.rx)


class _Face:
    """One picture under way: the large canvas, and the geometry that every part shares."""

    def __init__(self, factors: Factors) -> None:
        self.f = factors
        self.n = Nuisance.draw(factors.seed)
        self.cx = 32 + self.n.dx
        self.cy = 33.5 + self.n.dy
        self.turn = math.radians(factors.turn)
        self.skin = ramp(SKIN, factors.skin)
        self.hair = HAIR[factors.hair]
        self.canvas = Canvas(*self.n.background)

    # Geometry: face coordinates are u (fraction of the head's half-width) and v (pixels below the head's centre).

    def at(self, u: float, v: float) -> tuple[float, float]:
        angle = math.asin(max(-1.0, min(1.0, u))) + self.turn
        return self.cx + self.n.rx * math.sin(max(-math.pi / 2, min(math.pi / 2, angle))), self.cy + v

    def outline(self, grow: float = 0.0, low: float = -180, high: float = 180) -> Points:
        """The head's outline from angle `low` to `high` in degrees (0 right, 90 chin), `grow` pixels outside it."""
        points = []
        for degrees in np.linspace(low, high, 48):
            t = math.radians(degrees)
            narrow = 1 - self.n.jaw * max(0.0, math.sin(t)) ** 2
            x = (self.n.rx + grow) * math.cos(t) * narrow
            points.append((self.cx + x, self.cy + (self.n.ry + grow) * math.sin(t)))
        return points

    # Parts, from back to front.

    def hair_behind(self) -> None:
        shade = mix(self.hair, (0, 0, 0), 0.22)
        cx, cy, rx, ry = self.cx, self.cy, self.n.rx, self.n.ry
        lag = -2.5 * math.sin(self.turn)
        if self.n.style == "bob":
            self.canvas.ellipse(cx + lag, cy + 1, rx + 5.5, ry + 3, shade)
            self.canvas.polygon(
                [(cx + lag + x, cy + y) for x, y in ((-rx - 5.5, 0), (rx + 5.5, 0), (rx + 4, 18), (-rx - 4, 18))],
                shade,
            )
        elif self.n.style == "bun":
            self.canvas.ellipse(cx + 2 * lag, cy - ry - 3, 7, 6, shade)
        elif self.n.style == "curly":
            for degrees in range(150, 391, 20):
                t = math.radians(degrees)
                self.canvas.ellipse(
                    cx + lag + (rx + 2.2) * math.cos(t), cy - 1 + (ry + 1.6) * math.sin(t), 5.2, 5.2, self.hair
                )

    def body(self) -> None:
        self.canvas.ellipse(self.cx, 69, 25, 14, self.n.shirt)
        neck = mix(self.skin, (90, 30, 20), 0.25)
        self.canvas.polygon(
            [(self.cx - 6, self.cy + 14), (self.cx + 6, self.cy + 14), (self.cx + 7, 58), (self.cx - 7, 58)], neck
        )
        self.canvas.ellipse(self.cx, 57.5, 7, 3.5, neck)

    def head(self) -> None:
        if self.n.style != "bob":
            ear = mix(self.skin, (160, 60, 40), 0.15)
            for side in (-1, 1):
                # The ear on the far side goes behind the head as it turns.
                reach = self.n.rx + 0.8 - 2.6 * max(0.0, side * math.sin(self.turn))
                self.canvas.ellipse(self.cx + side * reach, self.cy + 1.5, 3, 4.2, ear)
        self.canvas.polygon(self.outline(), self.skin)

    def cheeks(self) -> None:
        blush = mix(self.skin, (236, 92, 92), 0.22)
        for side in (-1, 1):
            x, y = self.at(side * 0.58, 6.2)
            self.canvas.ellipse(x, y, 3.2 * self.foreshortened(side * 0.58), 2.2, blush)

    def foreshortened(self, u: float) -> float:
        """How much narrower something at `u` looks than when the head faces us."""
        return max(0.35, math.cos(math.asin(u) + self.turn) / math.cos(math.asin(u)))

    def eyes(self) -> None:
        size = self.n.eye_size
        brow_colour = mix(self.hair, (20, 14, 12), 0.45)
        for side in (-1, 1):
            u = side * self.n.eye_gap
            x, y = self.at(u, -1.5)
            squash = self.foreshortened(u)
            self.canvas.ellipse(x, y, size * squash, size * 0.92, (252, 252, 250))
            px = x + 1.1 * math.sin(self.turn)
            self.canvas.ellipse(px, y + 0.2, size * 0.68 * squash, size * 0.72, self.n.iris)
            self.canvas.ellipse(px, y + 0.2, size * 0.36 * squash, size * 0.4, (14, 12, 14))
            self.canvas.ellipse(px + 0.7, y - 0.7, 0.65, 0.65, (255, 255, 255))
            lid = [(x + (size + 0.3) * squash * math.cos(t), y - size * 0.95 * math.sin(t)) for t in _arc(20, 160)]
            self.canvas.line(lid, 0.9, (44, 30, 30))
            arch = ((-0.17, 0.5), (-0.06, 0.0), (0.06, 0.1), (0.17, 1.1))
            brow = [self.at(u + side * d, -6.5 - self.n.brow + drop) for d, drop in arch]
            self.canvas.line(brow, 1.3, brow_colour)

    def nose(self) -> None:
        shade = mix(self.skin, (110, 40, 30), 0.38)
        tip = 0.07
        self.canvas.line(
            [self.at(tip * 0.4, 1.2), self.at(tip + 0.05, 4.0), self.at(tip, 5.2), self.at(-tip, 5.2)], 0.9, shade
        )

    def mouth(self) -> None:
        """A parabola whose ends rise with the smile; above a third of a smile the lips part and show teeth."""
        smile = max(-1.0, min(1.0, self.f.smile))
        width = self.n.mouth_width * (1 + 0.16 * max(0.0, smile))
        bend, parted = 4.0 * smile, 5.0 * max(0.0, smile - 0.3)
        steps = np.linspace(-1, 1, 13)
        base = 10.8 + (0.6 if smile < 0 else 0.0)
        upper = [self.at(width * t, base - bend * t * t + 0.4 * bend) for t in steps]
        lip = mix(self.skin, (120, 16, 34), 0.74)
        if parted > 0:
            lower = [self.at(width * t, base - bend * t * t + 0.4 * bend + parted * (1 - t * t)) for t in steps]
            self.canvas.polygon(upper + lower[::-1], (96, 14, 28))
            teeth = [(x, y + 0.5 * parted * (1 - t * t)) for (x, y), t in zip(upper, steps, strict=True)]
            self.canvas.polygon(upper + teeth[::-1], (250, 248, 244))
            self.canvas.line(lower, 1.0, lip)
        self.canvas.line(upper, 1.8 - 0.2 * parted, lip)

    def age_lines(self) -> None:
        if not self.f.old:
            return
        crease = mix(self.skin, (70, 26, 20), 0.46)
        for v, width in ((-11.6, 0.36), (-9.4, 0.42)):
            self.canvas.line([self.at(width * t, v + 0.5 * t * t) for t in np.linspace(-1, 1, 7)], 0.75, crease)
        for side in (-1, 1):
            self.canvas.line([self.at(side * u, v) for u, v in ((0.22, 4.6), (0.34, 5.9), (0.43, 7.6))], 0.9, crease)
            self.canvas.line([self.at(side * u, v) for u, v in ((0.26, 2.5), (0.42, 3.4), (0.58, 2.5))], 0.8, crease)
            for v in (-2.4, -0.4):
                self.canvas.line([self.at(side * 0.7, v * 0.4 - 0.6), self.at(side * 0.88, v - 0.2)], 0.7, crease)

    def hair_in_front(self) -> None:
        drift = 5 * math.sin(self.turn)
        cap = self.outline(1.3, -178, -2)
        low = {"short": -9.5, "side": -9.0, "bob": -8.0, "bun": -11.0, "curly": -10.0}[self.n.style]
        right, left = cap[-1], cap[0]
        fringe: Points = []
        for t in np.linspace(1, -1, 21):
            x = self.cx + drift * (1 - t * t) + t * (self.n.rx + 0.6)
            rise = {
                "short": 3.2 * (1 - t * t) + 0.5 * math.cos(6 * t),
                "side": 3.5 * (1 - t * t) * (1 - 0.9 * t),
                "bob": 1.4 * (1 - t * t),
                "bun": 4.0 * math.sqrt(max(0.0, 1 - t * t)),
                "curly": 2.6 * (1 - t * t) + 0.9 * math.cos(14 * t),
            }[self.n.style]
            fringe.append((x, self.cy + low - rise + 7.5 * t**6))
        self.canvas.polygon([left, *cap, right, *fringe], self.hair)
        shine = mix(self.hair, (255, 255, 255), 0.22)
        arc = self.outline(-1.8, -128 + self.f.turn, -84 + self.f.turn)
        self.canvas.line(arc, 1.2, shine)

    def spectacles(self) -> None:
        frame, size = self.n.frame, self.n.eye_size + 2.5
        inner: Points = []
        outer: Points = []
        for side in (-1, 1):
            u = side * self.n.eye_gap
            x, y = self.at(u, -1.2)
            rx = size * max(0.72, self.foreshortened(u))
            corner = 1.0 if self.n.round_frames else 0.55
            rim = [
                (x + rx * _power(math.cos(t), corner), y + size * 0.92 * _power(math.sin(t), corner))
                for t in _arc(0, 360, 25)
            ]
            self.canvas.tint(rim, (222, 238, 252), 0.3)
            self.canvas.line(rim, 1.45, frame)
            inner.append((x - side * rx, y - 0.4))
            outer.append((x + side * rx, y - 0.6))
        middle = ((inner[0][0] + inner[1][0]) / 2, inner[0][1] - 0.9)
        self.canvas.line([inner[0], middle, inner[1]], 1.45, frame)
        for side, start in zip((-1, 1), outer, strict=True):
            end = self.cx + side * (self.n.rx + 0.6)
            if side * (end - start[0]) > 0:
                self.canvas.line([start, (end, self.cy - 2.4)], 1.2, frame)


def _arc(start: float, stop: float, points: int = 13) -> list[float]:
    return [math.radians(d) for d in np.linspace(start, stop, points)]


def _power(value: float, exponent: float) -> float:
    return math.copysign(abs(value) ** exponent, value)
