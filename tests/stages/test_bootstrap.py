"""Poisson bootstrap weights: Poisson, independent, fixed by the group; intervals cover, with groups only when groups are told."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from scipy.stats import poisson

from stages.bootstrap import expanded, percentile_interval, poisson_weights
from stages.row_hash import hash_ids


def hashes(count: int, prefix: str = "row") -> np.ndarray:
    return hash_ids(pa.array([f"{prefix}/{i:06d}" for i in range(count)]))


def test_weights_are_poisson_and_independent() -> None:
    weights = poisson_weights(hashes(40_000), 12).astype(float)
    for k in range(5):
        share, expected = (weights == k).mean(), poisson.pmf(k, 1)
        assert abs(share - expected) < 5 * np.sqrt(expected / weights.size), k
    assert abs(weights.mean() - 1) < 0.01
    assert abs(weights.var() - 1) < 0.02
    between = np.corrcoef(weights.T) - np.eye(12)
    assert np.abs(between).max() < 5 / np.sqrt(40_000)
    following = np.corrcoef(weights[:-1, 0], weights[1:, 0])[0, 1]
    assert abs(following) < 5 / np.sqrt(40_000)


def test_a_weight_depends_on_group_replicate_and_seed_alone() -> None:
    some = hashes(50)
    weights = poisson_weights(some, 11)
    np.testing.assert_array_equal(poisson_weights(some[::-1], 11), weights[::-1])
    np.testing.assert_array_equal(poisson_weights(some[7:9], range(3, 10)), weights[7:9, 3:10])
    np.testing.assert_array_equal(poisson_weights(np.repeat(some, 3), 11), np.repeat(weights, 3, axis=0))
    assert (poisson_weights(some, 11, seed=1) != weights).any()
    assert poisson_weights(some[:0], 3).shape == (0, 3)
    np.testing.assert_array_equal(weights[0, :8], [1, 0, 2, 0, 2, 1, 1, 1])  # golden: stored intervals must not move


def covered(groups: int, per_group: int, *, told: bool, trials: int = 600) -> float:
    """How often the 95 % interval of a mean covers 0. A row is its group's number plus its own, of equal variance."""
    rng, hits = np.random.default_rng(1), 0
    for trial in range(trials):
        rows = np.repeat(rng.standard_normal(groups), per_group) * (per_group > 1)
        rows = rows + rng.standard_normal(len(rows)) * (0.1 if per_group > 1 else 1)
        keys = np.repeat(hashes(groups, str(trial)), per_group) if told else hashes(len(rows), str(trial))
        weights = poisson_weights(keys, 200).astype(float)
        interval = percentile_interval((rows @ weights) / weights.sum(0), confidence=0.95)
        assert interval is not None
        hits += interval[0] <= 0 <= interval[1]
    return hits / trials


def test_intervals_cover() -> None:
    assert 0.93 <= covered(200, 1, told=True) <= 0.97
    assert 0.93 <= covered(200, 8, told=True) <= 0.97


def test_ignoring_groups_undercovers() -> None:
    # Eight nearly equal rows a group: errors are √8 too small, so 1.96 of them reach .69 σ, which covers .51.
    assert 0.44 <= covered(60, 8, told=False, trials=300) <= 0.57


@pytest.mark.parametrize(
    ("values", "known"), [(np.arange(100.0), True), (np.full(100, np.nan), False), ([1.0] * 9, False)]
)
def test_an_interval_needs_replicates(values: np.ndarray, known: bool) -> None:
    assert (percentile_interval(values, confidence=0.9) is not None) == known


def test_an_interval_is_the_middle_of_what_is_finite() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 30)
    assert percentile_interval(values, confidence=0.9) == pytest.approx((4.1, 95.9))


def test_percentiles_of_few_images_are_asked_for_more() -> None:
    """t of 11 degrees is 2.201, and √(12/11) times that is what 95 % of twelve images asks of a normal law; of many nothing more."""
    assert expanded(0.95, 12) == pytest.approx(2 * stats.norm.cdf(2.2009851 * np.sqrt(12 / 11)) - 1, rel=1e-6)
    assert expanded(0.9, 10**9) == pytest.approx(0.9)
