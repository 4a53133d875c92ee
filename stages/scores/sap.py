"""Separated attribute predictability (Kumar et al. 2018): the gap between the two dimensions that predict a factor best.

Continuous: by squared correlation. Discrete: by the test accuracy of a linear support vector machine on that dimension alone
(C = .01, classes balanced). As accuracies, discrete gaps stay well below 1 for factors of more than two levels.
"""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from stages.scores.information import Floats, Levels
from stages.scores.mig import top_gap

FLAT = 1e-12
"""A dimension whose variance is at most this predicts nothing."""

PENALTY = 0.01


def squared_correlations(codes: npt.NDArray[Any], values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """(d, f) of codes (n, d) and factor values (n, f), each factor on its `known` rows.

    ValueError for a factor that is constant.
    """
    found = np.zeros((codes.shape[1], values.shape[1]))
    for j in range(values.shape[1]):
        z = codes[known[:, j]].astype(np.float64)
        y = values[known[:, j], j]
        z -= z.mean(0)
        y = y - y.mean()
        n = max(len(y) - 1, 1)
        z_variance, y_variance = np.einsum("ij,ij->j", z, z) / n, y @ y / n
        if y_variance <= 0:
            raise ValueError(f"factor {j} is constant in {len(y)} rows; a correlation needs two values")
        live = z_variance > FLAT
        found[live, j] = (y @ z[:, live] / n) ** 2 / (z_variance[live] * y_variance)
    return found


def sap_continuous(codes: npt.NDArray[Any], values: Floats, known: npt.NDArray[np.bool_]) -> float:
    """Mean gap of the two largest squared correlations, in [0, 1]."""
    return sap(squared_correlations(codes, values, known))


def accuracies(
    codes: npt.NDArray[Any], levels: Levels, test_codes: npt.NDArray[Any], test_levels: Levels, *, seed: int = 0
) -> Floats:
    """(d, f) test accuracies of one classifier a dimension and factor; rows of unknown level are left out.

    ValueError for a factor with one level in training or no row to test on.
    """
    found = np.empty((codes.shape[1], levels.shape[1]))
    for j in range(levels.shape[1]):
        train, test = levels[:, j] >= 0, test_levels[:, j] >= 0
        if len(np.unique(levels[train, j])) < 2 or not test.any():
            raise ValueError(f"factor {j} needs two levels to train on and a row to test on")
        for i in range(codes.shape[1]):
            model = LinearSVC(C=PENALTY, class_weight="balanced", random_state=seed)
            # The definition has a fixed number of iterations, reached or not.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(codes[train, i : i + 1], levels[train, j])
            found[i, j] = np.mean(model.predict(test_codes[test, i : i + 1]) == test_levels[test, j])
    return found


def sap(matrix: Floats) -> float:
    """Mean over factors of the gap between the two best dimensions, of a score matrix (d, f)."""
    return float(np.mean(top_gap(matrix)))
