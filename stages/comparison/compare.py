"""Two codecs over one dataset, as passes: moments of the pairs → alignment and null → the rows laid over each other.

What comes out are numbers with intervals, and a verdict: directions may be carried over when the held-out disparity is small
enough and no chance dealing of the rows does as well.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas.measurements import OK, Measurement
from stages.attributes import Floats
from stages.bootstrap import percentile_interval
from stages.comparison.alignment import Alignment, disparity, procrustes
from stages.comparison.likeness import NO_VARIANCE, Likeness
from stages.comparison.null import SAMPLE_ROWS, Null, permutation_null
from stages.comparison.paired import Joint, Pairing, Pairs
from stages.comparison.row_cosines import BINS, Cosines, RowCosines
from stages.directions.auc import normal_quantile
from stages.rows import Latents
from stages.sample import SampledRows
from stages.stage import Passes

REFUSED, NO_ROWS, TOO_FEW = "refused", "no_rows", "too_few"
MAX_P = 0.05
FEWEST_ROWS = 30


@dataclass(frozen=True)
class Comparison:
    """What two codecs have to do with each other. `status` is `ok` exactly when directions may be carried over."""

    status: str
    message: str
    measurements: tuple[Measurement, ...] = ()
    alignment: Alignment | None = None
    everything: Joint | None = field(default=None, repr=False)
    held_out: Joint | None = field(default=None, repr=False)
    sample: Latents | None = field(default=None, repr=False)
    """Some of the held-out rows [x | y]."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_disparity`: above it nothing is carried over. `dim`, `other`: numbers in a latent of the new and of the old codec."""

    dim: int
    other: int
    holdout: float = 0.2
    permutations: int = 100
    max_disparity: float = 0.3
    replicates: int = 200
    confidence: float = 0.95
    seed: int = 0


def compare(settings: Settings) -> Passes[Any, Comparison]:
    """Reduce stages over batches with `id` and `latent` = [new | old]; returns the comparison."""
    pairs: Pairs = yield Pairing(settings.dim, settings.other, settings.holdout)
    dim = settings.dim
    fitted, everything = pairs.train, pairs.together
    train, held_out, together = (Joint.of(moments, dim) for moments in (fitted, pairs.held_out, everything))
    counted = [Measurement("left_out", float(pairs.non_finite), n=together.n, target="non_finite")]
    if together.n == 0:
        return Comparison(NO_ROWS, "no image has finite latents of both codecs", tuple(counted))
    alignment = procrustes(train)
    if alignment is None or held_out.n < 4:
        status = NO_VARIANCE if alignment is None else TOO_FEW
        why = "latents that do not vary" if alignment is None else f"{held_out.n} images held out, fewer than 4"
        return Comparison(status, why, tuple(counted))
    rows = pairs.sample.release()
    null = _null(rows, settings)
    cosines: Cosines = yield RowCosines(alignment, together, settings.holdout, settings.replicates, settings.seed)
    judged, status, message = _verdict(cosines, null, settings)
    found = (
        *counted,
        judged,
        _null_measurement(null),
        *_angles(cosines, settings),
        *Likeness(dim, settings.other).measured(
            pairs, fitted, everything, cosines.terms, confidence=settings.confidence
        ),
        Measurement("fitted_disparity", disparity(alignment, train), n=train.n),
    )
    sample = rows.latents[rows.held_out][:SAMPLE_ROWS]
    return Comparison(status, message, found, alignment, together, held_out, sample)


def agreement(
    value: float | None, n: int, *, subject: str, kept: float, confidence: float, tails: float = 1.0
) -> Measurement:
    """A carried direction's correlation with the original over held-out images, with Fisher's interval, `tails` times as wide.

    Refused where that reaches 0: the spaces may go together as wholes, and this direction lie in what the new one has lost.
    """
    detail = json.dumps({"kept": round(kept, 6)})
    if value is None or n < 4:
        return Measurement("ported_agreement", n=n, subject=subject, status=TOO_FEW, detail=detail)
    centre = math.atanh(max(min(value, 1 - 1e-15), -1 + 1e-15))
    reach = tails * normal_quantile(confidence) / math.sqrt(n - 3)
    low, high = math.tanh(centre - reach), math.tanh(centre + reach)
    told = Measurement("ported_agreement", value, low=low, high=high, n=n, subject=subject, detail=detail)
    if low > 0:
        return told
    why = f"on held-out images its score goes with the old one no more than by chance ({value:.2f}, {low:.2f} to {high:.2f})"
    return replace(told, status=REFUSED, message=why)


def tails_of(x: Floats, y: Floats) -> float:
    """How much wider than Fisher's the interval of the correlation of scores x and y (n,) is: Fisher's is of Gaussian pairs.

    The deviation of x̃ỹ − r(x̃² + ỹ²)/2, what each row does to r, over the 1 − r² that it is of Gaussian ones. 1 of fewer than
    FEWEST_ROWS rows.
    """
    if len(x) < FEWEST_ROWS or min(np.ptp(x), np.ptp(y)) <= 0:
        return 1.0
    x, y = ((v - v.mean()) / v.std() for v in (x, y))
    r = float((x * y).mean())
    if 1 - r * r < 1e-9:
        return 1.0
    return float(np.sqrt(((x * y - r * (x**2 + y**2) / 2) ** 2).mean()) / (1 - r * r))


def _null(rows: SampledRows, settings: Settings) -> Null | None:
    latents = rows.latents[:SAMPLE_ROWS].astype(np.float64)
    return permutation_null(
        latents[:, : settings.dim],
        latents[:, settings.dim :],
        rows.held_out[:SAMPLE_ROWS],
        permutations=settings.permutations,
        seed=settings.seed,
    )


def _verdict(cosines: Cosines, null: Null | None, settings: Settings) -> tuple[Measurement, str, str]:
    values = cosines.sums[:, 2] / np.where(cosines.sums[:, 3] > 0, cosines.sums[:, 3], np.nan)
    value = float(values[0]) if np.isfinite(values[0]) else None
    low, high = percentile_interval(values[1:], confidence=settings.confidence) or (None, None)
    why = []
    if value is None:
        why.append("held-out latents do not vary")
    elif value > settings.max_disparity:
        why.append(f"held-out disparity {value:.3g} is above {settings.max_disparity:g}")
    if null is None or null.p > MAX_P:
        chance = "there are too few images" if null is None else f"{null.p:.2g} of chance dealings do as well"
        why.append(f"the spaces are not shown to be related: {chance}")
    status, message = (REFUSED, "; ".join(why)) if why else (OK, "")
    return (
        Measurement(
            "disparity",
            value,
            low=low,
            high=high,
            n=int(cosines.histogram.sum()) + cosines.no_angle,
            threshold=settings.max_disparity,
            status=status,
            message=message,
        ),
        status,
        message,
    )


def _null_measurement(null: Null | None) -> Measurement:
    if null is None:
        return Measurement("chance", status=TOO_FEW, message="fewer than 8 training or 4 held-out images")
    detail = {
        "observed": null.observed,
        "permuted": {str(q): float(np.quantile(null.permuted, q)) for q in (0, 0.05, 0.5, 0.95, 1)},
    }
    return Measurement("chance", null.p, n=len(null.permuted), unit="p", threshold=MAX_P, detail=json.dumps(detail))


def _angles(cosines: Cosines, settings: Settings) -> Iterator[Measurement]:
    n = int(cosines.histogram.sum())
    if not n:
        yield Measurement("row_cosine", n=0, status=NO_VARIANCE)
        return
    means = cosines.sums[:, 1] / np.where(cosines.sums[:, 0] > 0, cosines.sums[:, 0], np.nan)
    low, high = percentile_interval(means[1:], confidence=settings.confidence) or (None, None)
    share = np.cumsum(cosines.histogram) / n
    edges = -1 + 2 * np.arange(1, BINS + 1) / BINS
    quantiles = {str(q): round(float(edges[int(np.searchsorted(share, q))]), 3) for q in (0.01, 0.1, 0.5)}
    detail = json.dumps({"histogram": cosines.histogram.tolist(), "quantiles": quantiles})
    yield Measurement("row_cosine", float(means[0]), low=low, high=high, n=n, detail=detail)
