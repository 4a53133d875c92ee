"""Steps that find directions."""

from typing import Literal

from pydantic import Field

from schemas.steps.base import SelectionStep

Estimator = Literal["mean_difference", "balanced_mean_difference", "ols", "logistic"]


class FitStep(SelectionStep):
    """Fits a direction for every attribute, with its n, its interval and its held-out AUC."""

    stage: Literal["fit"] = "fit"
    attributes: tuple[str, ...] | Literal["all"] = "all"
    estimator: Estimator = "ols"
    controls: tuple[str, ...] | None = Field(
        None,
        description="balanced_mean_difference: attributes whose cells are balanced; default: the other fitted ones",
    )
    l2: float = Field(0.0, ge=0, description="ridge penalty, scikit-learn's `C = 1/l2` for logistic")
    holdout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of rows, by hash of the id, that scores a fit made without them; the stored direction uses all rows",
    )
    confidence: float = Field(0.95, gt=0, lt=1)
