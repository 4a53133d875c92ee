"""Intervals of every estimator: exact replicates are weighted fits, one step is near them, and both cover the truth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from schemas.measurements import Measurement
from schemas.source import LabelType
from stages import sample
from stages.bootstrap import percentile_interval, poisson_weights
from stages.components.principal import Limits
from stages.directions import curvature, predictive, resampling
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.row_hash import hash_ids
from tests.labelled import BOOLS, batch_of, carried, coefficients, directions, faces, step

Refit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Coefficients (d,) from latents, one label and weights."""


def angle(direction: Direction) -> Measurement:
    return next(m for m in direction.intervals if m.metric == "angle")


def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What the replicates of each attribute will be, once a fit has run."""
    seen: dict[str, np.ndarray] = {}
    take = resampling._Replicates.take

    def watched(self: Any, direction: Direction, drawn: np.ndarray | None) -> None:
        if drawn is not None:
            seen[direction.attribute] = np.vstack([seen.get(direction.attribute, drawn[:0]), drawn])
        take(self, direction, drawn)

    monkeypatch.setattr(resampling._Replicates, "take", watched)
    return seen


# ----------------------------------------------------------------------------------------------- exact replicates


def test_balanced_replicates_are_fits_of_weighted_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(300)
    person = np.array(["ann", "bo", "cy"], dtype=object)[np.arange(300) % 3]
    smiling = [bool(s) if i % 9 else None for i, s in enumerate(labels["smiling"])]
    batch = batch_of(latents, {**labels, "smiling": smiling, "person": person})
    types: dict[str, LabelType] = {**BOOLS, "person": "category"}
    seen = spied(monkeypatch)
    asked = step(estimator="balanced_mean_difference", controls=("glasses", "person"), bootstrap=40)
    found = directions(asked, types, batch)
    weights = poisson_weights(hash_ids(batch.column("id")), 40).astype(float)
    known = np.arange(300) % 9 != 0
    z, glasses = latents.astype(float), labels["glasses"]
    for r, w in enumerate(weights.T):
        # smiling within glasses × person; glasses, a control itself, within person
        cells = [(glasses == g) & (person == p) & known for g in (0, 1) for p in ["ann", "bo", "cy"]]
        np.testing.assert_allclose(seen["smiling"][r], _balanced(z, labels["smiling"], cells, w), atol=1e-9)
        cells = [person == p for p in ["ann", "bo", "cy"]]
        np.testing.assert_allclose(seen["glasses"][r], _balanced(z, glasses, cells, w), atol=1e-9)
    for name in ("smiling", "glasses", "young", "person=bo"):
        assert angle(found[name]).value is not None and found[name].standard_error is not None


def _balanced(z: np.ndarray, y: np.ndarray, cells: list[np.ndarray], w: np.ndarray) -> np.ndarray:
    total, differences = 0.0, np.zeros(z.shape[1])
    for cell in cells:
        p, q = w * (cell & y), w * (cell & ~y)
        if p.any() and q.any():
            share = p.sum() + q.sum()
            differences = differences + share * (np.average(z, 0, p) - np.average(z, 0, q))
            total += share
    return differences / total


def test_class_means_and_pairwise_replicates_are_fits_of_weighted_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(300)
    person = np.array(["ann", "bo", "cy"], dtype=object)[np.arange(300) % 3]
    seen = spied(monkeypatch)
    batch = batch_of(latents, {**labels, "person": person})
    weights = poisson_weights(hash_ids(batch.column("id")), 30).astype(float)
    directions(step(estimator="class_means", bootstrap=30), {"person": "category", "young": "bool"}, batch)
    for r, w in enumerate(weights.T):
        means = [np.average(latents[person == p].astype(float), 0, w[person == p]) for p in ("ann", "bo", "cy")]
        np.testing.assert_allclose(seen["person=bo"][r], means[1] - np.mean(means, 0), atol=1e-9)
    # Rows repeated as often as they weigh make the same pairwise fit.
    columns = {k: pa.array(v, mask=np.arange(300) % (5 + i) == 0) for i, (k, v) in enumerate(labels.items())}
    seen.clear()
    asked = step(estimator="ols", missing="pairwise", bootstrap=30)
    directions(asked, BOOLS, batch_of(latents, columns))
    for r in (0, 7):
        rows = np.repeat(np.arange(300), weights[:, r].astype(int))
        again = batch_of(latents[rows], {k: v.take(pa.array(rows)) for k, v in columns.items()})
        one = directions(step(estimator="ols", missing="pairwise", holdout=0), BOOLS, again)
        np.testing.assert_allclose(seen["young"][r], coefficients(one["young"]), rtol=1e-8)


# ----------------------------------------------------------------------------------------------- one step and refits


def _ridge(z: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return Ridge(alpha=20).fit(z, y.astype(float), sample_weight=w).coef_


def _lda(z: np.ndarray, y: np.ndarray, w: np.ndarray, *, shrinkage: float = 0.2, own: bool = False) -> np.ndarray:
    p, q = (np.average(z[c], 0, w[c]) for c in (y, ~y))
    x = z - np.where(y[:, None], p, q)
    within = (x * w[:, None]).T @ x / w.sum()
    target = np.diag(np.diagonal(within)) if own else np.trace(within) / len(within) * np.eye(len(within))
    return np.linalg.solve((1 - shrinkage) * within + shrinkage * target, p - q)


def _logistic(z: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(z, y, sample_weight=w).coef_[0]


def _svm(z: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    x = np.hstack([z, np.ones((len(z), 1))])
    weights, sign = np.zeros(x.shape[1]), np.where(y, 1.0, -1.0)
    penalty = np.append(np.ones(z.shape[1]), 0.0)
    for _ in range(40):  # Newton's method: the squared hinge is piecewise quadratic
        slack = np.maximum(1 - sign * (x @ weights), 0)
        inside = w * (slack > 0)
        gradient = -2 * x.T @ (w * sign * slack) + penalty * weights
        weights = weights - np.linalg.solve(2 * (x * inside[:, None]).T @ x + np.diag(penalty), gradient)
    return weights[:-1]


def _pattern(z: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    filter_ = _logistic(z, y, w)
    covariance = np.cov(z.T, fweights=w.astype(int), ddof=0)
    return covariance @ filter_ / (filter_ @ covariance @ filter_)


CASES: list[tuple[dict[str, Any], Refit]] = [
    ({"estimator": "ridge", "l2": 20.0}, _ridge),
    ({"estimator": "lda", "shrinkage": 0.2}, _lda),
    ({"estimator": "logistic", "l2": 2.0}, _logistic),
    ({"estimator": "svm"}, _svm),
    ({"estimator": "logistic", "l2": 2.0, "pattern": True}, _pattern),
]


@pytest.mark.parametrize(
    ("fields", "refit"), CASES, ids=lambda c: "_".join(map(str, c.values())) if isinstance(c, dict) else ""
)
def test_one_step_is_near_a_refit_of_every_replicate(
    fields: dict[str, Any], refit: Refit, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, labels = faces(1500, d=5)
    batch, replicates = batch_of(latents, labels), 100
    seen = spied(monkeypatch)
    found = directions(step(**fields, holdout=0, bootstrap=replicates), {"young": "bool"}, batch)["young"]
    z, young = latents.astype(float), labels["young"]
    np.testing.assert_allclose(coefficients(found), refit(z, young, np.ones(len(z))), rtol=2e-5, atol=1e-6)
    weights = poisson_weights(hash_ids(batch.column("id")), replicates).astype(float)
    refitted = np.array([refit(z, young, w) for w in weights.T])
    one_step, full = seen["young"] - coefficients(found), refitted - coefficients(found)
    assert np.corrcoef(one_step.ravel(), full.ravel())[0, 1] >= 0.98
    across = full - np.outer(full @ found.vector, found.vector)
    ends = percentile_interval(np.degrees(np.arcsin(np.linalg.norm(across, axis=1) / found.raw_norm)), confidence=0.95)
    assert ends is not None
    assert (angle(found).low, angle(found).high) == pytest.approx(ends, rel=0.08)
    np.testing.assert_allclose(found.standard_error, np.sqrt((full**2).mean(0)), rtol=0.06)


def test_own_units_shrink_in_every_replicate(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(1500, d=5)
    batch, seen = batch_of(latents, labels), spied(monkeypatch)
    found = directions(step(estimator="lda", holdout=0, bootstrap=60), {"young": "bool"}, batch)["young"]
    share = float(found.message.split("shrinkage ")[1].split(";")[0])
    z, young = latents.astype(float), labels["young"]
    weights = poisson_weights(hash_ids(batch.column("id")), 60).astype(float)
    full = np.array([_lda(z, young, w, shrinkage=share, own=True) for w in weights.T]) - coefficients(found)
    assert np.corrcoef((seen["young"] - coefficients(found)).ravel(), full.ravel())[0, 1] >= 0.98


def test_logistic_fits_by_passes_have_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(2000, d=5)
    batch, asked = batch_of(latents, labels), step(estimator="logistic", l2=2.0, bootstrap=30)
    in_memory = directions(asked, {"young": "bool"}, batch)["young"]
    monkeypatch.setattr(sample, "MAX_ROWS", 500)  # the curvature then is that of a trial near the optimum
    by_passes = directions(asked, {"young": "bool"}, batch)["young"]
    mine, other = angle(in_memory), angle(by_passes)
    assert (mine.value, mine.low, mine.high) == pytest.approx((other.value, other.low, other.high), rel=3e-2)
    np.testing.assert_allclose(by_passes.standard_error, in_memory.standard_error, rtol=3e-2)


@pytest.mark.parametrize("rows", [2**16, 500])
def test_attributes_too_many_for_their_curvatures_take_them_a_few_at_a_time(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, labels = faces(2000, d=5)
    batch, asked = batch_of(latents, labels), step(estimator="logistic", l2=2.0, holdout=0, bootstrap=30)
    plain = directions(asked, BOOLS, batch)
    monkeypatch.setattr(sample, "MAX_ROWS", rows)
    monkeypatch.setattr(curvature, "MAX_BYTES", 8 * 6**2 * 2)  # two of three
    split = directions(asked, BOOLS, batch)
    for name in BOOLS:
        np.testing.assert_allclose(split[name].standard_error, plain[name].standard_error, rtol=1e-4)
        assert angle(split[name]).value == pytest.approx(angle(plain[name]).value, rel=1e-4)
    monkeypatch.setattr(curvature, "MAX_INVERSE_BYTES", 100)
    assert "fit fewer at a time" in angle(directions(asked, BOOLS, batch)["young"]).message


# ----------------------------------------------------------------------------------------------- coverage


def drawn(rng: np.random.Generator, *, groups: int, size: int, d: int, columns: int) -> tuple[np.ndarray, ...]:
    """(latents, labels (rows, columns), true directions (columns, d)): groups of `size` rows with one label, near one another.

    Latents are isotropic Gaussians, so every estimator here points at the truth (Brillinger 1982, Li and Duan 1989).
    """
    truth = rng.standard_normal((columns, d))
    truth *= 1.5 / np.linalg.norm(truth, axis=1, keepdims=True)
    shared = rng.standard_normal((groups, d))
    y = rng.random((groups, columns)) < expit(shared @ truth.T)
    rows = np.repeat(shared, size, axis=0)
    if size > 1:
        rows = rows + 0.2 * rng.standard_normal(rows.shape)
    return rows.astype(np.float32), np.repeat(y, size, axis=0), truth


def covered(
    fields: dict[str, Any], *, size: int, told: bool = True, problems: int = 300, columns: int = 30
) -> tuple[float, float]:
    """Shares of problems whose true angle, and whose true coefficients, lie in their intervals. Labels share rows, not noise."""
    rng, hits, inside = np.random.default_rng(7), [], []
    for run in range(problems // columns):
        latents, y, truth = drawn(rng, groups=500, size=size, d=6, columns=columns)
        names = [f"a{i}" for i in range(columns)]
        ids = [f"{run}.{i // size}_{i % size}" for i in range(len(y))]
        batch = batch_of(latents, dict(zip(names, y.T, strict=True)), ids=ids)
        asked = step(**fields, holdout=0, bootstrap=100, group="id:_" if told else None)
        found = directions(asked, dict.fromkeys(names, "bool"), batch)
        for name, w in zip(names, truth, strict=True):
            one = found[name]
            off = np.degrees(np.arccos(one.vector @ w / np.linalg.norm(w)))
            hits.append(angle(one).low <= off <= angle(one).high)
            inside.extend(np.abs(coefficients(one) - w) <= 1.96 * one.standard_error)
    return float(np.mean(hits)), float(np.mean(inside))


ESTIMATORS: list[dict[str, Any]] = [
    {"estimator": "ridge", "l2": 5.0},
    {"estimator": "lda"},
    {"estimator": "logistic", "l2": 1e-3},
    {"estimator": "svm"},
    {"estimator": "lda", "shrinkage": 0.0, "pattern": True},
    {"estimator": "class_means"},
]
SIMULATION = 0.025
"""Two standard errors of a share of .95 in 300 problems, and more than those of 400."""


@pytest.mark.slow
@pytest.mark.parametrize("fields", ESTIMATORS, ids=lambda f: "_".join(map(str, f.values())))
def test_angles_cover(fields: dict[str, Any]) -> None:
    for size in (1, 4):
        assert covered(fields, size=size, problems=400, columns=10)[0] == pytest.approx(0.95, abs=0.02 + SIMULATION), (
            size
        )


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["mean_difference", "lda", "svm"])
def test_angles_of_extremes_cover_with_their_ends_held(estimator: str) -> None:
    # Few columns a run: LDA's cost goes with the number of sets of rows, 3 to the columns.
    rng, hits, columns = np.random.default_rng(5), [], 4
    for run in range(75):
        z, truth = rng.standard_normal((1500, 6)), rng.standard_normal((columns, 6))
        truth /= np.linalg.norm(truth, axis=1, keepdims=True)
        scores = {f"a{i}": s for i, s in enumerate((z @ truth.T + rng.standard_normal((1500, columns))).T)}
        batch = batch_of(z.astype(np.float32), scores, ids=[f"{run}.{i}" for i in range(1500)])
        asked = step(estimator=estimator, extremes=0.2, holdout=0, bootstrap=100)
        found = directions(asked, dict.fromkeys(scores, "float"), batch)
        for name, v in zip(scores, truth, strict=True):
            off = np.degrees(np.arccos(min(1.0, found[name].vector @ v)))
            hits.append(angle(found[name]).low <= off <= angle(found[name]).high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02 + SIMULATION)


def test_logistic_coefficients_cover_and_do_not_without_groups() -> None:
    fields = {"estimator": "logistic", "l2": 1e-3}
    of_angles, of_coefficients = covered(fields, size=1)
    assert of_angles == pytest.approx(0.95, abs=0.02 + SIMULATION)
    assert 0.93 <= of_coefficients <= 0.97  # 1,800 coefficients: two standard errors are .01
    assert covered(fields, size=10, told=False, problems=60)[0] <= 0.3


@pytest.mark.slow
def test_balanced_differences_cover() -> None:
    rng, hits, inside, d = np.random.default_rng(3), [], [], 8
    for run in range(150):
        other, groups = rng.random(400) < 0.5, 400
        y = rng.random(groups) < np.where(other, 0.75, 0.25)
        v = np.full(d, 0.3)
        latents = rng.standard_normal((groups, d)) + np.outer(y, v) + np.outer(other, -v[::-1] * np.arange(d))
        latents, y, other = (np.repeat(x, 3, axis=0) for x in (latents, y, other))
        latents = latents + 0.1 * rng.standard_normal(latents.shape)
        ids = [f"{run}.{i // 3}_{i}" for i in range(len(y))]
        batch = batch_of(latents.astype(np.float32), {"y": y, "other": other}, ids=ids)
        asked = step(estimator="balanced_mean_difference", controls=("other",), holdout=0, bootstrap=100, group="id:_")
        found = directions(asked, {"y": "bool", "other": "bool"}, batch)["y"]
        off = np.degrees(np.arccos(found.vector @ v / np.linalg.norm(v)))
        hits.append(angle(found).low <= off <= angle(found).high)
        inside.extend(np.abs(coefficients(found) - v) <= 1.96 * found.standard_error)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02 + 0.035)  # two standard errors of 150 runs
    assert 0.93 <= np.mean(inside) <= 0.97  # 1,200 coefficients: two standard errors are .013


# ----------------------------------------------------------------------------------------------- what cannot be told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"estimator": "ridge", "l2": 1e-6}, "rows for 41 coefficients"),
        ({"estimator": "lda", "shrinkage": 0.0}, "rows for 41 coefficients"),
        ({"estimator": "logistic", "l2": 1e-4, "pattern": True}, "effective rows"),
    ],
)
def test_too_few_rows_for_one_step_is_a_status(fields: dict[str, Any], said: str) -> None:
    rng = np.random.default_rng(0)
    latents, y = rng.standard_normal((120, 40)).astype(np.float32), np.arange(120) % 2 == 0
    found = directions(step(**fields, bootstrap=20), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    assert found.vector is not None and said in angle(found).message
    assert (angle(found).status, angle(found).value) == ("not_measured", None)
    assert found.separation_low < found.separation_high  # these need no replicates of the direction


@pytest.mark.parametrize("estimator", ["ridge", "lda"])
def test_second_moments_in_strips_have_the_same_intervals_or_a_status(estimator: str) -> None:
    latents, labels = faces(300)
    splits, asked = [[batch_of(latents, labels)]], step(estimator=estimator, bootstrap=20)
    whole = carried(fit(asked, BOOLS, dim=8), splits)[0]
    put_together = carried(fit(asked, BOOLS, dim=8, limits=Limits(block_values=100)), splits)[0]
    for a, b in zip(whole, put_together, strict=True):
        assert (angle(b).value, angle(b).high) == pytest.approx((angle(a).value, angle(a).high), rel=1e-8)
    kept = carried(fit(asked, BOOLS, dim=8, limits=Limits(full=4, block_values=100)), splits)[0]
    assert {(angle(d).status, angle(d).message) for d in kept} == {
        ("not_measured", "not measured where second moments do not fit in memory")
    }
    assert all(d.separation_low < d.separation_high for d in kept)


def test_latents_that_span_less_and_wide_ones_are_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(300)
    flat = latents.copy()
    flat[:, 3] = 1
    asked = step(estimator="lda", shrinkage=0.0, bootstrap=20)
    found = directions(asked, {"young": "bool"}, batch_of(flat, labels))["young"]
    assert angle(found).status == "not_measured" and "do not span" in angle(found).message
    monkeypatch.setattr(predictive, "MAX_WHOLE", 7)
    found = directions(asked, {"young": "bool"}, batch_of(latents, labels))["young"]
    assert angle(found).message == "not measured above 7 dimensions"
    monkeypatch.setattr(predictive, "MAX_WHOLE", 4096)
    monkeypatch.setattr(predictive, "MAX_KEPT_BYTES", 8 * 8 * 8)  # one matrix, and labels missing in two ways
    some = {"young": labels["young"], "smiling": pa.array(labels["smiling"], mask=np.arange(300) % 5 == 0)}
    both = directions(asked, {"young": "bool", "smiling": "bool"}, batch_of(latents, some))
    assert [angle(d).status for d in both.values()] == ["ok", "not_measured"]
