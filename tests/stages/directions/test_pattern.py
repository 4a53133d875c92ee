"""Filter → pattern: Haufe's formula on every classifier, and why an edit wants it."""

from typing import Any

import numpy as np
import pytest

from stages.attributes import columns_of
from stages.directions.fit import fit
from stages.directions.pattern import PatternPass
from stages.row_hash import fractions, hash_ids
from stages.rows import HOLDOUT_SALT
from tests.labelled import BOOLS, batch_of, carried, coefficients, directions, faces, reduced, step, uneven

CLASSIFIERS: list[dict[str, Any]] = [
    {"estimator": "ridge", "l2": 1.0},
    {"estimator": "lda", "shrinkage": 0.0},
    {"estimator": "logistic", "l2": 1.0},
    {"estimator": "svm"},
]


@pytest.mark.parametrize("fields", CLASSIFIERS, ids=lambda f: f["estimator"])
@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_pattern_is_haufes_formula(fields: dict[str, Any], holdout: float) -> None:
    latents, labels = faces(700)
    batch = batch_of(latents, labels)
    filters = directions(step(**fields, holdout=holdout), BOOLS, batch)
    patterns = directions(step(**fields, holdout=holdout, pattern=True), BOOLS, batch)
    covariance, mean = np.cov(latents.astype(float).T), latents.mean(0, dtype=float)
    for name in BOOLS:
        w, a = coefficients(filters[name]), coefficients(patterns[name])
        np.testing.assert_allclose(a, covariance @ w / (w @ covariance @ w), rtol=1e-8)
        assert abs(a @ w - 1) < 1e-9
        # On the line through the mean along the pattern, both scores vanish at one point.
        meets = mean - a * (w @ mean + filters[name].intercept)
        assert abs(a @ meets + patterns[name].intercept) < 1e-8
        assert abs(patterns[name].sigma - (latents.astype(float) @ patterns[name].vector).std(ddof=1)) < 1e-9
        assert "pattern of the classifier's filter" in str(patterns[name].message)
        assert patterns[name].standard_error is None


@pytest.mark.parametrize("fields", CLASSIFIERS, ids=lambda f: f["estimator"])
def test_the_pattern_finds_what_the_attribute_moves_where_the_filter_does_not(fields: dict[str, Any]) -> None:
    # A distractor on axis 1 leaks into axis 0, where the attribute acts. The filter subtracts it; an edit must not.
    rng, n = np.random.default_rng(0), 4000
    y, distractor = rng.random(n) < 0.5, rng.standard_normal(n)
    latents = 0.3 * rng.standard_normal((n, 3))
    latents[:, 0] += y + 2 * distractor
    latents[:, 1] += 2 * distractor
    batch = batch_of(latents.astype(np.float32), {"y": y})
    found = directions(step(**fields), {"y": "bool"}, batch)["y"]
    pattern = directions(step(**fields, pattern=True), {"y": "bool"}, batch)["y"]
    assert abs(found.vector[1]) > 0.6
    assert pattern.vector[0] > 0.99


def test_what_held_out_rows_judge_was_made_without_them() -> None:
    latents, labels = faces(300)
    batch, z, rng = batch_of(latents, labels), latents.astype(float), np.random.default_rng(0)
    (column,) = columns_of({"young": "bool"}, {})
    stored, trial = rng.normal(size=(2, 1, latents.shape[1]))
    stage = PatternPass((column,), stored, trial, z.mean(0), 0.3)
    everything, training = reduced(stage, list(uneven(batch, 1)))
    kept = fractions(hash_ids(batch.column("id")), HOLDOUT_SALT) >= 0.3
    assert everything.n == 300 and training.n == kept.sum() < 300
    for moments, rows, unit in ((everything, z, stored), (training, z[kept], trial)):
        off = rows - rows.mean(0)
        np.testing.assert_allclose(moments.zy, off.T @ (off @ unit.T), rtol=1e-9, atol=1e-9)


def test_any_split_gives_the_same() -> None:
    latents, labels = faces(400)
    batch = batch_of(latents, labels)
    asked = step(estimator="lda", pattern=True)
    whole, split = directions(asked, BOOLS, batch), directions(asked, BOOLS, splits=list(uneven(batch, 3)))
    for name in BOOLS:
        np.testing.assert_allclose(coefficients(split[name]), coefficients(whole[name]), rtol=1e-10)


def test_no_pattern_without_a_filter() -> None:
    latents, _ = faces(100)
    _, passes = carried(
        fit(step(estimator="lda", pattern=True), {"y": "bool"}, dim=8), [[batch_of(latents, {"y": np.ones(100, bool)})]]
    )
    assert "PatternPass" not in passes
