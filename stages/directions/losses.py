"""Losses of a classifier as functions of the signed margin m = s(w·z + b), s = ±1: what the passes of a fit sum up.

logistic: log(1 + exp(−m)), scikit-learn's LogisticRegression. squared_hinge: max(0, 1 − m)², its LinearSVC; the penalty
l2/2‖w‖² beside them makes C = 1/l2, and the intercept is not penalised.
"""

from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Loss(StrEnum):
    LOGISTIC = "logistic"
    SQUARED_HINGE = "squared_hinge"

    def derivative(self, margin: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of the loss by the margin, in place of it."""
        if self is Loss.LOGISTIC:
            # −p(−m) = (tanh(m/2) − 1)/2: tanh cannot overflow, and NumPy has a vectorised one.
            margin *= 0.5
            np.tanh(margin, out=margin)
            margin -= 1
            margin *= 0.5
            return margin
        margin -= 1
        np.minimum(margin, 0, out=margin)
        margin *= 2
        return margin

    def curvature(self, margin: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Second derivative by the margin; of the squared hinge, whose slope has a kink, that on the losing side."""
        return logistic_curvature(margin) if self is Loss.LOGISTIC else np.where(margin < 1, 2, 0).astype(margin.dtype)


def logistic_curvature(margin: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """p(1 − p) at a margin, exact far out too, and never quite 0."""
    small = np.exp(-np.minimum(np.abs(margin), 80))
    return np.asarray(small / (1 + small) ** 2)
