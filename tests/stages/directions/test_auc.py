"""AUC from histograms: scikit-learn's within a bin's resolution, with an interval that covers as often as it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stages.directions.auc import BINS, Area, area, bins_of


def histogram(scores: np.ndarray) -> np.ndarray:
    return np.bincount(bins_of(scores), minlength=BINS)


def measured(positive: np.ndarray, negative: np.ndarray, confidence: float = 0.95) -> Area:
    found = area(histogram(positive), histogram(negative), confidence=confidence)
    assert found is not None
    return found


@pytest.mark.parametrize("shift", [-2.0, 0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("scale", [0.03, 1.0, 40.0])
def test_equals_scikit_learn(shift: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    positive, negative = (rng.standard_normal(4000) + shift) * scale, rng.standard_normal(9000) * scale
    truth = roc_auc_score(np.repeat([1, 0], [4000, 9000]), np.concatenate([positive, negative]))
    assert abs(measured(positive, negative).value - truth) < 2e-5


def test_ties_count_half() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 5, 300) * 1.0, rng.integers(-1, 4, 500) * 1.0
    truth = roc_auc_score(np.repeat([1, 0], [300, 500]), np.concatenate([positive, negative]))
    assert abs(measured(positive, negative).value - truth) < 1e-12


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=2, max_size=50))
def test_bins_keep_the_order(scores: list[float]) -> None:
    ordered = np.sort(np.array(scores))
    bins = bins_of(ordered)
    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0 and bins.max() < BINS


def test_zero_has_one_bin_and_neighbours_differ() -> None:
    assert bins_of(np.array([-0.0]))[0] == bins_of(np.array([0.0]))[0]
    assert len(set(bins_of(np.array([-1.0, -0.99, -1e-3, 1e-3, 0.99, 1.0])).tolist())) == 6


def test_merging_is_adding() -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.standard_normal(500) + 1, rng.standard_normal(700)
    whole = measured(positive, negative)
    halves = (
        histogram(positive[:9]) + histogram(positive[9:]),
        histogram(negative[:400]) + histogram(negative[400:]),
    )
    assert area(*halves, confidence=0.95) == whole


def test_variance_is_delongs() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.integers(0, 40, 60) / 8 + 0.5, rng.integers(0, 40, 80) / 8
    won = np.array([((p > negative) + (p == negative) / 2).mean() for p in positive])
    lost = np.array([((positive > q) + (positive == q) / 2).mean() for q in negative])
    error = np.sqrt(won.var(ddof=1) / 60 + lost.var(ddof=1) / 80)
    value = won.mean()
    reach = 1.959963984540054 * error / (value * (1 - value))
    expected = 1 / (1 + np.exp(-(np.log(value / (1 - value)) + np.array([-reach, reach]))))
    found = measured(positive, negative)
    np.testing.assert_allclose([found.value, found.low, found.high], [value, *expected], rtol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_interval_covers(shift: float) -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(4)
    truth, covered, runs = norm.cdf(shift / np.sqrt(2)), 0, 400
    for _ in range(runs):
        found = measured(rng.standard_normal(70) + shift, rng.standard_normal(120))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / runs <= 0.98


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0)])
def test_perfect_parting_keeps_an_honest_interval(sign: int, value: float) -> None:
    found = measured(np.linspace(5, 6, 30) * sign, np.linspace(-1, 1, 50) * sign)
    assert found.value == value
    assert abs((found.low if sign > 0 else 1 - found.high) - 0.025 ** (1 / 30)) < 1e-12


@pytest.mark.parametrize(("positive", "negative"), [(0, 5), (1, 5), (5, 1), (0, 0)])
def test_too_few_rows_have_no_area(positive: int, negative: int) -> None:
    found = area(histogram(np.arange(positive * 1.0)), histogram(np.arange(negative * 1.0)), confidence=0.95)
    assert found is None
