"""Numbers beside a direction, against their formulas written out once more: errors over cells, intervals, replicates of one step."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from stages.bootstrap import poisson_weights
from stages.directions import judging
from stages.directions.cells import ClassPairs
from stages.directions.closed_forms import difference_of_means
from stages.directions.direction import Estimate, Evidence, FitStatus
from stages.directions.discriminant import Classes, discriminant
from stages.directions.group_scatter import Subset
from stages.directions.linearised import effective_rows, linearised_discriminant
from stages.directions.ridge import squared_error
from stages.directions.row_sets import parts_of
from stages.directions.scoring import separation_of
from stages.moments import GroupMoments, Moments
from stages.row_hash import hash_ids
from stages.rows import Block
from stages.scatter.whole import Whole
from tests.labelled import batch_of, coefficients, directions, faces, step


def test_the_error_of_a_balanced_direction_weighs_each_cell_by_its_share_squared() -> None:
    """Var = Σ_c π_c² σ²(1/n₊,c + 1/n₋,c), σ² of a class pooled over cells; cells of very different sizes and means."""
    rng = np.random.default_rng(0)
    cells = [[rng.normal(c, 1 + c, (n, 3)) for n in sizes] for c, sizes in enumerate([(40, 10), (5, 200)])]
    groups = []
    for side in (0, 1):
        z = np.concatenate([cell[side] for cell in cells])
        member = np.repeat(np.eye(2, dtype=bool), [len(cell[side]) for cell in cells], axis=0)
        groups.append(GroupMoments.of(z, member))
    found = difference_of_means(ClassPairs(*groups))
    share = np.array([50, 205]) / 255
    variance = np.zeros(3)
    for side in (0, 1):
        rows = [cell[side] for cell in cells]
        pooled = sum(((z - z.mean(0)) ** 2).sum(0) for z in rows) / (sum(map(len, rows)) - 2)
        variance += pooled * sum(s**2 / len(z) for s, z in zip(share, rows, strict=True))
    assert found.standard_error is not None and found.coefficients is not None
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-12)
    means = sum(s * (p.mean(0) - q.mean(0)) for s, (p, q) in zip(share, cells, strict=True))
    np.testing.assert_allclose(found.coefficients, means, rtol=1e-10)


def test_the_interval_of_a_separation_is_hedges_and_olkins() -> None:
    """var δ = (n + m)/(nm) + δ²/2(n + m): the second part is most of it where classes lie far apart."""
    n, m, apart = 30, 50, 6.0
    rng = np.random.default_rng(1)
    a, b = rng.normal(apart, 1, n), rng.normal(0, 1, m)
    found = separation_of([n, a.sum(), a @ a], [m, b.sum(), b @ b], confidence=0.95)
    pooled = ((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2)
    delta = (a.mean() - b.mean()) / pooled**0.5
    reach = 1.959963985 * np.sqrt((n + m) / (n * m) + delta**2 / (2 * (n + m)))
    assert found == pytest.approx((delta, delta - reach, delta + reach), rel=1e-6)


def test_folds_keep_rows_that_belong_together_together() -> None:
    n = 400
    ids, groups = pa.array([f"r{i}" for i in range(n)]), hash_ids(pa.array([f"g{i // 20}" for i in range(n)]))
    nothing = np.zeros((n, 0))
    labels = pa.StructArray.from_arrays([pa.nulls(n)], names=["label"])
    block = Block(ids, np.zeros((n, 2), np.float32), labels, nothing, nothing.astype(bool), 0.0, 0, groups)
    parts = parts_of(block, 5).reshape(20, 20)
    assert (parts == parts[:, :1]).all() and len(np.unique(parts)) > 2


def test_the_error_of_rows_left_out_is_that_of_the_fit_about_its_own_means() -> None:
    rng = np.random.default_rng(0)
    z, rest = rng.normal(size=(60, 4)), rng.normal(size=(25, 4)) + 2  # a fold that lies elsewhere
    y, target = rng.normal(size=(60, 2)), rng.normal(size=(25, 2)) - 3
    w = rng.normal(size=(4, 2))
    fitted_on, left_out = Moments.of(z, y=y, full=True), Moments.of(rest, y=target, full=True)
    predicted = y.mean(0) + (rest - z.mean(0)) @ w
    found = squared_error(w, slice(None), fitted_on, Subset(left_out, Whole(left_out.zz)))
    np.testing.assert_allclose(found, ((target - predicted) ** 2).sum(0))


def test_separation_and_area_of_weighted_rows() -> None:
    rng = np.random.default_rng(0)
    weights = np.vstack([np.ones(80, np.int64), rng.poisson(1, (2, 80))])
    y, score = np.arange(80) < 30, np.round(rng.normal(size=80) + (np.arange(80) < 30), 1)  # with ties
    sums, histogram = np.zeros((3, 2, 3)), np.zeros((2 * judging.BINS, 3), np.int32)
    places = np.searchsorted(np.unique(score), score)
    for r, w in enumerate(weights):
        for k, chosen in enumerate((y, ~y)):
            sums[r, k] = [(w * chosen * score**p).sum() for p in range(3)]
            np.add.at(histogram[:, r], places[chosen] + (0 if k == 0 else judging.BINS), w[chosen])
        a, b = np.repeat(score[y], w[y]), np.repeat(score[~y], w[~y])
        pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
        assert judging.separations(sums)[r] == pytest.approx((a.mean() - b.mean()) / np.sqrt(pooled))
    # Positives come first in the histogram, and bins in the order of their scores.
    exact = [roc_auc_score(y, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(judging.areas(histogram), exact)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_replicate_of_ridge_is_one_step_made_wider(kind: str) -> None:
    """w + √(n/(n − p)) (Σzz + λI)⁻¹ Σ(ω − 1)x(y − ŷ): n is 4n₊n₋/n for classes, p the effective coefficients and the mean."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 6)).astype(np.float32)
    y = z[:, 0] + rng.normal(size=120) > 1 if kind == "bool" else z[:, 0] + rng.normal(size=120)
    batch, l2 = batch_of(z, {"y": y}), 15.0
    fields = {"estimator": "ridge", "l2": l2, "holdout": 0.0, "bootstrap": 50}
    found = directions(step(**fields), {"y": kind}, batch)["y"]
    x, target = z - z.astype(float).mean(0), y - y.mean()
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(6))
    w = inverse @ x.T @ target
    omega = poisson_weights(hash_ids(batch.column("id")), 50).astype(float)
    n = 4 * y.sum() * (~y).sum() / 120 if kind == "bool" else 120
    p = 1 + np.trace(inverse @ x.T @ x)
    changes = np.sqrt(n / (n - p)) * (inverse @ (x * (target - x @ w)[:, None]).T @ (omega - 1)).T
    np.testing.assert_allclose(coefficients(found), w, rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, np.sqrt((changes**2).mean(0)), rtol=1e-4)
    assert effective_rows(Evidence.of_classes(10, 990)) == pytest.approx(39.6)


@pytest.mark.parametrize("own_units", [True, False])
def test_pulls_at_a_discriminant_add_up_to_nothing(own_units: bool) -> None:
    """Its classes and its shrunk covariance are those of the rows, so no row is left over; with a coordinate that never varies."""
    rng = np.random.default_rng(0)
    y = rng.random(200) > 0.3
    z = np.column_stack([rng.normal(size=(200, 3)) * [1, 5, 0.1] + y[:, None], np.full(200, 7.0)])
    moments = Moments.of(z, y=y[:, None].astype(float), full=True)
    classes = Classes.of(moments, 0)
    assert classes is not None
    unit = classes.deviation if own_units else np.ones(4)
    w, _, _ = discriminant(classes, moments.zz, shrinkage=0.3, unit=unit)
    estimate = Estimate(FitStatus.OK, Evidence.of_classes(*classes.n), coefficients=w)
    pulls = linearised_discriminant(estimate, classes, moments.zz, shrinkage=0.3, own_units=own_units)
    assert not isinstance(pulls, str) and pulls is not None
    each = pulls.scores(z, y.astype(float))
    assert np.abs(each.sum(0)).max() < 1e-10 * np.abs(each).sum(0).max()


def test_errors_are_of_the_replicates_that_there_are() -> None:
    """Of two positives one replicate in seven draws none."""
    latents, _ = faces(40)
    y = np.arange(40) < 2
    batch = batch_of(latents, {"y": y})
    found = directions(step(estimator="mean_difference", holdout=0.0, bootstrap=100), {"y": "bool"}, batch)["y"]
    z, truth = latents.astype(float), coefficients(found)
    weights = poisson_weights(hash_ids(batch.column("id")), 100).astype(float).T
    drawn = [w for w in weights if (w * y).sum() and (w * ~y).sum()]
    assert 75 <= len(drawn) < 95
    errors = [(w * y) @ z / (w * y).sum() - (w * ~y) @ z / (w * ~y).sum() - truth for w in drawn]
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.mean(np.square(errors), axis=0)), rtol=1e-6)


def test_held_out_rows_are_in_no_fold() -> None:
    ids, nothing = pa.array([f"r{i}" for i in range(500)]), np.zeros((500, 0))
    labels = pa.StructArray.from_arrays([pa.nulls(500)], names=["label"])
    block = Block(ids, np.zeros((500, 2), np.float32), labels, nothing, nothing.astype(bool), 0.3, 0)
    assert 100 < block.held_out.sum() < 200
    for folds in (1, 5):
        parts = parts_of(block, folds)
        np.testing.assert_array_equal(parts == folds, block.held_out)
        assert set(parts.tolist()) == set(range(folds + 1))
