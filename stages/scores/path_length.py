"""Perceptual path length (Karras et al. 2019): how far a picture moves for a small step between two random latents.

The mean of d(G(t), G(t+ε))/ε² over random pairs and places t, ε = 1e-4, values below the 1st and above the 99th percentile
dropped. In z the step is along the great circle of unit vectors, in w along the straight line. For G(z) = Az under lerp and
squared Euclidean distance it is 2‖A‖_F² in expectation. Generator and distance are injected.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from schemas.codec import LatentSpec
from stages.code_sets.interpolation import angle
from stages.code_sets.path import ANTIPODAL_ANGLE
from stages.moments import Floats

STEP = 1e-4
TRIM = 0.01

Space = Literal["z", "w"]
"""Where paths run: along great circles of unit vectors, or along straight lines."""


class Generator(Protocol):
    """Latents (n, d) float64 → pictures, in any form its distance takes."""

    def __call__(self, latents: Floats) -> Any: ...


class PictureDistance(Protocol):
    """Pictures, pictures → distances (n,). Squared, as LPIPS is: it must fall as ε² for the score to settle."""

    def __call__(self, a: Any, b: Any) -> Floats: ...


@dataclass(frozen=True, slots=True)
class PathLength:
    """`value` is the trimmed mean and `low`, `high` its interval; `n` paths were kept of those that were measured."""

    value: float
    low: float
    high: float
    n: int


def path_space(latent: LatentSpec) -> Space:
    """`z` where rows lie near a centred shell, as a codec declares: a straight line would leave it. `w` otherwise."""
    return "z" if latent.centred_shell else "w"


def squared_l2(a: Any, b: Any) -> Floats:
    """Sum of squared differences of each row."""
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.asarray((apart**2).reshape(len(apart), -1).sum(1))


def path_lengths(
    generate: Generator,
    distance: PictureDistance,
    ends: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    places: npt.NDArray[np.float64],
    *,
    space: Space,
    step: float = STEP,
) -> Floats:
    """d(G(t), G(t+ε))/ε² of each pair of ends (n, d) at its place t (n,) in [0, 1].

    Pairs without a path (antipodal or zero ends in z) are left out. ε is small against float32 pictures: use a distance
    and a generator that keep digits, or a larger step.
    """
    a, b = (np.asarray(end, np.float64) for end in ends)
    if space == "z":
        ok = _on_circle(a, b)
        a, b, places = a[ok], b[ok], places[ok]
    here, there = (_at(a, b, t, space) for t in (places, places + step))
    return np.asarray(distance(generate(here), generate(there)), np.float64) / step**2


def path_length(lengths: Floats, *, trim: float = TRIM, confidence: float = 0.95) -> PathLength:
    """The score of many lengths (n,): their mean without the lowest and highest `trim` of them.

    The interval is that of a trimmed mean (Tukey and McLaughlin 1963). ValueError below two lengths.
    """
    if len(lengths) < 2:
        raise ValueError(f"{len(lengths)} paths; a path length needs at least 2")
    low = np.quantile(lengths, trim, method="lower")
    high = np.quantile(lengths, 1 - trim, method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    spread = np.std(np.clip(lengths, low, high), ddof=1) / ((1 - 2 * trim) * np.sqrt(len(lengths)))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(kept) - 1) * spread)
    value = float(kept.mean())
    return PathLength(value, value - reach, value + reach, len(kept))


def _at(a: Floats, b: Floats, places: Floats, space: Space) -> Floats:
    """Row i of the paths at its own place."""
    t = places[:, None]
    if space == "w":
        return a + (b - a) * t
    # `slerp` has one t for all rows; here every row has its own, and unit ends: along the circle from a, by tω.
    omega = angle(a, b)[:, None]
    first, last = _unit(a), _unit(b)
    across = _unit(last - np.einsum("ij,ij->i", first, last)[:, None] * first)
    return np.asarray(_unit(np.cos(t * omega) * first + np.sin(t * omega) * across))


def _unit(x: Floats) -> Floats:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norm > 0, norm, 1.0))


def _on_circle(a: Floats, b: Floats) -> npt.NDArray[np.bool_]:
    """Which pairs have one shortest way on the sphere: finite, neither zero, not opposite."""
    omega = angle(a, b)
    return np.asarray(np.isfinite(omega) & (np.pi - np.nan_to_num(omega) >= ANTIPODAL_ANGLE))
