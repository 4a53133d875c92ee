"""Ridge and LDA from one statistic: scikit-learn's, the same on any split, each label on the rows that know it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from stages.directions import row_sets
from stages.directions.fit import fit
from stages.directions.ridge import PENALTIES
from stages.directions.row_sets import FOLD_SALT
from stages.row_hash import fractions, hash_ids
from tests.labelled import BOOLS, batch_of, carried, coefficients, directions, faces, same, step, uneven

BOTH: list[dict[str, Any]] = [
    {"estimator": "ridge"},
    {"estimator": "ridge", "l2": 3.0},
    {"estimator": "lda"},
    {"estimator": "lda", "shrinkage": 0.1},
]
ids = [" ".join(map(str, fields.values())) for fields in BOTH]


@pytest.mark.parametrize("l2", [0.0, 25.0])
def test_ridge_is_scikit_learns(l2: float) -> None:
    latents, labels = faces(1500)
    age = np.random.default_rng(0).normal(40, 9, 1500) + 3 * latents[:, 4]
    types = BOOLS | {"age": "float"}
    found = directions(step(estimator="ridge", l2=l2), types, batch_of(latents, labels | {"age": age}))
    wide = latents.astype(float)
    for name, y in (labels | {"age": age}).items():
        truth = Ridge(alpha=l2, solver="svd").fit(wide, y.astype(float))
        np.testing.assert_allclose(coefficients(found[name]), truth.coef_, rtol=1e-9, atol=1e-11)
        assert found[name].message is None
    assert abs(found["age"].intercept - truth.intercept_) < 1e-8
    assert found["age"].auc is None and found["smiling"].auc > 0.7


def test_without_a_penalty_standard_errors_are_the_textbooks() -> None:
    latents, labels = faces(800)
    found = directions(step(estimator="ridge", l2=0.0), BOOLS, batch_of(latents, labels))["young"]
    x, y = np.column_stack([np.ones(800), latents.astype(float)]), labels["young"].astype(float)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    expected = np.sqrt(np.diagonal(np.linalg.inv(x.T @ x))[1:] * (residual @ residual) / (800 - 9))
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-9)


def test_cross_validation_picks_the_penalty_that_scikit_learn_would() -> None:
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((150, 60)).astype(np.float32)
    types, y = {"age": "float", "y": "bool"}, latents[:, 0] + 2 * rng.standard_normal(150)
    batch = batch_of(latents, {"age": y, "y": y > 0})
    wide, fold = latents.astype(float), (fractions(hash_ids(batch.column("id")), FOLD_SALT) * 4).astype(int)
    grid = np.array(PENALTIES) * ((wide - wide.mean(0)) ** 2).sum() / 60
    found = directions(step(estimator="ridge", folds=4, holdout=0), types, batch)
    for name, target in (("age", y), ("y", (y > 0).astype(float))):
        guesses = [cross_val_predict(Ridge(alpha=a), wide, target, cv=PredefinedSplit(fold)) for a in grid]
        errors = [((target - guess) ** 2).sum() for guess in guesses]
        assert 0 < np.argmin(errors) < len(grid) - 1
        best = Ridge(alpha=grid[np.argmin(errors)]).fit(wide, target)
        np.testing.assert_allclose(coefficients(found[name]), best.coef_, rtol=1e-8, atol=1e-11)
        assert f"l2 {best.alpha:.3g}, the best in 4-fold" in str(found[name].message)


def test_a_best_penalty_at_the_edge_is_told() -> None:
    latents = np.random.default_rng(2).standard_normal((60, 4)).astype(np.float32)
    types, noiseless = {"y": "float"}, latents @ np.array([1.0, 2.0, 0.0, 3.0])
    found = directions(step(estimator="ridge"), types, batch_of(latents, {"y": noiseless}))["y"]
    assert "edge of the tried penalties" in str(found.message)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
def test_lda_is_scikit_learns(shrinkage: float, solver: str) -> None:
    latents, labels = faces(900)
    latents[:, 2] *= 40
    found = directions(step(estimator="lda", shrinkage=shrinkage), BOOLS, batch_of(latents, labels))
    for name in BOOLS:
        truth = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage).fit(latents.astype(float), labels[name])
        np.testing.assert_allclose(coefficients(found[name]), truth.coef_[0], rtol=1e-8)
        odds = np.log(labels[name].mean() / (1 - labels[name].mean()))
        assert abs(found[name].intercept - (truth.intercept_[0] - odds)) < 1e-8 * abs(truth.intercept_[0]) + 1e-9


def test_ledoit_wolf_is_scikit_learns_of_the_rows_within_classes() -> None:
    latents, labels = faces(120, d=30)
    latents[:, 2] *= 40
    found = directions(step(estimator="lda", holdout=0), BOOLS, batch_of(latents, labels))
    for name in BOOLS:
        x, y = latents.astype(float), labels[name]
        within = x - np.where(y[:, None], x[y].mean(0), x[~y].mean(0))
        scale = within.std(0)
        covariance, share = sklearn_ledoit_wolf(within / scale, assume_centered=True)
        assert 0.02 < share < 0.98
        truth = np.linalg.solve(covariance * np.outer(scale, scale), x[y].mean(0) - x[~y].mean(0))
        np.testing.assert_allclose(coefficients(found[name]), truth, rtol=1e-9)
        assert f"Ledoit-Wolf shrinkage {share:.3g}" in str(found[name].message)


def test_shrinkage_earns_its_keep_where_rows_are_few() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(140) < 70
    latents = (rng.standard_normal((140, 100)) + np.where(y[:, None], np.eye(100)[0] * 2, 0)).astype(np.float32)
    batch = batch_of(latents, {"y": y})
    auto, none = (
        directions(step(estimator="lda", shrinkage=s, holdout=0), {"y": "bool"}, batch)["y"] for s in ("auto", 0.0)
    )
    assert auto.vector[0] > none.vector[0] + 0.1


@pytest.mark.parametrize("fields", BOTH, ids=ids)
def test_a_label_stands_on_the_rows_that_know_it(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(600)
    rng = np.random.default_rng(4)
    gone = {name: rng.random(600) < share for name, share in zip(BOOLS, (0.3, 0.1, 0.0), strict=True)}
    gaps = {name: pa.array(labels[name], mask=gone[name]) for name in BOOLS}
    names = np.array([f"{i}" for i in range(600)])
    both = directions(step(**fields), BOOLS, batch_of(latents, gaps, ids=names))
    for name in BOOLS:
        kept = ~gone[name]
        alone = directions(
            step(**fields), {name: "bool"}, batch_of(latents[kept], {name: labels[name][kept]}, ids=names[kept])
        )[name]
        np.testing.assert_allclose(both[name].vector, alone.vector, atol=1e-10)
        assert both[name].n == kept.sum()
        assert abs(both[name].auc - alone.auc) < 1e-3  # bins lie about the middle of all rows, labelled or not
    # The same when the ways to be missing outgrow memory, and columns are taken one by one.
    one_set = (2 if "l2" in fields or fields["estimator"] == "lda" else 6) * 8 * 8 * 8
    monkeypatch.setattr(row_sets, "MAX_BYTES", one_set)
    tight, passes = carried(fit(step(**fields), BOOLS, dim=8), [[batch_of(latents, gaps, ids=names)]])
    assert passes.count("RowSetPass") == 1 + len(BOOLS)
    for direction in tight:
        np.testing.assert_allclose(direction.vector, both[direction.attribute].vector, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), fields=st.sampled_from(BOTH), far=st.sampled_from([0.0, 1e6]))
@settings(max_examples=16)
def test_any_split_gives_the_same(seed: int, fields: dict[str, Any], far: float) -> None:
    latents, labels = faces(300)
    # Steps of 1/16 stay exact in float32 at an offset of a million.
    latents = np.round(latents * 16) / 16 + np.float32(far)
    columns = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(300) % 7 == 0)}
    batch = batch_of(latents.astype(np.float32), columns)
    whole = directions(step(**fields), BOOLS, batch)
    split = directions(step(**fields), BOOLS, splits=list(uneven(batch, seed)))
    for name in BOOLS:
        a, b = whole[name], split[name]
        np.testing.assert_allclose(b.vector, a.vector, atol=1e-10)
        np.testing.assert_allclose(b.raw_norm, a.raw_norm, rtol=1e-10)
        assert (b.status, b.n, b.auc, b.message) == (a.status, a.n, a.auc, a.message)
        if far == 0:
            same(a, b)


@pytest.mark.parametrize("fields", BOTH, ids=ids)
def test_passes(fields: dict[str, Any]) -> None:
    latents, labels = faces(300)
    light = ["FourthPowers"] if fields == {"estimator": "lda"} else []
    _, passes = carried(fit(step(**fields), BOOLS, dim=8), [[batch_of(latents, labels)]])
    assert passes == ["RowSetPass", *light, "Scoring"]
    one, passes = carried(fit(step(**fields, holdout=0), BOOLS, dim=8), [[batch_of(latents, labels)]])
    assert passes == ["RowSetPass", *light]
    for direction in one:
        scores, y = latents.astype(float) @ direction.vector, labels[direction.attribute]
        assert abs(direction.sigma - scores.std(ddof=1)) < 1e-9
        n, m = y.sum(), (~y).sum()
        pooled = np.sqrt(((n - 1) * scores[y].var(ddof=1) + (m - 1) * scores[~y].var(ddof=1)) / (n + m - 2))
        assert abs(direction.separation - (scores[y].mean() - scores[~y].mean()) / pooled) < 1e-9


@pytest.mark.parametrize("fields", BOTH, ids=ids)
def test_constant_and_doubled_latents_take_the_least_coefficients(fields: dict[str, Any]) -> None:
    latents, labels = faces(400)
    wider = np.column_stack([latents, latents[:, 0], np.full(400, 7.0)]).astype(np.float32)
    found = directions(step(**fields), BOOLS, batch_of(wider, labels))["smiling"]
    assert found.status == "ok" and np.isfinite(found.vector).all()
    np.testing.assert_allclose(found.vector[8], found.vector[0], atol=1e-9)
    assert abs(found.vector[9]) < 1e-9
