"""What a fit says of one attribute: a direction with its evidence, or a typed reason why there is none.

Invariant: a number is finite or absent. `status` is `ok` exactly when there is a vector; NaN never stands for "unknown".
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from schemas.measurements import Measurement
from stages.attributes import Floats


class FitStatus(StrEnum):
    """Why an attribute has no direction, or `ok`. Stored in `directions.status`; users filter on these words."""

    OK = "ok"
    NO_ROWS = "no_rows"  # no row with a finite latent was selected
    NO_LABELS = "no_labels"  # every label of the attribute is missing
    SINGLE_CLASS = "single_class"  # all labelled rows are of one class
    CONSTANT = "constant"  # a number that never changes
    TOO_FEW = "too_few"  # fewer rows than the estimator needs
    NO_OVERLAP = "no_overlap"  # no cell of the controls holds both classes
    COLLINEAR = "collinear"  # the labels follow exactly from those of other attributes
    NO_VARIANCE = "no_variance"  # the rows do not vary along it: a component beyond their rank
    ZERO_NORM = "zero_norm"  # the classes have the same mean: there is no direction
    SEPARABLE = "separable"  # a plane parts the classes, so the unpenalised optimum is at infinity
    REFUSED = "refused"  # of another codec, whose space is too far from this one's to carry it over
    REJECTED = "rejected"  # a person looked at it and said no
    NOT_CONVERGED = "not_converged"  # the optimum was not reached in the allowed passes


MEANING = {
    FitStatus.NO_ROWS: "no row with a finite latent was selected; loosen the filter",
    FitStatus.NO_LABELS: "no selected row has this label",
    FitStatus.SINGLE_CLASS: "all labelled rows are of one class; label rows of the other, too",
    FitStatus.CONSTANT: "the number is the same in all rows",
    FitStatus.TOO_FEW: "fewer rows than the estimator needs; label more",
    FitStatus.NO_VARIANCE: "the rows do not vary along it",
    FitStatus.ZERO_NORM: "the classes have the same mean",
    FitStatus.SEPARABLE: "a plane parts the classes, so the weights would grow without end; set l2 above 0",
}
"""What a status means and what helps, where the estimator had no more to say."""
ROUNDING = 1e-12
"""Of a coefficient that would move a latent by its own deviation. Sums in float64 leave less; a sampling error is more at any n."""


def is_rounding(coefficients: Floats, unit: Floats) -> bool:
    """Whether coefficients (d,) are zero but for rounding, so that their direction is chance; `unit` (d,): sizes that matter."""
    return bool((np.abs(coefficients) <= ROUNDING * unit).all())


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows that an estimate stands on; the classes are None for an attribute that is a number."""

    n: int = 0
    n_positive: int | None = None
    n_negative: int | None = None

    @classmethod
    def of_classes(cls, positive: int, negative: int) -> "Evidence":
        return cls(positive + negative, positive, negative)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Raw coefficients of one attribute: what an estimator makes of a statistic, before anything is measured along it.

    `coefficients` and `standard_error`: (d,). The score of a row is coefficients·z + intercept.
    """

    status: FitStatus
    evidence: Evidence
    message: str = ""
    coefficients: Floats | None = None
    standard_error: Floats | None = None
    intercept: float | None = None


@dataclass(frozen=True, slots=True)
class Direction:
    """One attribute's direction; fields of the directions table have its columns' names (schemas.tables).

    `vector` is the unit direction (d,), `raw_norm` the length of the coefficients it came from, `standard_error` (d,) theirs;
    `intercept` puts score 0 of a two-class attribute between the classes; `mean` (d,) and `sigma` describe all selected
    rows, labelled or not; `n` counts the rows that were fitted. `separation` and `auc` come from held-out rows, along a
    direction fitted without them; without a holdout, `separation` is that of the fitted rows, which flatters it, and
    `auc` is absent. Numbers (int, float) have neither. `non_finite` counts selected rows that were left out. With a bootstrap, intervals and
    `standard_error` are of its replicates, and `intervals` has what the table has no column for (the angle to the truth).
    """

    attribute: str
    attributes: tuple[str, ...]
    estimator: str
    status: str
    message: str | None
    confidence: float | None
    vector: Floats | None = None
    raw_norm: float | None = None
    standard_error: Floats | None = None
    intercept: float | None = None
    mean: Floats | None = None
    sigma: float | None = None
    n: int = 0
    n_positive: int | None = None
    n_negative: int | None = None
    separation: float | None = None
    separation_low: float | None = None
    separation_high: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    non_finite: int = 0
    intervals: tuple[Measurement, ...] = ()
