"""Closed-form directions: equal to scikit-learn's, the same on any split, honest where they cannot be had."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import roc_auc_score

from stages.directions.fit import fit
from stages.row_hash import fractions, hash_ids
from stages.rows import HOLDOUT_SALT
from tests.labelled import BOOLS, batch_of, carried, chunks, coefficients, directions, faces, same, step, uneven

CLOSED = ("mean_difference", "balanced_mean_difference", "ols")


def design(labels: dict[str, np.ndarray]) -> np.ndarray:
    return np.column_stack(list(labels.values())).astype(float)


def test_ols_is_scikit_learns() -> None:
    latents, labels = faces()
    found = directions(step(), BOOLS, batch_of(latents, labels))
    truth = LinearRegression().fit(design(labels), latents.astype(float)).coef_.T
    np.testing.assert_allclose([coefficients(found[a]) for a in BOOLS], truth, atol=1e-10)


def test_ols_standard_errors_are_the_textbooks() -> None:
    latents, labels = faces()
    x = np.column_stack([np.ones(len(latents)), design(labels)])
    residual = latents - x @ np.linalg.lstsq(x, latents.astype(float), rcond=None)[0]
    variance = (residual**2).sum(0) / (len(x) - x.shape[1])
    expected = np.sqrt(np.outer(np.diagonal(np.linalg.inv(x.T @ x))[1:], variance))
    found = directions(step(), BOOLS, batch_of(latents, labels))
    np.testing.assert_allclose([found[a].standard_error for a in BOOLS], expected, rtol=1e-9)


def test_ridge_is_scikit_learns() -> None:
    latents, labels = faces(500)
    found = directions(step(l2=37.0), BOOLS, batch_of(latents, labels))
    truth = Ridge(alpha=37.0).fit(design(labels), latents.astype(float)).coef_.T
    np.testing.assert_allclose([coefficients(found[a]) for a in BOOLS], truth, atol=1e-10)


def test_numbers_are_regressed_too() -> None:
    latents, labels = faces()
    age, stars = np.random.default_rng(1).normal(40, 10, len(latents)), np.arange(len(latents)) % 5
    latents = (latents + age[:, None] * 0.05).astype(np.float32)
    columns = {"smiling": labels["smiling"], "age": age, "stars": stars}
    types = {"smiling": "bool", "age": "float", "stars": "int"}
    found = directions(step(), types, batch_of(latents, columns))
    truth = LinearRegression().fit(design(columns), latents.astype(float)).coef_.T
    np.testing.assert_allclose([coefficients(found[a]) for a in types], truth, atol=1e-10)
    assert (found["age"].auc, found["age"].separation, found["age"].n_positive, found["age"].intercept) == (None,) * 4
    assert found["age"].sigma and found["age"].n == len(latents)


def test_category_is_one_value_against_the_rest() -> None:
    latents, labels = faces()
    hair = np.array(["black", "blond", "red"])[np.random.default_rng(2).integers(0, 3, len(latents))]
    latents[hair == "red", 4] += 2
    types = {"smiling": "bool", "hair": "category"}
    batch = batch_of(latents, {"smiling": labels["smiling"], "hair": hair})
    found = directions(step(), types, batch)
    assert list(found) == ["smiling", "hair=black", "hair=blond", "hair=red"]
    for value in ("black", "blond", "red"):
        x = np.column_stack([hair == value, labels["smiling"]]).astype(float)
        truth = LinearRegression().fit(x, latents.astype(float)).coef_[:, 0]
        np.testing.assert_allclose(coefficients(found[f"hair={value}"]), truth, atol=1e-10)
    x = np.column_stack([labels["smiling"], hair == "blond", hair == "red"]).astype(float)
    truth = LinearRegression().fit(x, latents.astype(float)).coef_[:, 0]
    np.testing.assert_allclose(coefficients(found["smiling"]), truth, atol=1e-10)
    means = directions(step(estimator="mean_difference"), types, batch)
    truth = latents[hair == "red"].mean(0, dtype=float) - latents[hair != "red"].mean(0, dtype=float)
    np.testing.assert_allclose(coefficients(means["hair=red"]), truth, atol=1e-10)


def test_mean_difference_and_its_error_are_numpys() -> None:
    latents, labels = faces()
    found = directions(step(estimator="mean_difference"), BOOLS, batch_of(latents, labels))["glasses"]
    wide = latents.astype(float)
    with_glasses, without = wide[labels["glasses"]], wide[~labels["glasses"]]
    np.testing.assert_allclose(coefficients(found), with_glasses.mean(0) - without.mean(0), atol=1e-11)
    welch = np.sqrt(with_glasses.var(0, ddof=1) / len(with_glasses) + without.var(0, ddof=1) / len(without))
    np.testing.assert_allclose(found.standard_error, welch, rtol=1e-9)
    assert (found.n, found.n_positive) == (len(wide), labels["glasses"].sum())
    middle = (with_glasses.mean(0) + without.mean(0)) / 2
    assert abs(coefficients(found) @ middle + found.intercept) < 1e-9
    np.testing.assert_allclose(found.mean, wide.mean(0), rtol=1e-12)
    assert abs(found.sigma - (wide @ found.vector).std(ddof=1)) < 1e-9


def test_a_difference_of_means_loses_no_digits_a_million_away() -> None:
    rng = np.random.default_rng(0)
    latents, y = (0.5 * rng.normal(size=(2000, 6)) + 1e6).astype(np.float32), rng.random(2000) > 0.3
    near = latents.astype(float) - 1e6
    truth = near[y].mean(0) - near[~y].mean(0)
    for estimator, extra in (("mean_difference", {}), ("balanced_mean_difference", {"controls": ()})):
        batch = batch_of(latents, {"y": y})
        parts = [[batch.slice(0, 700)], chunks(batch.slice(700), 190)]
        found = directions(step(estimator=estimator, **extra), {"y": "bool"}, splits=parts)["y"]
        np.testing.assert_allclose(coefficients(found), truth, rtol=0, atol=1e-13)


def test_balanced_difference_is_the_weighted_sum_over_cells() -> None:
    latents, labels = faces(600)
    found = directions(step(estimator="balanced_mean_difference"), BOOLS, batch_of(latents, labels))["smiling"]
    wide, smiling = latents.astype(float), labels["smiling"]
    cells = [(labels["glasses"] == g) & (labels["young"] == y) for g in (False, True) for y in (False, True)]
    share = np.array([c.sum() for c in cells]) / len(wide)
    expected = sum(
        s * (wide[c & smiling].mean(0) - wide[c & ~smiling].mean(0)) for s, c in zip(share, cells, strict=True)
    )
    np.testing.assert_allclose(coefficients(found), expected, atol=1e-11)
    weights = sum(
        s**2 * (1 / (c & smiling).sum() + 1 / (c & ~smiling).sum()) for s, c in zip(share, cells, strict=True)
    )
    assert f"balanced over 4 cells, effective n {4 / weights:.0f}" in str(found.message)


def test_controls_need_not_be_fitted_and_empty_cells_are_told() -> None:
    latents, labels = faces(400)
    group = np.where(labels["young"], "a", "b").astype(object)
    group[:30] = "c"
    labels["smiling"][:30] = True  # cell c holds one class only
    columns = {"smiling": labels["smiling"], "group": group, "glasses": labels["glasses"]}
    types = {"smiling": "bool", "glasses": "bool", "group": "category"}
    found, _ = carried(
        fit(step(estimator="balanced_mean_difference", controls=("group",)), {"smiling": "bool"}, dim=8, labels=types),
        [[batch_of(latents, columns)]],
    )
    wide, expected = latents.astype(float), np.zeros(8)
    for value in "ab":
        inside, smiling = group == value, labels["smiling"]
        expected += inside.sum() / 370 * (wide[inside & smiling].mean(0) - wide[inside & ~smiling].mean(0))
    np.testing.assert_allclose(coefficients(found[0]), expected, atol=1e-11)
    assert found[0].n == 370
    assert "1 of 3 cells lack a class, 30 rows left out" in str(found[0].message)


def test_confounding_leaks_where_predicted_and_only_there() -> None:
    # Two factors correlated by ρ = .6, with effects μ₀ = 1 on the own axis; the plain difference takes ρ·μ₁/μ₀ of the other's.
    rng = np.random.default_rng(3)
    n, rho = 60_000, 0.6
    a = rng.random(n) < 0.5
    b = np.where(rng.random(n) < (1 + rho) / 2, a, ~a)
    latents = (0.4 * rng.standard_normal((n, 6))).astype(np.float32)
    latents[:, 0] += 1.0 * a
    latents[:, 1] += 1.5 * b
    batch, types = batch_of(latents, {"a": a, "b": b}), {"a": "bool", "b": "bool"}
    leak = {}
    for estimator in CLOSED:
        found = coefficients(directions(step(estimator=estimator), types, batch)["a"])
        leak[estimator] = found[1] / found[0]
    assert abs(leak["mean_difference"] - 0.9) < 0.03
    assert abs(leak["balanced_mean_difference"]) < 0.02
    assert abs(leak["ols"]) < 0.02


@pytest.mark.parametrize(("per_class", "expected", "runs"), [(100, 0.30, 20), (1000, 0.70, 4)])
def test_noise_law(per_class: int, expected: float, runs: int) -> None:
    # cos(v̂, v) ≈ δ/√(δ² + d(1/n₊ + 1/n₋))
    rng, d = np.random.default_rng(4), 512
    law, cosines = 1 / np.sqrt(1 + d * 2 / per_class), []
    assert abs(law - expected) < 0.005
    for _ in range(runs):
        latents = rng.standard_normal((2 * per_class, d)).astype(np.float32)
        labels = np.arange(2 * per_class) < per_class
        latents[labels, 0] += 1
        found = directions(
            step(estimator="mean_difference", holdout=0), {"y": "bool"}, batch_of(latents, {"y": labels})
        )
        cosines.append(found["y"].vector[0])
    assert abs(np.mean(cosines) - law) < 0.02


def test_missing_labels_cost_only_the_rows_they_must() -> None:
    latents, labels = faces(1000)
    rng = np.random.default_rng(5)
    gaps = {
        name: [None if g else bool(v) for v, g in zip(labels[name], rng.random(1000) < 0.3, strict=True)]
        for name in BOOLS
    }
    batch = batch_of(latents, {name: pa.array(gaps[name], pa.bool_()) for name in BOOLS})
    means = directions(step(estimator="mean_difference"), BOOLS, batch)
    for name in BOOLS:
        known = np.array([v is not None for v in gaps[name]])
        positive = known & labels[name]
        truth = latents[positive].mean(0, dtype=float) - latents[known & ~labels[name]].mean(0, dtype=float)
        np.testing.assert_allclose(coefficients(means[name]), truth, atol=1e-11)
        assert means[name].n == known.sum()
    complete = np.array([None not in row for row in zip(*gaps.values(), strict=True)])
    ols = directions(step(), BOOLS, batch)
    truth = LinearRegression().fit(design(labels)[complete], latents[complete].astype(float)).coef_.T
    np.testing.assert_allclose([coefficients(ols[a]) for a in BOOLS], truth, atol=1e-10)
    assert {ols[a].n for a in BOOLS} == {complete.sum()}
    np.testing.assert_allclose(ols["young"].mean, latents.mean(0, dtype=float), rtol=1e-12)


def test_a_hopeless_attribute_costs_the_others_nothing() -> None:
    latents, labels = faces(400)
    nothing = pa.nulls(400, pa.bool_())
    only_some = pa.array([True if i < 50 else None for i in range(400)])
    types = BOOLS | {"unseen": "bool", "once": "bool"}
    found = directions(step(), types, batch_of(latents, labels | {"unseen": nothing, "once": only_some}))
    alone = directions(step(), BOOLS, batch_of(latents, labels))
    assert (found["unseen"].status, found["once"].status) == ("no_labels", "single_class")
    for name in BOOLS:
        np.testing.assert_array_equal(found[name].vector, alone[name].vector)


def test_auc_is_that_of_held_out_rows_along_a_direction_fitted_without_them() -> None:
    latents, labels = faces()
    batch = batch_of(latents, labels)
    out = fractions(hash_ids(batch.column("id")), HOLDOUT_SALT) < 0.25
    found = directions(step(holdout=0.25), BOOLS, batch)["young"]
    trial = LinearRegression().fit(design(labels)[~out], latents[~out].astype(float)).coef_[:, 2]
    scores, young = latents[out].astype(float) @ (trial / np.linalg.norm(trial)), labels["young"][out]
    assert abs(found.auc - roc_auc_score(young, scores)) < 1e-3
    n, m = young.sum(), (~young).sum()
    pooled = ((n - 1) * scores[young].var(ddof=1) + (m - 1) * scores[~young].var(ddof=1)) / (n + m - 2)
    assert abs(found.separation - (scores[young].mean() - scores[~young].mean()) / np.sqrt(pooled)) < 1e-9
    assert found.auc_low < found.auc < found.auc_high
    assert found.separation_low < found.separation < found.separation_high


def test_without_a_signal_held_out_rows_show_none() -> None:
    rng, runs, honest, flattered = np.random.default_rng(6), 40, np.zeros(2), []
    for run in range(runs):
        latents, y = rng.standard_normal((300, 100)).astype(np.float32), rng.random(300) < 0.5
        batch = batch_of(latents, {"y": y}, ids=[f"{run}-{i}" for i in range(300)])
        found = directions(step(estimator="mean_difference", holdout=0.4), {"y": "bool"}, batch)["y"]
        honest += [found.auc_low < 0.5 < found.auc_high, found.separation_low < 0 < found.separation_high]
        found = directions(step(estimator="mean_difference", holdout=0), {"y": "bool"}, batch)["y"]
        flattered.append(found.separation_low)
        assert found.auc is None
    assert (honest >= 0.88 * runs).all()
    assert min(flattered) > 0.6  # what the rows that were fitted would claim


def test_intervals_cover() -> None:
    # Held-out separation and AUC along a fixed direction: with one latent there is no other.
    from scipy.stats import norm

    rng, covered, runs, delta = np.random.default_rng(7), np.zeros(3), 300, 1.2
    for run in range(runs):
        y = rng.random(400) < 0.4
        latents = (rng.standard_normal((400, 1)) + delta * y[:, None]).astype(np.float32)
        batch = batch_of(latents, {"y": y}, ids=[f"{run}-{i}" for i in range(400)])
        found = directions(step(estimator="mean_difference", holdout=0.5), {"y": "bool"}, batch)["y"]
        reach = 1.96 * found.standard_error[0]
        covered += [
            found.separation_low <= delta <= found.separation_high,
            found.auc_low <= norm.cdf(delta / np.sqrt(2)) <= found.auc_high,
            abs(coefficients(found)[0] - delta) <= reach,
        ]
    assert ((covered / runs >= 0.92) & (covered / runs <= 0.98)).all(), covered / runs


@given(seed=st.integers(0, 2**32 - 1), estimator=st.sampled_from(CLOSED))
@settings(max_examples=12)
def test_any_split_gives_the_same(seed: int, estimator: str) -> None:
    latents, labels = faces(400)
    columns = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(400) % 7 == 0)}
    batch = batch_of(latents, columns)
    whole = directions(step(estimator=estimator), BOOLS, batch)
    split = directions(step(estimator=estimator), BOOLS, splits=list(uneven(batch, seed)))
    assert list(whole) == list(split)
    for name in BOOLS:
        same(whole[name], split[name])


def test_closed_forms_take_one_pass_and_one_more_to_measure() -> None:
    latents, labels = faces(200)
    batch = batch_of(latents, labels)
    for estimator, first in zip(CLOSED, ("CellPass", "CellPass", "Regression"), strict=True):
        _, passes = carried(fit(step(estimator=estimator), BOOLS, dim=8), [[batch]])
        assert passes == [first, "Scoring"]


def test_without_a_holdout_least_squares_takes_one_pass() -> None:
    latents, labels = faces(500)
    complete, gap = (
        batch_of(latents, labels),
        batch_of(latents, {**labels, "young": pa.array(labels["young"], mask=np.arange(500) == 3)}),
    )
    one, passes = carried(fit(step(holdout=0), BOOLS, dim=8), [[complete]])
    assert passes == ["Regression"]
    # The same rows, but one label short: now σ must be measured in a second pass, on nearly the same data.
    two, passes = carried(fit(step(holdout=0), BOOLS, dim=8), [[gap]])
    assert passes == ["Regression", "Scoring"]
    wide = latents.astype(float)
    for a, b in zip(one, two, strict=True):
        scores, y = wide @ a.vector, labels[a.attribute]
        assert abs(a.sigma - scores.std(ddof=1)) < 1e-9
        n, m = y.sum(), (~y).sum()
        pooled = np.sqrt(((n - 1) * scores[y].var(ddof=1) + (m - 1) * scores[~y].var(ddof=1)) / (n + m - 2))
        assert abs(a.separation - (scores[y].mean() - scores[~y].mean()) / pooled) < 1e-9
        assert abs(a.separation - b.separation) < 0.05


def test_float16_is_converted_exactly() -> None:
    latents, labels = faces(500)
    half = latents.astype(np.float16)
    a = directions(step(), BOOLS, batch_of(half, labels))["young"]
    b = directions(step(), BOOLS, batch_of(half.astype(np.float32), labels))["young"]
    same(a, b)


def test_class_means_are_centred_on_the_mean_of_the_classes() -> None:
    latents, labels = faces(900)
    hair = np.array(["black", "blond", "red"])[np.random.default_rng(2).choice(3, 900, p=[0.7, 0.2, 0.1])]
    latents[hair == "red", 4] += 2
    types = {"hair": "category", "smiling": "bool"}
    batch = batch_of(latents, {"hair": hair, "smiling": labels["smiling"]})
    found = directions(step(estimator="class_means"), types, batch)
    wide = latents.astype(float)
    means = {value: wide[hair == value].mean(0) for value in ("black", "blond", "red")}
    errors = {value: wide[hair == value].var(0, ddof=1) / (hair == value).sum() for value in means}
    for value in means:
        direction = found[f"hair={value}"]
        np.testing.assert_allclose(coefficients(direction), means[value] - sum(means.values()) / 3, atol=1e-10)
        expected = sum(e * (4 / 9 if other == value else 1 / 9) for other, e in errors.items())
        np.testing.assert_allclose(direction.standard_error, np.sqrt(expected), rtol=1e-9)
        assert direction.n == 900 and "mean of 3 classes" in str(direction.message)
        rest = wide[hair != value].mean(0)
        assert abs(coefficients(direction) @ (means[value] + rest) / 2 + direction.intercept) < 1e-9
    total = sum(coefficients(found[f"hair={value}"]) for value in means)
    np.testing.assert_allclose(total, np.zeros(8), atol=1e-10)
    plain = directions(step(estimator="mean_difference"), types, batch)["smiling"]
    np.testing.assert_allclose(coefficients(found["smiling"]), coefficients(plain) / 2, atol=1e-11)
