"""Disentanglement, completeness, informativeness (Eastwood and Williams 2018), from what gradient boosting relies on.

One classifier a factor, on all dimensions; its feature importances say which it uses. Disentanglement: does a dimension
serve one factor? Completeness: is a factor served by one dimension? Both are importance-weighted means of 1 − entropy, over
factors or dimensions as the base of the logarithm; importances get 1e-11 added, as in disentanglement_lib.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import GradientBoostingClassifier

from stages.scores.information import Floats, Levels

FLOOR = 1e-11


@dataclass(frozen=True, slots=True)
class Importances:
    """`matrix` (d, f), each column sums to 1; `train` and `test` (f,) accuracies of the classifiers."""

    matrix: Floats
    train: Floats
    test: Floats

    @property
    def informativeness(self) -> float:
        """Mean test accuracy, in [0, 1]; chance is not 0."""
        return float(self.test.mean())


def importances(
    codes: npt.NDArray[Any], levels: Levels, test_codes: npt.NDArray[Any], test_levels: Levels, *, seed: int = 0
) -> Importances:
    """What each factor's classifier relies on. codes (n, d); levels (n, f), rows of unknown level are left out.

    The seed settles ties between dimensions that split equally well. ValueError as in `stages.scores.sap.accuracies`.
    """
    d, f = codes.shape[1], levels.shape[1]
    found = Importances(np.empty((d, f)), np.empty(f), np.empty(f))
    for j in range(f):
        train, test = levels[:, j] >= 0, test_levels[:, j] >= 0
        if len(np.unique(levels[train, j])) < 2 or not test.any():
            raise ValueError(f"factor {j} needs two levels to train on and a row to test on")
        model = GradientBoostingClassifier(random_state=seed)
        model.fit(codes[train], levels[train, j])
        with np.errstate(invalid="ignore"):  # trees that gain nothing by any split have shares of 0 / 0
            found.matrix[:, j] = np.nan_to_num(np.abs(model.feature_importances_))
        found.train[j] = np.mean(model.predict(codes[train]) == levels[train, j])
        found.test[j] = np.mean(model.predict(test_codes[test]) == test_levels[test, j])
    return found


def disentanglement(matrix: Floats) -> float:
    """In [0, 1], of importances (d, f): 1 when every dimension in use serves one factor."""
    return _weighted(matrix)


def completeness(matrix: Floats) -> float:
    """In [0, 1], of importances (d, f): 1 when every factor is served by one dimension."""
    return _weighted(matrix.T)


def _weighted(rows: Floats) -> float:
    """Mean over rows of 1 − entropy of the row, weighted by the row's sum."""
    if rows.shape[1] < 2:
        raise ValueError(f"{rows.shape[1]} columns of importances; an entropy needs at least 2")
    share = rows + FLOOR
    share = share / share.sum(1, keepdims=True)
    sure = 1 + (share * np.log(share)).sum(1) / np.log(rows.shape[1])
    weight = rows.sum(1) if rows.sum() > 0 else np.ones(len(rows))
    return float(sure @ (weight / weight.sum()))
