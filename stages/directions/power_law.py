"""What labels buy: the noise law of a fitted direction, turned round; and what a plan says.

An estimate is v̂ = v + e, its error's squared length falls as 1/n, so 1/cos²(v̂, v) − 1 ∝ 1/n. For a difference of means with
separation δ in units of σ and effective dimensions d (latent-science §3): cos(v̂, v) ≈ δ/√(δ² + d₊/n₊ + d₋/n₋).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import t as student

NO_SIGNAL = "no_signal"
NO_SPREAD = "no_spread"
MAX_GAP = 0.05
"""A measured cosine that falls short of the law's by more than this, beyond chance, is worth a word."""
SURE = 0.99
"""One-sided, of what is chance: up to five sizes of subsamples are looked at."""


def predicted_cosine(separation: float, dimension: tuple[float, float], n: tuple[float, float]) -> float:
    """Cosine of a fitted difference of means with the true one; separation > 0 in σ; each class's effective dimension and rows."""
    noise = dimension[0] / n[0] + dimension[1] / n[1]
    return separation / math.sqrt(separation**2 + noise)


def labels_needed(separation: float, dimension: tuple[float, float], *, cosine: float, share: float = 0.5) -> int:
    """Rows in all, of which `share` are positive, for `cosine` in (0, 1): the inverse of `predicted_cosine`."""
    noise_of_one = dimension[0] / share + dimension[1] / (1 - share)
    return math.ceil(noise_of_one / (separation**2 * (cosine**-2 - 1)))


class Basis(StrEnum):
    """Where a plan's noise is from. The subsampling check is independent of it, unless it is the plan."""

    LAW = "law"  # the closed law of a difference of means
    BOOTSTRAP = "bootstrap"  # the error of a fit on a sample of rows, by bootstrap: valid where a closed law is not
    SUBSAMPLING = "subsampling"  # the curve of subsamples alone: too few rows a coefficient for one step


@dataclass(frozen=True, slots=True)
class Check:
    """Fits on subsamples of one size: the law's cosine, and what was measured.

    A difference of means is held against the fit on all rows, other estimators' subsamples against each other (`Plan.basis`).
    `n_positive`, `n_negative`: mean rows of a subsample; `subsamples` are disjoint; `low`, `high`: extremes of what was measured.
    `error`: standard error of what was measured, None for two fits that can only be held against each other.
    """

    n_positive: float
    n_negative: float
    subsamples: int
    predicted: float
    measured: float
    low: float
    high: float
    error: float | None

    @property
    def short(self) -> float:
        """How far it falls short of the law beyond chance; at most 0 where it does not."""
        if self.error is None:
            return 0.0
        return self.predicted - self.measured - float(student.ppf(SURE, self.subsamples - 1)) * self.error


@dataclass(frozen=True, slots=True)
class Plan:
    """What labels buy. Every number is finite or absent; `status` is `ok` exactly when there is a number of labels.

    `separation` and `effective_dimension` (mean of the classes) as in the module's law; `cosine_now` is what the labels there
    are reach. `basis`: where the noise is from, see `Basis`. `controls`: attributes that were fitted with this one. `per_class`: labels of
    each class, when classes are equally large, with its interval (`per_class_high` is absent when no number is certain to be enough);
    `in_all`: labels when their share of positives is the present one.
    """

    attribute: str
    target_cosine: float
    status: str
    message: str
    rows: int
    non_finite: int
    confidence: float
    n_positive: int
    n_negative: int
    separation: float | None = None
    effective_dimension: float | None = None
    cosine_now: float | None = None
    per_class: int | None = None
    per_class_low: int | None = None
    per_class_high: int | None = None
    in_all: int | None = None
    estimator: str = "mean_difference"
    basis: str = "law"
    controls: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


def told(checks: tuple[Check, ...]) -> str:
    if not checks:
        return "too few rows to check the law by subsampling"
    worst = max(checks, key=lambda check: check.short)
    if worst.short <= MAX_GAP:
        return ""
    return (
        f"subsamples of {worst.n_positive:,.0f} + {worst.n_negative:,.0f} rows reach {worst.measured:.2f} where the law says "
        f"{worst.predicted:.2f}: rows are not independent, so more are needed than planned"
    )
