"""How alike two clouds of latents are: linear CKA and the Fréchet distance, each with an interval.

Both are made of moments alone, and biased upwards by about 1/n: a distance of equal clouds is not 0, and CKA of few images in many
coordinates is far from 0. CKA is freed of that exactly, at any width (`cka_terms`). For the distance a group of rows is left out by
taking its moments away; the alignment is fitted again each time. The value is the plain one, as others report it; the value
without the bias stands in `detail`, and the interval is about that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schemas.measurements import OK, Measurement
from stages.attributes import Floats
from stages.comparison.alignment import Alignment, linear_cka, procrustes
from stages.comparison.cka_terms import Unbiased, unbiased_cka
from stages.comparison.paired import MAX_PARTED, Joint, Pairs, marginals
from stages.jackknife import Jackknifed, jackknife
from stages.moments import Moments
from stages.scores.frechet import frechet_distance
from stages.stage import PrecisionLost

NO_VARIANCE = "no_variance"
ENOUGH = 10
"""Images for each coordinate, below which CKA's bias is said."""

Values = dict[str, float]


@dataclass(frozen=True)
class Likeness:
    """The measures of pairs of `dim` and `other` numbers."""

    dim: int
    other: int

    def of(self, train: Moments, everything: Moments) -> Values:
        """CKA and distances of `everything`, aligned as `train` says; without what cannot be had.

        `latent_fid`: as the latents are, where both have one width; `latent_fid_aligned`: laid over each other.
        """
        found: Values = {}
        cka = linear_cka(Joint.of(everything, self.dim))
        if cka is not None:
            found["cka"] = cka
        if everything.n < 2:
            return found
        x, y = marginals(everything, self.dim)
        if self.dim == self.other:
            found["latent_fid"] = frechet_distance(x, y)
        alignment = procrustes(Joint.of(train, self.dim))
        if alignment is not None:
            found["latent_fid_aligned"] = frechet_distance(x, _mapped(y, alignment))
        return found

    def measured(
        self, pairs: Pairs, train: Moments, everything: Moments, terms: Moments, *, confidence: float
    ) -> Iterator[Measurement]:
        """CKA and the distances, each with its interval. `train` and `everything` are of the groups of `pairs`, `terms` of all rows."""
        values = self.of(train, everything)
        intervals: dict[str, Jackknifed | Unbiased | None] = {
            **self._intervals(pairs, train, everything, {m: v for m, v in values.items() if m != "cka"}, confidence),
            "cka": unbiased_cka(Joint.of(everything, self.dim), terms, confidence=confidence),
        }
        if "cka" not in values:
            yield Measurement("cka", n=everything.n, status=NO_VARIANCE)
        for metric, value in values.items():
            found = intervals.get(metric)
            yield Measurement(
                metric,
                value,
                low=None if found is None else found.low,
                high=None if found is None else found.high,
                n=everything.n,
                status=OK,
                message="; ".join(self._said(metric, everything.n, found)),
                detail=json.dumps(_detail(found)) if found else "",
            )

    def _intervals(
        self, pairs: Pairs, train: Moments, everything: Moments, values: Values, confidence: float
    ) -> dict[str, Jackknifed]:
        held = [(place, part) for place, part in enumerate(pairs.parts) if part.n]
        if len(held) < 2:
            return {}
        try:
            without = [
                self.of(train.without(part)[0] if place < pairs.training else train, everything.without(part)[0])
                for place, part in held
            ]
        except PrecisionLost:  # a coordinate that varies in one group alone: there is no telling how it would without
            return {}
        sizes = [part.n for _, part in held]
        found = {}
        for metric, value in values.items():
            left_out = [one.get(metric, np.nan) for one in without]
            one = jackknife(value, left_out, sizes, confidence=confidence, bounds=(0.0, np.inf))
            if one is not None:
                found[metric] = one
        return found

    def _said(self, metric: str, n: int, found: Jackknifed | Unbiased | None) -> Iterator[str]:
        width = max(self.dim, self.other)
        if metric == "cka" and n < ENOUGH * width:
            yield f"{n} images for {width} coordinates: biased upwards"
        if isinstance(found, Unbiased):
            yield f"{found.value:.4g} without the bias, and the interval is about that"
        elif found is not None:
            yield f"{found.corrected:.4g} without the bias that falls as 1/n, and the interval is about that"
        elif metric != "cka" and self.dim + self.other > MAX_PARTED:
            yield f"no interval: it is made for up to {MAX_PARTED:,} numbers of both latents together"
        else:
            yield "no interval: too few images, or a number that varies in few of them"


def _detail(found: Jackknifed | Unbiased) -> dict[str, float]:
    if isinstance(found, Unbiased):
        return {"corrected": found.value}
    return {"corrected": found.corrected, "groups": found.groups}


def _mapped(y: Moments, alignment: Alignment) -> Moments:
    """The moments of the rows of y where the alignment puts them."""
    width = alignment.rotation.shape[1]
    turned = alignment.scale * alignment.rotation
    mean: Floats = alignment.x_mean + (y.z_mean - alignment.y_mean) @ turned
    return Moments(y.n, mean, np.zeros(width), turned.T @ y.zz @ turned, np.zeros((width, 0)), np.zeros((0, 0)))
