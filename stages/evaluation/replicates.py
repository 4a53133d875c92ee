"""Numbers that come out of an evaluation's sums, each with its bootstrap replicates: value first, replicates after."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from schemas.measurements import OK, Measurement
from stages.attributes import Floats
from stages.bootstrap import expanded, percentile_interval
from stages.evaluation.design import Design
from stages.evaluation.effects import Effects
from stages.evaluation.features import Layout

FEW = 10
"""Below so many independent images an interval would be a guess."""
TOO_FEW = "too_few"
NO_TARGET = "no_target"
CONSTANT_SCORE = "constant_score"
NO_CHANGE = "no_change"
"""The edit does not move what a number would be a share of."""
REASONS = {
    TOO_FEW: "fewer than two images",
    CONSTANT_SCORE: "the score is the same on all unedited pictures",
    NO_CHANGE: "the edit does not move the score",
}


@dataclass(frozen=True)
class Results:
    """The sums of an evaluation as means. Every array has 1 + replicates rows, the first with weight 1."""

    design: Design
    state: Effects
    confidence: float
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout.of(self.design))

    def sums(self, name: str) -> Floats:
        return self.layout.view(self.state.sums, name)

    def mean(self, name: str) -> Floats:
        """Of a feature over images."""
        return ratio(self.sums(name), self.weight)

    @cached_property
    def weight(self) -> Floats:
        return self.sums("weight")

    @cached_property
    def images(self) -> float:
        """Independent images (or groups)."""
        return self.independent(self.weight)

    def independent(self, weights: Floats) -> float:
        """Of images with these total weights (1 + replicates,): twelve of one person are one. Without groups they are counted."""
        return float(weights[0]) if self.design.group is None else independent(float(weights[0]), weights[1:])

    @cached_property
    def sigma(self) -> Floats:
        """(1 + replicates, J): standard deviation of each score over unedited images; NaN where it never varies."""
        mean, square = self.mean("score"), self.mean("square")
        variance = square - mean**2
        # What rounding makes of one and the same score is no spread, about the origin or about zero.
        scale = square + mean**2 + (0.0 if self.state.origin is None else self.state.origin**2 * 1e-12)
        return np.sqrt(np.where(variance > 1e-12 * scale, variance, np.nan))

    @cached_property
    def slope(self) -> Floats:
        """(1 + replicates, k, J): change of score j a unit of strength along edit i, in score units."""
        alphas = np.asarray(self.design.strengths)
        return np.asarray(np.einsum("bkaj,a->bkj", self.mean("delta"), alphas) / (alphas @ alphas))

    @cached_property
    def effect(self) -> Floats:
        """R_ij = E[s_j(D(z + αd_i)) − s_j(D(z))]/(ασ_j), (1 + replicates, k, J); over a grid, the line through 0."""
        return self.slope / self.sigma[:, None]

    def measurement(
        self, metric: str, values: Floats, *, detail: Any = None, missing: str = CONSTANT_SCORE, **more: Any
    ) -> Measurement:
        """A number with its interval; `values` (1 + replicates,). Not finite: a typed status instead, `missing` of two images or more."""
        value = float(values[0])
        n = int(self.weight[0])
        text = "" if detail is None else json.dumps(clean(detail), allow_nan=False)
        if not np.isfinite(value):
            status = TOO_FEW if n < 2 else missing
            said = {"message": REASONS.get(status, "")} | more
            return Measurement(metric, **(said | {"n": n, "status": status, "detail": text}))
        low, high = self.interval(values)
        few = "" if low is not None else f"fewer than {FEW} independent images: no interval"
        given = {"value": value, "low": low, "high": high, "n": n, "detail": text, "message": few}
        return Measurement(metric, **(given | more))

    def share(self, metric: str, values: Floats, **more: Any) -> Measurement:
        """A share of the images. Of a share of exactly 0 or 1 every replicate says the same; its bound is then the exact one of
        Clopper and Pearson: (½(1 − confidence))^(1/n) for n independent images.
        """
        found = self.measurement(metric, values, **more)
        if found.value not in (0.0, 1.0) or found.low is None or found.low != found.high:
            return found
        bound = (0.5 * (1 - self.confidence)) ** (1 / self.images)
        return replace(found, low=bound) if found.value else replace(found, high=1 - bound)

    def why_none(self, target: int) -> str:
        """Why a share of what an edit does to a score cannot be had."""
        return NO_CHANGE if np.isfinite(self.sigma[0, target]) else CONSTANT_SCORE

    def interval(self, values: Floats, images: float | None = None) -> tuple[float | None, float | None]:
        """`images`: how many independent ones the values are of, where that is not all."""
        images = self.images if images is None else images
        if images < FEW:
            return None, None
        return percentile_interval(values[1:], confidence=expanded(self.confidence, images)) or (None, None)


def independent(n: float, replicates: Floats) -> float:
    """Images (or groups) that are findings of their own: n² over the variance of the replicates' total weight, at most n."""
    spread = float(replicates.var())
    return min(float(n), float(n) ** 2 / spread) if spread > 0 else 0.0


def ratio(above: Floats, below: Floats) -> Floats:
    """above/below along the replicates; NaN where nothing is below."""
    below = below.reshape(below.shape + (1,) * (above.ndim - below.ndim))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below != 0, above / np.where(below != 0, below, 1.0), np.nan))


def clean(value: Any) -> Any:
    """Plain JSON: NumPy's numbers and arrays as Python's, NaN as null."""
    match value:
        case dict():
            return {str(k): clean(v) for k, v in value.items()}
        case list() | tuple() | np.ndarray():
            return [clean(v) for v in value]
        case bool() | np.bool_():
            return bool(value)
        case float() | np.floating():
            return float(f"{float(value):.6g}") if np.isfinite(value) else None
        case np.integer():
            return int(value)
        case _:
            return value


__all__ = [
    "CONSTANT_SCORE",
    "FEW",
    "NO_CHANGE",
    "NO_TARGET",
    "OK",
    "TOO_FEW",
    "Results",
    "clean",
    "independent",
    "ratio",
]
