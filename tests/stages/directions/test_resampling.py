"""Bootstrap intervals of a fit: they cover, also where rows come in groups, and do not depend on splits or on memory."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from schemas.measurements import Measurement
from schemas.source import LabelType
from stages.bootstrap import poisson_weights
from stages.directions import resampling
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.row_hash import fractions, hash_ids
from stages.rows import HOLDOUT_SALT
from tests.labelled import BOOLS, batch_of, carried, coefficients, directions, faces, step, uneven
from tests.stages.directions.test_fit import same


def angle(direction: Direction) -> Measurement:
    return next(m for m in direction.intervals if m.metric == "angle")


@pytest.mark.parametrize("estimator", ["mean_difference", "ols"])
def test_replicates_are_fits_of_weighted_rows(estimator: str) -> None:
    latents, labels = faces(400)
    batch = batch_of(latents, labels)
    found = directions(step(estimator=estimator, bootstrap=60), BOOLS, batch)["glasses"]
    weights = poisson_weights(hash_ids(batch.column("id")), 60).astype(float)
    x, z, glasses = np.column_stack(list(labels.values())).astype(float), latents.astype(float), labels["glasses"]
    drawn = []
    for w in weights.T:
        if estimator == "ols":
            drawn.append(LinearRegression().fit(x, z, sample_weight=w).coef_[:, 1])
        else:
            drawn.append(np.average(z[glasses], 0, w[glasses]) - np.average(z[~glasses], 0, w[~glasses]))
    errors = np.array(drawn) - coefficients(found)
    np.testing.assert_allclose(found.standard_error, np.sqrt((errors**2).mean(0)), rtol=1e-8)
    cosines = np.array(drawn) @ found.vector / np.linalg.norm(drawn, axis=1)
    stability = next(m for m in found.intervals if m.metric == "stability")
    assert stability.value == pytest.approx(cosines.mean(), abs=1e-9)
    across = errors - np.outer(errors @ found.vector, found.vector)
    angles = np.degrees(np.arcsin(np.linalg.norm(across, axis=1) / found.raw_norm))
    assert angle(found).value == pytest.approx(np.median(angles), rel=1e-7)


def test_auc_and_separation_are_those_of_weighted_held_out_rows() -> None:
    latents, labels = faces(1500)
    batch = batch_of(latents, labels)
    plain = directions(step(holdout=0.3), BOOLS, batch)["young"]
    found = directions(step(holdout=0.3, bootstrap=200), BOOLS, batch)["young"]
    out = fractions(hash_ids(batch.column("id")), HOLDOUT_SALT) < 0.3
    x = np.column_stack(list(labels.values())).astype(float)
    trial = LinearRegression().fit(x[~out], latents[~out].astype(float)).coef_[:, 2]
    scores, young = latents[out] @ (trial / np.linalg.norm(trial)), labels["young"][out]
    weights = poisson_weights(hash_ids(batch.column("id")), 200)[out].astype(float)
    areas = [roc_auc_score(young, scores, sample_weight=w) for w in weights.T]
    low, high = np.quantile(areas, [0.025, 0.975], method="weibull")
    assert (found.auc, found.separation) == (plain.auc, plain.separation)
    assert (found.auc_low, found.auc_high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))
    # Rows are independent here, so both kinds of interval are about as wide.
    assert found.auc_high - found.auc_low == pytest.approx(plain.auc_high - plain.auc_low, rel=0.25)
    width = found.separation_high - found.separation_low
    assert width == pytest.approx(plain.separation_high - plain.separation_low, rel=0.25)


@pytest.mark.parametrize("missing", ["complete", "pairwise"])
def test_intervals_of_labels_far_from_zero_are_those_of_the_labels(missing: str) -> None:
    """Years, and times in seconds: to add the same to every label changes no direction and no interval."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((300, 5)).astype(np.float32)
    age, glasses = 2 * latents[:, 0] + rng.standard_normal(300), rng.random(300) < 0.5
    types: dict[str, LabelType] = {"age": "float", "glasses": "bool"}
    asked = step(estimator="ols", missing=missing, holdout=0.0, bootstrap=40)
    found = []
    for offset in (0.0, 1e6, 1.7e9):
        labels = {"age": [*(np.round(age, 3) + offset)], "glasses": glasses}
        found.append(angle(directions(asked, types, batch_of(latents, labels))["age"]))
    for far in found[1:]:
        assert (far.value, far.low, far.high) == pytest.approx((found[0].value, found[0].low, found[0].high), rel=1e-4)


def grouped_data(rng: np.random.Generator, groups: int, size: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a group have the same label and nearly the same latent."""
    y = np.arange(groups) % 2 == 0
    latents = rng.standard_normal((groups, len(v))) + y[:, None] * v
    rows = np.repeat(latents, size, axis=0) + 0.2 * rng.standard_normal((groups * size, len(v)))
    return rows.astype(np.float32), np.repeat(y, size)


def angles_covered(*, groups: int, size: int, told: bool, runs: int, columns: int = 100) -> tuple[float, float]:
    """Share of directions whose true angle lies in its interval of 95 %, and that share's standard error, from how runs differ.

    The directions of a run share rows, not labels: latents are isotropic, so a difference of means points at what labels follow
    (Brillinger 1982). Rows of a group have the same labels and nearly the same latent.
    """
    rng, shares, names, d = np.random.default_rng(1), [], [f"a{i}" for i in range(columns)], 12
    for run in range(runs):
        truth = rng.standard_normal((columns, d))
        truth /= np.linalg.norm(truth, axis=1, keepdims=True)
        shared = rng.standard_normal((groups, d))
        y = np.repeat(rng.random((groups, columns)) < expit(1.5 * shared @ truth.T), size, axis=0)
        latents = np.repeat(shared, size, axis=0) + (size > 1) * 0.2 * rng.standard_normal((groups * size, d))
        ids = [f"{run}.{i // size}_{i % size}" for i in range(len(y))]
        batch = batch_of(latents.astype(np.float32), dict(zip(names, y.T, strict=True)), ids=ids)
        asked = step(estimator="mean_difference", holdout=0, bootstrap=100, group="id:_" if told else None)
        found = directions(asked, dict.fromkeys(names, "bool"), batch)
        off = [np.degrees(np.arccos(found[name].vector @ w)) for name, w in zip(names, truth, strict=True)]
        intervals = [angle(found[name]) for name in names]
        shares.append(np.mean([a.low <= o <= a.high for a, o in zip(intervals, off, strict=True)]))
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(runs))


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(300, 1), (150, 6)])
def test_the_angle_covers(groups: int, size: int) -> None:
    """93 to 97 %, over 2,000 directions: the simulation's own standard error is half a percent."""
    share, error = angles_covered(groups=groups, size=size, told=True, runs=20)
    assert error < 0.006
    assert 0.93 <= share <= 0.97


def test_the_angle_without_groups_is_far_too_small() -> None:
    assert angles_covered(groups=150, size=6, told=False, runs=2, columns=50)[0] <= 0.1


def test_separation_and_auc_cover_with_groups_only() -> None:
    """93 to 97 %, give or take two standard errors of 120 runs, .04."""
    from scipy.stats import norm

    rng, runs, hits, told = np.random.default_rng(2), 120, np.zeros((2, 2)), ("id:_", None)
    shift = 1.2
    for run in range(runs):
        latents, y = grouped_data(rng, 160, 6, np.array([shift]))
        ids = [f"{run}.{i // 6}_{i % 6}" for i in range(len(y))]
        for k, group in enumerate(told):
            asked = step(estimator="mean_difference", holdout=0.5, bootstrap=100, group=group)
            found = directions(asked, {"y": "bool"}, batch_of(latents, {"y": y}, ids=ids))["y"]
            delta = shift / np.sqrt(1.04)
            hits[k] += [
                found.separation_low <= delta <= found.separation_high,
                found.auc_low <= norm.cdf(delta / np.sqrt(2)) <= found.auc_high,
            ]
    grouped, ignored = hits / runs
    assert (grouped >= 0.89).all() and (grouped <= 0.99).all(), grouped
    assert (ignored <= 0.8).all(), ignored  # half of six rows are held out: errors √3 too small cover .74


def test_groups_are_held_out_whole() -> None:
    latents, labels = faces(600)
    person = np.array([f"p{i // 4:03d}" for i in range(600)], dtype=object)
    types: dict[str, LabelType] = {"smiling": "bool", "person": "category"}
    batch = batch_of(latents, {"smiling": labels["smiling"], "person": person})
    asked = step(estimator="mean_difference", holdout=0.3, group="person")
    (found,), _ = carried(fit(asked, {"smiling": "bool"}, dim=8, labels=types), [[batch]])
    out = fractions(hash_ids(pa.array(person, pa.string())), HOLDOUT_SALT) < 0.3
    assert 0.2 < out.mean() < 0.4 and all(len(set(out[i : i + 4])) == 1 for i in range(0, 600, 4))
    wide, smiling = latents.astype(float), labels["smiling"]
    trial = wide[~out & smiling].mean(0) - wide[~out & ~smiling].mean(0)
    expected = roc_auc_score(smiling[out], wide[out] @ trial)
    assert found.auc == pytest.approx(expected, abs=1e-3)


ESTIMATORS: list[dict[str, Any]] = [
    {"estimator": "mean_difference"},
    {"estimator": "balanced_mean_difference"},
    {"estimator": "class_means"},
    {"estimator": "ols"},
    {"estimator": "ols", "missing": "pairwise"},
    {"estimator": "ridge"},
    {"estimator": "lda"},
    {"estimator": "lda", "shrinkage": 0.1, "pattern": True},
    {"estimator": "logistic", "l2": 1.0},
    {"estimator": "svm", "pattern": True},
]


@pytest.mark.parametrize("fields", ESTIMATORS, ids=lambda f: "_".join(map(str, f.values())))
def test_any_split_gives_the_same_intervals(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(400)
    columns = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(400) % 7 == 0)}
    asked = step(**fields, bootstrap=25, group="id:/")
    ids = [f"{i // 3}/{i}" for i in range(400)]
    batch = batch_of(latents, columns, ids=ids)
    whole = directions(asked, BOOLS, batch)
    monkeypatch.setattr(resampling, "MAX_BYTES", 40_000)  # a few replicates a pass
    split = directions(asked, BOOLS, splits=list(uneven(batch, 5)))
    for name in BOOLS:
        assert whole[name].separation_low < whole[name].separation < whole[name].separation_high
        a, b = whole[name].intervals, split[name].intervals
        assert [m.metric for m in a] == [m.metric for m in b]
        assert [m.metric for m in a] == ["angle", "stability"]
        for mine, other in zip(a, b, strict=True):
            assert (other.value, other.low, other.high) == pytest.approx((mine.value, mine.low, mine.high), rel=1e-10)
        same(*(Direction(**{**_fields(x[name]), "intervals": ()}) for x in (whole, split)))


def _fields(direction: Direction) -> dict:
    return {name: getattr(direction, name) for name in Direction.__dataclass_fields__}


def test_what_cannot_be_resampled_has_a_status() -> None:
    latents, _ = faces(300)
    rare, never = np.arange(300) < 2, np.zeros(300, bool)
    columns = {"rare": rare, "never": never}
    asked = step(estimator="mean_difference", holdout=0, bootstrap=300, group="id:/")
    ids = [f"{'few' if r else i}/{i}" for i, r in enumerate(rare)]
    found = directions(asked, {"rare": "bool", "never": "bool"}, batch_of(latents, columns, ids=ids))
    assert found["never"].status == "single_class" and found["never"].intervals == ()
    # Both rare rows are one group, which a third of the replicates leave out.
    assert (angle(found["rare"]).status, angle(found["rare"]).value) == ("too_few", None)


def test_noise_is_undetermined() -> None:
    rng = np.random.default_rng(3)
    latents, y = rng.standard_normal((60, 200)).astype(np.float32), np.arange(60) % 2 == 0
    found = directions(step(estimator="mean_difference", bootstrap=50), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    assert angle(found).status == "undetermined" and angle(found).high == 90
