"""Benjamini–Hochberg against its textbook case, its promise under the null, and p-values that know no spread."""

import numpy as np
import pytest
from scipy import stats

from stages.evaluation.discovery import benjamini_hochberg, p_value


def test_the_example_of_the_paper() -> None:
    """The fifteen p-values of Benjamini & Hochberg (1995, §3.2): four are discoveries at .05."""
    given = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]  # fmt: skip
    found = benjamini_hochberg(given[::-1])[::-1]
    assert sum(q <= 0.05 for q in found if q is not None) == 4
    assert found[3] == pytest.approx(0.0095 * 15 / 4)


@pytest.mark.parametrize("seed", range(3))
def test_q_values_are_scipys(seed: int) -> None:
    """Also where a q-value would fall below that of a smaller p, of ties, and of p that are exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    given = np.concatenate([rng.random(20) ** 3, [0.0, 0.0, 1.0, 1.0, 0.04, 0.04, 0.0401]])
    found = benjamini_hochberg(rng.permutation(given).tolist())
    assert sorted(found) == pytest.approx(sorted(stats.false_discovery_control(given)), rel=1e-12)


def test_a_p_value_is_two_sided_by_the_replicates_spread() -> None:
    replicates = np.random.default_rng(0).standard_normal(12)
    for value in (0.7, -0.7):
        assert p_value(value, replicates) == pytest.approx(2 * stats.norm.sf(0.7 / np.std(replicates, ddof=1)))


def test_a_p_value_of_few_images_is_students() -> None:
    """Of the mean of twelve numbers it is the t-test's, with the replicates that a bootstrap of many draws would give."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(12) + 0.5
    error = x.std(ddof=0) / np.sqrt(12)
    replicates = x.mean() + error * np.array([-1.0, 1.0]).repeat(50) * np.sqrt(99 / 100)
    assert p_value(x.mean(), replicates, 12) == pytest.approx(stats.ttest_1samp(x, 0).pvalue)


def test_missing_tests_do_not_count() -> None:
    assert benjamini_hochberg([None, 0.04, None]) == [None, 0.04, None]
    assert benjamini_hochberg([]) == []


def test_false_discoveries_stay_below_the_rate() -> None:
    """20 real effects among 100, 400 times: the mean share of false ones among the discoveries."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        values = rng.standard_normal(100)
        values[:20] += 3.5
        replicates = rng.standard_normal((100, 400))
        found = benjamini_hochberg([p_value(float(v), r) for v, r in zip(values, replicates, strict=True)])
        real = [i for i, q in enumerate(found) if q is not None and q <= 0.1]
        shares.append(sum(i >= 20 for i in real) / max(len(real), 1))
    assert 0.04 < np.mean(shares) < 0.1


def test_a_p_value_needs_spread() -> None:
    assert p_value(2.0, np.full(100, 2.0)) == 0
    assert p_value(0.0, np.zeros(100)) == 1
    assert p_value(1.0, np.full(100, np.nan)) is None
    assert p_value(float("nan"), np.arange(100.0)) is None
