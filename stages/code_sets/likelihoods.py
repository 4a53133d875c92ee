"""Whether a fitted flow was worth it: its held-out likelihood beside that of the Gaussian of the same rows, as measurements."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from schemas.measurements import Measurement
from stages.bootstrap import percentile_interval, poisson_weights
from stages.code_sets.flow import FittedFlow

REPLICATES = 400
CONFIDENCE = 0.95
NATS = "nats a dimension"


def likelihoods(fitted: FittedFlow) -> list[Measurement]:
    """Mean log-likelihood of the measured rows under the flow and the Gaussian, and its gain row by row; intervals by bootstrap of the rows.

    Divided by the dimensions in which the rows vary. The gain has the status `no_gain` where its interval reaches 0.
    """
    weights = poisson_weights(fitted.hashes, REPLICATES).astype(np.float64)
    dim = fitted.flow.dim
    parts = {"flow": fitted.log_density / dim, "gaussian": fitted.gaussian / dim}
    found = [_mean("log_likelihood", name, values, weights) for name, values in parts.items()]
    gain = _mean("log_likelihood_gain", "flow", parts["flow"] - parts["gaussian"], weights, target="gaussian")
    told = f"fitted to {fitted.rows:,} rows, {fitted.steps} steps of training"
    if gain.low is not None and gain.low > 0:
        return [*found, replace(gain, message=told)]
    why = f"on held-out rows the flow is not surely better than the Gaussian ({told}); method: gaussian costs less"
    return [*found, replace(gain, status="no_gain", message=why)]


def _mean(
    metric: str, subject: str, values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], *, target: str = ""
) -> Measurement:
    with np.errstate(invalid="ignore"):
        replicates = (values @ weights) / weights.sum(0)
    low, high = percentile_interval(replicates, confidence=CONFIDENCE) or (None, None)
    return Measurement(metric, float(values.mean()), subject, target, low, high, len(values), NATS)
