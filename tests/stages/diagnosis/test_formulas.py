"""Terms of a diagnosis that healthy and broken codecs do not tell apart: each against its textbook or scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binomtest

from stages.diagnosis.aggregate import full_kl, ks_bound, wilson
from stages.diagnosis.neighbours import coverage_map, overlap
from stages.diagnosis.norms import NormHistogram


def test_the_full_kl_of_a_sample_of_the_prior_is_zero_on_average() -> None:
    """Without the Wishart bias it would read d(d + 1)/4n = 1.8 nats; with log(n/2) in it, d/2n less."""
    n, d, found = 30, 14, []
    for seed in range(600):
        z = np.random.default_rng(seed).normal(size=(n, d))
        z -= z.mean(0)  # of the mean's own chance this test is not
        covariance = np.cov(z.T)
        sign, logdet = np.linalg.slogdet(covariance)
        unclipped = full_kl(3 * np.ones(d), covariance, n)  # far off, so that nothing is cut at zero
        assert unclipped is not None and sign > 0
        found.append(unclipped - 9 * d / 2)
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.std(found) / np.sqrt(len(found)) * 4 < d / (2 * n), "or the test would not see n for n − 1"


def test_the_ks_bound_holds_for_the_largest_of_many_tests() -> None:
    """DKW with a union bound: P(D > ε) ≤ 2 tests exp(−2nε²)."""
    for n, tests, alpha in ((100, 1, 0.05), (5000, 512, 0.001)):
        assert 2 * tests * np.exp(-2 * n * ks_bound(n, tests, alpha) ** 2) == pytest.approx(alpha)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 12), (7, 12), (12, 12), (480, 1000)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    exact = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(successes, n), (exact.low, exact.high), atol=2e-5)  # 1.96 for the quantile


def test_precision_recall_density_and_coverage_are_their_definitions() -> None:
    """Kynkäänniemi et al. 2019, Naeem et al. 2020, by every distance."""
    rng, k = np.random.default_rng(0), 3
    codes, draws = rng.normal(size=(90, 2)), 0.5 * rng.normal(size=(90, 2)) + 0.8
    between = cdist(draws, codes)
    code_radius = np.sort(cdist(codes, codes), axis=1)[:, k]
    draw_radius = np.sort(cdist(draws, draws), axis=1)[:, k]
    found = overlap(codes, draws, k=k)
    assert found.precision == (between <= code_radius).any(1).mean()
    assert found.recall == (between <= draw_radius[:, None]).any(0).mean()
    assert found.density == pytest.approx((between <= code_radius).sum() / (k * 90))
    assert found.coverage == (between <= code_radius).any(0).mean()
    np.testing.assert_array_equal(found.nearest_code, between.argmin(1))
    np.testing.assert_allclose(found.gap, between.min(1) / code_radius[between.argmin(1)])
    assert len({found.precision, found.recall, round(found.density, 6), found.coverage}) == 4


def test_the_map_has_the_main_axis_across_and_the_second_up() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(4000, 3)) * [4, 1, 0.5]
    seen = coverage_map(codes, codes[:100], size=8)
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    across, up = ((codes - codes.mean(0)) @ vectors[:, i] for i in (2, 1))
    for row in range(8):
        for column in range(8):
            inside = (across >= seen.edges[0][column]) & (across < seen.edges[0][column + 1])
            inside &= (up >= seen.edges[1][row]) & (up < seen.edges[1][row + 1])
            assert abs(int(inside.sum()) - seen.codes[row, column]) <= 1
    assert np.ptp(seen.edges[0]) > 3 * np.ptp(seen.edges[1])
    assert seen.explained == pytest.approx((values[2] + values[1]) / values.sum())


def test_a_norm_of_a_histogram_is_the_middle_of_its_bin() -> None:
    norms = np.exp(np.random.default_rng(2).uniform(0, 1, 20_000))
    told = NormHistogram.of(norms**2)
    off = np.array([told.quantile(q) / np.quantile(norms, q) for q in np.linspace(0.01, 0.99, 99)]) - 1
    assert abs(off.mean()) < 1e-4, "a bin is .14 % wide"
    assert (told.counts @ told.centres) / told.n == pytest.approx(told.mean, rel=1e-5)
