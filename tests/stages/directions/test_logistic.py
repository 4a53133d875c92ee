"""Logistic directions: scikit-learn's optimum to 1e-6, from small data and by passes, and typed where there is none."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from schemas.steps import FitStep
from stages.attributes import columns_of
from stages.directions.curvature import Curvature, estimated_hessian
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.directions.logistic_pass import class_signs, slope
from stages.directions.losses import logistic_curvature
from stages.directions.shared_curvature import SharedCurvature
from stages.row_hash import fractions, hash_ids
from stages.rows import HOLDOUT_SALT, read_blocks
from stages.sample import MAX_ROWS, Sample
from tests.labelled import BOOLS, batch_of, carried, chunks, coefficients, directions, faces, uneven

MANY = MAX_ROWS + 24_000
"""More rows than a sample holds: only passes over all of them find the optimum."""


def step(**fields: Any) -> FitStep:
    return FitStep(**{"name": "fit", "estimator": "logistic", "l2": 1.0} | fields)


def truth(latents: np.ndarray, y: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """scikit-learn's optimum, by its solver that reaches it."""
    found = LogisticRegression(C=1 / l2 if l2 else np.inf, solver="newton-cholesky", tol=1e-12, max_iter=500)
    found.fit(latents.astype(float), y)
    return found.coef_[0], float(found.intercept_[0])


def equal(found: Direction, latents: np.ndarray, y: np.ndarray, l2: float) -> None:
    w, b = truth(latents, y, l2)
    scale = np.abs(w).max()
    assert np.abs(coefficients(found) - w).max() <= 1e-6 * max(scale, 1)
    assert abs(found.intercept - b) <= 1e-6 * max(abs(b), scale, 1)


@pytest.mark.parametrize("l2", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_small_data_equal_scikit_learn(l2: float, holdout: float) -> None:
    latents, labels = faces(1500)
    found = directions(step(l2=l2, holdout=holdout), BOOLS, batch_of(latents, labels))
    for name in BOOLS:
        equal(found[name], latents, labels[name], l2)


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Uneven scales, heavy tails, correlated latents off centre; a common, a strong, a rare and a void attribute."""
    rng = np.random.default_rng(0)
    latents = rng.standard_t(4, (MANY, 10)) @ (np.eye(10) + 0.4 * rng.standard_normal((10, 10)))
    latents = latents * np.logspace(-1, 1, 10) + 7
    standard = (latents - latents.mean(0)) / latents.std(0)
    score = standard @ rng.standard_normal((10, 3))
    chance = rng.random((MANY, 3))
    labels = {
        "common": chance[:, 0] < 1 / (1 + np.exp(-0.5 * score[:, 0])),
        "strong": chance[:, 1] < 1 / (1 + np.exp(-4.0 * score[:, 1])),
        "rare": chance[:, 2] < 1 / (1 + np.exp(6.5 - score[:, 2])),
        "void": rng.random(MANY) < 0.3,
    }
    return latents.astype(np.float32), labels


@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_passes_reach_scikit_learns_optimum(many: tuple[np.ndarray, dict[str, np.ndarray]], l2: float) -> None:
    latents, labels = many
    types = dict.fromkeys(labels, "bool")
    found, passes = carried(fit(step(l2=l2), types, dim=10), [chunks(batch_of(latents, labels), 40_000)])
    for direction in found:
        equal(direction, latents, labels[direction.attribute], l2)
    assert passes[0] == "Survey" and passes[-1] == "Scoring"
    assert len(passes) <= 2 + 12


def test_half_precision_latents(many: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    latents, labels = many
    half = latents[:70_000].astype(np.float16)
    found = directions(step(), {"common": "bool"}, batch_of(half, {"common": labels["common"][:70_000]}))
    equal(found["common"], half, labels["common"][:70_000], 1.0)


def test_missing_labels_are_left_out_attribute_by_attribute() -> None:
    latents, labels = faces(900)
    gaps = {name: np.random.default_rng(i).random(900) < 0.3 for i, name in enumerate(BOOLS)}
    found = directions(step(), BOOLS, batch_of(latents, {n: pa.array(labels[n], mask=gaps[n]) for n in BOOLS}))
    for name in BOOLS:
        equal(found[name], latents[~gaps[name]], labels[name][~gaps[name]], 1.0)
        assert found[name].n == (~gaps[name]).sum()


def test_categories_and_standard_errors() -> None:
    latents, _ = faces(2000)
    hair = np.where(latents[:, 0] + np.random.default_rng(1).standard_normal(2000) > 5, "red", "black")
    found = directions(step(l2=0.0), {"hair": "category"}, batch_of(latents, {"hair": hair}))["hair=red"]
    equal(found, latents, hair == "red", 0.0)
    x = np.column_stack([latents, np.ones(2000)]).astype(float)
    p = 1 / (1 + np.exp(-(x[:, :-1] @ coefficients(found) + found.intercept)))
    expected = np.sqrt(np.diagonal(np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)))[:-1]
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-3)


def test_standard_errors_of_passes_are_near(many: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    latents, labels = many
    found = directions(step(l2=0.0), dict.fromkeys(labels, "bool"), *chunks(batch_of(latents, labels), 40_000))
    for name, y in labels.items():
        x = np.column_stack([latents, np.ones(MANY)]).astype(float)
        p = 1 / (1 + np.exp(-(x[:, :-1] @ coefficients(found[name]) + found[name].intercept)))
        expected = np.sqrt(np.diagonal(np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)))[:-1]
        np.testing.assert_allclose(found[name].standard_error, expected, rtol=0.05, err_msg=f"{name} {y.mean()}")


def test_held_out_auc_is_of_a_fit_without_those_rows() -> None:
    from sklearn.metrics import roc_auc_score

    latents, labels = faces(800)
    batch = batch_of(latents, labels)
    out = fractions(hash_ids(batch.column("id")), HOLDOUT_SALT) < 0.3
    w, _ = truth(latents[~out], labels["young"][~out], 1.0)
    found = directions(step(holdout=0.3), BOOLS, batch)["young"]
    assert abs(found.auc - roc_auc_score(labels["young"][out], latents[out].astype(float) @ w)) < 2e-3


def test_noise_is_not_learned_into_the_auc() -> None:
    rng = np.random.default_rng(2)
    latents, y = rng.standard_normal((400, 60)).astype(np.float32), rng.random(400) < 0.5
    found = directions(step(holdout=0.4), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    assert found.auc_low < 0.5 < found.auc_high
    in_sample = LogisticRegression(C=1.0).fit(latents, y).score(latents, y)
    assert in_sample > 0.65


@pytest.mark.parametrize("seed", range(3))
def test_any_split_gives_the_same(seed: int) -> None:
    latents, labels = faces(400)
    columns = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(400) % 7 == 0)}
    batch = batch_of(latents, columns)
    whole = directions(step(), BOOLS, batch)
    split = directions(step(), BOOLS, splits=list(uneven(batch, seed)))
    for name in BOOLS:
        np.testing.assert_allclose(split[name].vector, whole[name].vector, atol=1e-9)
        np.testing.assert_allclose(split[name].standard_error, whole[name].standard_error, rtol=1e-4)
        assert abs(split[name].auc - whole[name].auc) < 1e-6


def test_any_split_gives_the_same_by_passes(many: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    latents, labels = many
    types, batch = dict.fromkeys(labels, "bool"), batch_of(latents, labels)
    whole = directions(step(), types, batch)
    split = directions(step(), types, splits=[chunks(piece, 9_000) for piece in chunks(batch, 25_000)][::-1])
    for name in types:
        np.testing.assert_allclose(split[name].vector, whole[name].vector, atol=1e-6)
        assert abs(split[name].auc - whole[name].auc) < 1e-6


def separable(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    latents = rng.standard_normal((n, 4))
    y = latents @ [1, -2, 0.5, 0] > 0.2
    latents[y, 0] += 0.4
    return latents.astype(np.float32), y


@pytest.mark.parametrize("n", [200, MANY], ids=["small", "by passes"])
def test_separable_classes_are_told_with_the_fix(n: int) -> None:
    latents, y = separable(n)
    fine = np.random.default_rng(4).random(n) < 0.5
    columns, types = {"y": y, "fine": fine}, {"y": "bool", "fine": "bool"}
    found = directions(step(l2=0.0), types, *chunks(batch_of(latents, columns), 30_000))
    assert (found["y"].status, found["fine"].status) == ("separable", "ok")
    assert found["y"].vector is None and "set l2 above 0" in str(found["y"].message)
    penalised = directions(step(l2=1.0), types, *chunks(batch_of(latents, columns), 30_000))
    equal(penalised["y"], latents, y, 1.0)


@pytest.mark.parametrize("ties", [(1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("repeats", [10, MANY // 5], ids=["small", "by passes"])
def test_quasi_separable_classes_never_pass_as_converged(ties: tuple[int, int], repeats: int) -> None:
    # Both classes share the point x = 0 and part everywhere else: no plane parts them, yet the optimum is at infinity.
    latents = np.array([-2, -1, 1, 2, *([0] * sum(ties))] * repeats, np.float32)[:, None]
    y = np.array([0, 0, 1, 1, *np.repeat([0, 1], ties)] * repeats, bool)
    found = directions(step(l2=0.0, holdout=0), {"y": "bool"}, *chunks(batch_of(latents, {"y": y}), 60_000))["y"]
    assert found.status == "not_converged" and found.vector is None


def test_a_class_too_rare_for_the_sample() -> None:
    rng = np.random.default_rng(10)
    latents = rng.standard_normal((2 * MANY, 5)).astype(np.float32)
    y = np.zeros(2 * MANY, bool)
    y[rng.choice(np.flatnonzero(latents[:, 0] > 1), 9, replace=False)] = True
    found = directions(step(), {"y": "bool"}, *chunks(batch_of(latents, {"y": y}), 60_000))["y"]
    equal(found, latents, y, 1.0)


def test_constant_and_repeated_latents_do_no_harm() -> None:
    latents, labels = faces(600)
    wide = np.column_stack([latents, np.full(600, 3.0), latents[:, 0]]).astype(np.float32)
    found = directions(step(), BOOLS, batch_of(wide, labels))
    for name in BOOLS:
        equal(found[name], wide, labels[name], 1.0)
        assert abs(coefficients(found[name])[8]) < 1e-9


def test_latents_too_wide_for_a_hessian_of_their_own() -> None:
    rng = np.random.default_rng(5)
    latents, y = rng.standard_normal((300, 4200)).astype(np.float32), rng.random(300) < 0.5
    latents[y, :40] += 0.5
    found = directions(step(l2=30.0, holdout=0), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    # The optimum lies in the span of the rows: solve it there, where it is small.
    basis = np.linalg.qr((latents - latents.mean(0)).T.astype(float))[0]
    w, _ = truth(latents @ basis, y, 30.0)
    np.testing.assert_allclose(coefficients(found), basis @ w, atol=1e-6)
    assert found.standard_error is None


def test_slope_is_the_losss() -> None:
    rng = np.random.default_rng(6)
    x, y, known = rng.standard_normal((50, 3)), rng.random((50, 2)) < 0.5, rng.random((50, 2)) < 0.8
    weights = rng.standard_normal((4, 2))

    def loss(w: np.ndarray) -> float:
        margin = np.where(y, 1, -1) * (x @ w[:-1] + w[-1])
        return float((np.logaddexp(0, -margin) * known).sum())

    numeric = np.zeros_like(weights)
    for i in np.ndindex(weights.shape):
        nudge = np.zeros_like(weights)
        nudge[i] = 1e-6
        numeric[i] = (loss(weights + nudge) - loss(weights - nudge)) / 2e-6
    found = slope(x, class_signs(y, known, np.float64), weights, may_part=True)
    np.testing.assert_allclose(found.gradient, numeric, atol=1e-7)
    far = slope(x * 1e6, class_signs(y, known, np.float64), weights * 1e6, may_part=False)
    assert np.isfinite(far.gradient).all()


def test_estimated_hessian_is_near_the_whole() -> None:
    rng = np.random.default_rng(7)
    n, d = 60_000, 40
    x = rng.standard_normal((n, d)).astype(np.float32)
    q = logistic_curvature(3 * x[:, 0])
    hashes = hash_ids(pa.array([f"{i}" for i in range(n)]))
    whole = np.column_stack([x, np.ones(n)]) * np.sqrt(q)[:, None]
    exact = (whole.T @ whole).astype(float)
    found = estimated_hessian(x, q, hashes, total=float(q.sum()), rows=64)
    root = np.linalg.inv(np.linalg.cholesky(exact))
    eigenvalues = np.linalg.eigvalsh(root @ found @ root.T)
    assert eigenvalues.min() > 0.85 and eigenvalues.max() < 1.15
    # All rows at once, or block by block: the same rows are taken.
    blocks = sum(
        estimated_hessian(x[s], q[s], hashes[s], total=float(q.sum()), rows=64) for s in (slice(0, 999), slice(999, n))
    )
    np.testing.assert_allclose(blocks, found, rtol=1e-4, atol=1e-2)


def test_curvatures_solve() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((500, 6)).astype(np.float32)
    x -= x.mean(0)
    whole = np.column_stack([x, np.ones(500)]).astype(float)
    hessian, penalty = whole.T @ whole / 4, np.append(np.full(6, 2.0), 0)
    gradient = rng.standard_normal((7, 3))
    expected = np.linalg.solve(hessian + np.diag(penalty), gradient)
    of = np.zeros(3, np.int64)
    np.testing.assert_allclose(Curvature([hessian], penalty).solve(gradient, of), expected, rtol=1e-4)
    shared = SharedCurvature.of_sample(x, np.full((500, 1), 0.25, np.float32), penalty, scale=1.0)
    np.testing.assert_allclose(shared.solve(gradient, of), expected, rtol=0.1, atol=1e-3)


def test_a_sample_does_not_depend_on_splits() -> None:
    rng = np.random.default_rng(9)
    n = MAX_ROWS * 2
    batch = batch_of(rng.standard_normal((n, 2)).astype(np.float32), {"y": rng.random(n) < 0.5})
    columns = columns_of({"y": "bool"}, {})

    def sampled(splits: list[list[pa.RecordBatch]]) -> Sample:
        whole = Sample.empty(2, columns=1)
        for split in splits:
            part = Sample.empty(2, columns=1)
            for block in (b for piece in split for b in read_blocks(piece, columns, holdout=0)):
                part.add(block)
            whole = whole.merged(part)
        return whole

    whole, split = sampled([[batch]]).rows(), sampled([chunks(p, 7000) for p in chunks(batch, 30_000)][::-1]).rows()
    assert len(whole) == MAX_ROWS
    np.testing.assert_array_equal(whole.hashes, split.hashes)
    np.testing.assert_array_equal(whole.latents, split.latents)
    np.testing.assert_array_equal(whole.classes, split.classes)
