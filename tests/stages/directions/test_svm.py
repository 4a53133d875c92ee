"""Linear SVM by distributed passes: scikit-learn's LinearSVC, on any split, whether or not the rows fit in a sample."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.svm import LinearSVC

from stages import sample
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.directions.losses import Loss
from tests.labelled import BOOLS, batch_of, carried, coefficients, directions, faces, step, uneven


def optimum(latents: np.ndarray, y: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """LinearSVC's, with an intercept so far out of the penalty's sight that it is free, and about the mean for its sake."""
    wide = latents.astype(float)
    mean = wide.mean(0)
    model = LinearSVC(C=1 / l2, dual=False, intercept_scaling=1e4, tol=1e-13, max_iter=100_000).fit(wide - mean, y)
    return model.coef_[0], float(model.intercept_[0] - model.coef_[0] @ mean)


def gradient(direction: Direction, latents: np.ndarray, y: np.ndarray, l2: float) -> float:
    """Largest entry of the objective's gradient, relative to the sum of what is added up in it."""
    w = coefficients(direction)
    s = np.where(y, 1.0, -1.0)
    pull = -2 * s * np.maximum(0, 1 - s * (latents.astype(float) @ w + direction.intercept))
    x = np.column_stack([latents.astype(float) - latents.mean(0, dtype=float), np.ones(len(y))])
    found = x.T @ pull + l2 * np.append(w, 0)
    return float((np.abs(found) / (np.abs(x).T @ np.abs(pull) + 1e-30)).max())


@pytest.mark.parametrize("l2", [0.01, 1.0, 300.0])
def test_svm_is_scikit_learns(l2: float) -> None:
    latents, labels = faces(1200)
    found = directions(step(estimator="svm", l2=l2), BOOLS, batch_of(latents, labels))
    for name in BOOLS:
        w, b = optimum(latents, labels[name], l2)
        np.testing.assert_allclose(coefficients(found[name]), w, atol=1e-6 * np.abs(w).max())
        assert abs(found[name].intercept - b) < 1e-5 * (1 + abs(b))
        assert gradient(found[name], latents, labels[name], l2) < 1e-6
        assert found[name].standard_error is None and found[name].auc > 0.7


def test_svm_by_passes_is_scikit_learns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MAX_ROWS", 400)
    latents, labels = faces(4000)
    batch = batch_of(latents, labels)
    found, passes = carried(fit(step(estimator="svm"), BOOLS, dim=8), [[batch]])
    assert passes.count("LogisticPass") > 1
    for direction in found:
        w, _ = optimum(latents, labels[direction.attribute], 1.0)
        np.testing.assert_allclose(coefficients(direction), w, atol=1e-6 * np.abs(w).max())
    split = directions(step(estimator="svm"), BOOLS, splits=list(uneven(batch, 5)))
    for direction in found:
        np.testing.assert_allclose(split[direction.attribute].vector, direction.vector, atol=1e-6)


def test_parted_classes_have_an_optimum() -> None:
    latents, _ = faces(300)
    y = latents[:, 0] > np.median(latents[:, 0])
    latents[y, 0] += 3
    found = directions(step(estimator="svm"), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    w, _ = optimum(latents, y, 1.0)
    np.testing.assert_allclose(coefficients(found), w, atol=1e-6 * np.abs(w).max())
    assert found.auc == 1.0


@pytest.mark.parametrize("loss", list(Loss))
def test_derivatives_fit_together(loss: Loss) -> None:
    value = {
        Loss.LOGISTIC: lambda m: float(np.log1p(np.exp(-m)).sum()),
        Loss.SQUARED_HINGE: lambda m: float((np.maximum(0, 1 - m) ** 2).sum()),
    }[loss]
    at = np.array([-30.0, -2.0, 0.0, 0.5, 0.99, 1.5, 30.0])
    for m in at:
        assert check_grad(value, lambda x: loss.derivative(x.copy()), [m]) < 1e-6
        assert check_grad(lambda x: float(loss.derivative(x.copy())[0]), lambda x: loss.curvature(x), [m]) < 1e-6
