"""The power planner: how many labels a direction needs before it points where it should, for every estimator it knows."""

from typing import Any, get_args

from stages.attributes import Column
from stages.directions.power_fits import PlannedEstimator, plan_fits
from stages.directions.power_law import Plan
from stages.directions.power_means import plan_means
from stages.stage import Passes

ESTIMATORS: tuple[str, ...] = ("mean_difference", *get_args(PlannedEstimator))


def plan_labels(
    column: Column,
    *,
    dim: int,
    cosine: float,
    confidence: float = 0.95,
    estimator: str = "mean_difference",
    controls: tuple[Column, ...] = (),
) -> Passes[Any, Plan]:
    """Passes over batches with `id`, `latent` (dim numbers) and `labels`. Columns have two classes; `cosine` in (0, 1).

    `controls`: the other attributes that ols and the balanced difference of means are fitted with.
    """
    match estimator:
        case "ols" | "balanced_mean_difference" | "lda" | "logistic" | "svm":
            columns = (column, *controls)
            return (yield from plan_fits(columns, dim=dim, estimator=estimator, cosine=cosine, confidence=confidence))
        case _:
            return (yield from plan_means(column, dim=dim, cosine=cosine, confidence=confidence))
