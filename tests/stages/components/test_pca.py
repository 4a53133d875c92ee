"""PCA equals NumPy's and scikit-learn's, signs and all, on any split; whitening whitens; wide rows agree with narrow ways."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from stages.components.eigen import leading, signed
from stages.components.found import Found
from stages.components.principal import Limits
from stages.directions.direction import FitStatus
from stages.scatter.strips import cuts
from tests.labelled import chunks, uneven
from tests.unlabelled import latent_batch, pca_of, spread_rows, vectors

STRIPS = Limits(full=4, strips=10**6, block_values=150)
SKETCHED = Limits(full=4, strips=4)


def value_of(found: Found, metric: str, subject: str = "") -> float:
    (value,) = [m.value for m in found.measurements if (m.metric, m.subject) == (metric, subject)]
    assert value is not None
    return value


def exact_pca(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances and components, in extended precision up to the eigenvectors."""
    wide = x.astype(np.longdouble)
    centred = wide - wide.mean(0)
    values, axes = np.linalg.eigh((centred.T @ centred / (len(x) - 1)).astype(np.float64))
    return values[::-1], signed(axes.T[::-1])


@given(
    shape=st.tuples(st.integers(20, 300), st.integers(2, 12), st.integers(0, 2**32 - 1)),
    offset=st.sampled_from([0.0, 1e3, -1e6, 1e6]),
    ordered=st.booleans(),
)
@settings(max_examples=40)
def test_any_split_gives_numpys_components(shape: tuple[int, int, int], offset: float, ordered: bool) -> None:
    n, d, seed = shape
    x = spread_rows(n, d, seed=seed, offset=offset)
    if ordered:
        x = np.sort(x, axis=0)
    found, _ = pca_of(list(uneven(latent_batch(x), seed)), count=d)
    values, axes = exact_pca(x)
    # Eigenvectors move by the statistic's error over the gap to the next value; both are measured in the largest value.
    known = values > 1e-9 * values[0]
    variance = np.array([d.sigma for d in found.directions if d.sigma is not None]) ** 2
    assert np.abs(variance[known[: len(variance)]] - values[known]).max() <= 1e-10 * values[0]
    gaps = np.minimum(np.abs(np.diff(values, prepend=np.inf)), np.abs(np.diff(values, append=-np.inf)))
    for mine, exact, gap in zip(vectors(found.directions), axes, gaps, strict=False):
        if gap > 1e-3 * values[0]:
            np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-10)


def test_equal_to_scikit_learn_with_its_signs() -> None:
    x = spread_rows(2000, 12, offset=3.0)
    found, folds = pca_of([chunks(latent_batch(x), 300)], count=5)
    exact = PCA(5, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(vectors(found.directions), exact.components_, rtol=0, atol=1e-10)
    for i in range(5):
        name = f"pca.{i}"
        assert value_of(found, "explained_variance", name) == pytest.approx(exact.explained_variance_[i], rel=1e-10)
        ratio = exact.explained_variance_ratio_[i]
        assert value_of(found, "explained_variance_ratio", name) == pytest.approx(ratio, rel=1e-10)
        assert found.directions[i].sigma == pytest.approx(exact.explained_variance_[i] ** 0.5, rel=1e-10)
    np.testing.assert_allclose(found.directions[0].mean, exact.mean_, rtol=1e-10)
    scores = x.astype(np.float64) @ vectors(found.directions).T + [d.intercept for d in found.directions]
    np.testing.assert_allclose(scores, exact.transform(x.astype(np.float64)), atol=1e-9)
    assert folds == ["SecondMoments"]  # one pass


def test_whitening_whitens_on_the_rank_and_says_where_it_ends() -> None:
    x = spread_rows(400, 6, offset=5.0, decay=0.5)
    x = np.hstack([x, x[:, :1] + x[:, 1:2]])  # a seventh coordinate that follows from the others
    found, _ = pca_of([[latent_batch(x)]], estimator="whitening", count=7)
    assert [d.status for d in found.directions] == ["ok"] * 6 + [FitStatus.NO_VARIANCE]
    assert found.directions[6].vector is None
    good = found.directions[:6]
    scores = x.astype(np.float64) @ np.array([d.vector * d.raw_norm for d in good]).T + [d.intercept for d in good]
    np.testing.assert_allclose(np.cov(scores.T), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-9)


@pytest.mark.parametrize("limits", [STRIPS, SKETCHED], ids=["strips", "sketched"])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_wide_ways_equal_the_narrow_one(limits: Limits, offset: float) -> None:
    x = spread_rows(600, 40, offset=offset)
    exact, _ = pca_of([[latent_batch(x)]], count=6)
    found, folds = pca_of(list(uneven(latent_batch(x), 3)), count=6, limits=limits, passes=30)
    for mine, other in zip(found.directions, exact.directions, strict=True):
        np.testing.assert_allclose(mine.vector, other.vector, rtol=0, atol=1e-8)
        assert mine.sigma == pytest.approx(other.sigma, rel=1e-10)
    assert value_of(found, "total_explained_variance") == pytest.approx(value_of(exact, "total_explained_variance"))
    assert folds[0] == "SecondMoments" and len(folds) > 2


def test_strips_cover_the_upper_triangle_within_their_size() -> None:
    assert cuts(10, 30) == [(0, 3), (3, 7), (7, 10)]
    for p, size in ((1, 1), (40, 150), (16384, 2**24)):
        found = cuts(p, size)
        assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])] and found[-1][1] == p
        assert all((b - a) * (p - a) <= max(size, p) for a, b in found)
    assert len(cuts(16384, 2**24)) == 10


def test_a_flat_spectrum_cannot_be_sketched_in_one_pass_and_says_so() -> None:
    x = np.random.default_rng(0).standard_normal((500, 60))
    found, folds = pca_of([[latent_batch(x)]], count=3, limits=SKETCHED, passes=1)
    assert folds == ["SecondMoments", "Sketch"]
    told = [m for m in found.measurements if m.metric == "explained_variance"]
    assert {m.status for m in told} == {"not_converged"}
    assert all("passes" in str(d.message) for d in found.directions)


def test_a_planted_low_rank_is_found_by_two_passes_of_the_sketch() -> None:
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.standard_normal((90, 4)))[0].T
    x = rng.standard_normal((800, 4)) * [8, 4, 2, 1] @ axes
    x = x.astype(np.float32)
    found, folds = pca_of([[latent_batch(x)]], count=5, limits=SKETCHED)
    assert len(folds) == 3  # the mean, the range, and the pass that shows it is exact
    values, exact = exact_pca(x)
    np.testing.assert_allclose(vectors(found.directions), exact[:4], atol=1e-8)
    assert [d.status for d in found.directions] == ["ok"] * 4 + [FitStatus.NO_VARIANCE]
    np.testing.assert_allclose([d.sigma**2 for d in found.directions[:4]], values[:4], rtol=1e-10)


def test_rows_that_are_not_finite_leave_and_are_counted() -> None:
    x = spread_rows(300, 5)
    spoilt = x.copy()
    spoilt[7, 2], spoilt[100] = np.nan, np.inf
    batch = latent_batch(spoilt)
    valid = np.ones(300, bool)
    valid[200] = False
    column = pa.FixedSizeListArray.from_arrays(batch.column("latent").values, 5, mask=pa.array(~valid))
    batch = pa.record_batch({"id": batch.column("id"), "latent": column})
    found, _ = pca_of([chunks(batch, 64)], count=5)
    clean, _ = pca_of([[latent_batch(np.delete(x, [7, 100, 200], axis=0))]], count=5)
    np.testing.assert_allclose(vectors(found.directions), vectors(clean.directions), atol=1e-12)
    assert found.directions[0].non_finite == value_of(found, "non_finite") == 3
    assert found.directions[0].n == 297


@pytest.mark.parametrize("limits", [Limits(), STRIPS, SKETCHED], ids=["full", "strips", "sketched"])
@pytest.mark.parametrize(
    ("rows", "status"),
    [
        (np.zeros((0, 6)), FitStatus.NO_ROWS),
        (np.ones((1, 6)), FitStatus.TOO_FEW),
        (np.ones((9, 6)), FitStatus.CONSTANT),
        (np.full((9, 6), np.nan), FitStatus.NO_ROWS),
    ],
)
def test_rows_that_have_no_components(limits: Limits, rows: np.ndarray, status: FitStatus) -> None:
    found, _ = pca_of([[latent_batch(rows)]], count=3, limits=limits)
    assert [d.status for d in found.directions] == [status] * 3
    assert all(d.vector is None and d.sigma is None for d in found.directions)


@pytest.mark.parametrize("limits", [STRIPS, SKETCHED], ids=["strips", "sketched"])
def test_fewer_rows_than_components(limits: Limits) -> None:
    x = spread_rows(5, 30)
    found, _ = pca_of([[latent_batch(x)]], count=8, limits=limits)
    assert [d.status for d in found.directions] == ["ok"] * 4 + [FitStatus.NO_VARIANCE] * 4
    np.testing.assert_allclose([d.sigma**2 for d in found.directions[:4]], exact_pca(x)[0][:4], rtol=1e-9)


@pytest.mark.parametrize("count", [6, 7])
@pytest.mark.parametrize("limits", [STRIPS, SKETCHED], ids=["strips", "sketched"])
def test_as_many_components_as_the_rows_have_numbers(limits: Limits, count: int) -> None:
    x = spread_rows(200, 7)
    found, _ = pca_of([[latent_batch(x)]], count=count, limits=limits)
    np.testing.assert_allclose([d.sigma**2 for d in found.directions], exact_pca(x)[0][:count], rtol=1e-9)


def test_components_that_differ_by_chance_only_are_said_to_be_unresolved() -> None:
    x = np.random.default_rng(2).standard_normal((300, 4)) * [5.0, 1.0, 1.0, 0.1]
    found, _ = pca_of([[latent_batch(x)]], count=4)
    told = {m.subject: m.status for m in found.measurements if m.metric == "explained_variance"}
    assert told == {"pca.0": "ok", "pca.1": "unresolved", "pca.2": "unresolved", "pca.3": "ok"}
    assert "component 2" in str(found.directions[1].message)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_few_eigenvectors_or_all_of_them_are_the_same(count: int) -> None:
    x = spread_rows(50, 12)
    values, axes = exact_pca(x)
    found = leading(np.cov(x.astype(np.float64).T), count)
    np.testing.assert_allclose(found.values, values[:count], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.vectors[:1], axes[:1], atol=1e-10)
    assert (found.vectors[np.arange(count), np.abs(found.vectors).argmax(1)] > 0).all()
