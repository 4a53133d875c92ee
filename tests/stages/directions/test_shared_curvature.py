"""Where memory holds one matrix and not one an attribute: the same optima, in few passes, and equal on any split."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from stages import sample
from stages.attributes import columns_of
from stages.directions import curvature
from stages.directions.fit import fit
from stages.directions.losses import Loss
from stages.directions.shared_curvature import SharedCurvature, SharedCurvaturePass
from tests.labelled import BOOLS, batch_of, carried, chunks, coefficients, reduced, step, uneven

ROWS, DIM = 2400, 150


@pytest.fixture(scope="module")
def wide() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A third of the coordinates has collapsed, the others are correlated and off centre; 16 rows a coordinate."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((ROWS, DIM)) @ (np.eye(DIM) + 0.4 * rng.standard_normal((DIM, DIM)) / np.sqrt(DIM))
    latents[:, ::3] *= 1e-3
    score = latents @ rng.standard_normal((DIM, 3)) / 5
    labels = rng.random((ROWS, 3)) < 1 / (1 + np.exp(-score))
    return (latents + 2).astype(np.float32), dict(zip(BOOLS, labels.T, strict=True))


@pytest.mark.parametrize("l2", [0.0, 1.0, 100.0])
def test_few_passes_reach_the_optima(
    wide: tuple[np.ndarray, dict[str, np.ndarray]], l2: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, labels = wide
    monkeypatch.setattr(sample, "MAX_ROWS", 100)  # fewer rows than coordinates
    monkeypatch.setattr(curvature, "MAX_BYTES", 8 * (DIM + 1) ** 2)
    asked = step(estimator="logistic", l2=l2)
    found, passes = carried(fit(asked, BOOLS, dim=DIM), [chunks(batch_of(latents, labels), 700)])
    for direction in found:
        assert direction.status == "ok", direction.message
        truth = LogisticRegression(C=1 / l2 if l2 else np.inf, solver="newton-cholesky", tol=1e-12, max_iter=500)
        expected = truth.fit(latents.astype(float), labels[direction.attribute]).coef_[0]
        np.testing.assert_allclose(coefficients(direction), expected, atol=1e-6 * np.abs(expected).max())
    assert passes.count("SharedCurvaturePass") == 1
    assert passes.count("LogisticPass") <= 30


@pytest.mark.parametrize("loss", list(Loss))
def test_the_pass_sums_what_it_says_on_any_split(wide: tuple[np.ndarray, dict[str, np.ndarray]], loss: Loss) -> None:
    latents, labels = wide
    gaps = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(ROWS) % 5 == 0)}
    batch, columns = batch_of(latents, gaps), columns_of(BOOLS, {})
    weights = np.random.default_rng(1).standard_normal((DIM + 1, 3)) / 20
    asked = SharedCurvaturePass(columns, weights, np.full(DIM, 2.0), 0.2, loss, expected=1.0)
    whole = reduced(asked, [[batch]])
    x = np.column_stack([latents.astype(float) - 2, np.ones(ROWS)])
    q = np.zeros((3, ROWS))
    for i, column in enumerate(columns):
        known = np.arange(ROWS) % 5 != 0 if column.name == "smiling" else np.ones(ROWS, bool)
        sign = np.where(labels[column.name], 1, -1)
        q[i] = loss.curvature(sign * (x @ weights[:, i])) * known
    np.testing.assert_allclose(whole.totals, q.sum(1), rtol=1e-5)
    np.testing.assert_allclose(whole.hessian, (x.T @ (x * q.mean(0)[:, None]))[:-1, :-1], rtol=1e-3, atol=1e-3)
    split = reduced(asked, list(uneven(batch, 3)))
    np.testing.assert_allclose(split.hessian, whole.hessian, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("l2", [0.0, 3.0])
def test_one_matrix_solves_for_all_in_proportion(l2: float) -> None:
    rng = np.random.default_rng(2)
    root = rng.standard_normal((40, 6)) * np.logspace(0, -4, 6)
    hessian, penalty = root.T @ root, np.append(np.full(6, l2), 0.0)
    totals = np.array([1.0, 3.0])
    found = SharedCurvature.of_rows(hessian, totals, penalty).solve(np.ones((7, 2)), np.arange(2))
    for i, share in enumerate(totals / 2):
        expected = np.linalg.solve(share * hessian + np.diag(penalty[:-1]), np.ones(6))
        np.testing.assert_allclose(found[:-1, i], expected, rtol=1e-4)
        assert found[-1, i] == pytest.approx(1 / totals[i])
