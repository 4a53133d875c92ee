"""k-NN precision, recall, density, coverage: against brute force, on sets whose answer is known, and in any blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.scores import coverage
from stages.scores.coverage import coverage_of


def brute_force(reference: np.ndarray, candidate: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The published definitions, pair by pair."""

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    real_radius = np.sort(distance(reference, reference), axis=1)[:, k]
    made_radius = np.sort(distance(candidate, candidate), axis=1)[:, k]
    between = distance(reference, candidate)
    inside = between <= real_radius[:, None]
    return (
        inside.any(0).mean(),
        (between <= made_radius[None]).any(1).mean(),
        inside.sum(0).mean() / k,
        (between.min(1) <= real_radius).mean(),
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), far=st.sampled_from([0.0, 1e5]), block=st.integers(30, 5000))
def test_equals_the_definitions(seed: int, k: int, far: float, block: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((60, 4)) + far
    candidate = rng.standard_normal((45, 4)) * rng.uniform(0.3, 2) + far + rng.uniform(-1, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "BLOCK_VALUES", block)
        found = coverage_of(reference, candidate, k=k)
    scores = (found.precision, found.recall, found.density, found.coverage)
    assert scores == pytest.approx(brute_force(reference, candidate, k), abs=1e-12)


def test_one_distribution_twice_is_near_one_and_covered_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    found = coverage_of(rng.standard_normal((1500, 8)), rng.standard_normal((1500, 8)), k=5)
    assert found.density == pytest.approx(1, abs=0.06)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al., lemma 2: 1 − Π (M−i)/(2M−i) ≈ 1 − 2⁻ᵏ
    assert min(found.precision, found.recall) > 0.8


def test_a_dropped_mode_lowers_recall_and_coverage_and_not_precision() -> None:
    rng = np.random.default_rng(1)
    both = np.concatenate([rng.standard_normal((300, 3)), rng.standard_normal((300, 3)) + 20])
    one = rng.standard_normal((600, 3))
    dropped = coverage_of(both, one)
    assert dropped.precision > 0.9 and dropped.recall == pytest.approx(0.5, abs=0.05)
    assert dropped.coverage < 0.52
    assert not dropped.covered[300:].any() and not dropped.reached[300:].any()  # the hole is located, point by point
    invented = coverage_of(one, both)
    assert invented.precision == pytest.approx(0.5, abs=0.05) and invented.recall > 0.9


def test_one_outlier_fools_precision_and_not_density() -> None:
    rng = np.random.default_rng(2)
    reference = np.concatenate([rng.standard_normal((400, 2)), [[60.0, 0.0]]])
    candidate = rng.standard_normal((400, 2)) + np.array([30.0, 0.0])
    found = coverage_of(reference, candidate)
    assert found.precision > 0.95 and found.density < 0.25


def test_equal_points_have_distance_zero_even_far_from_the_origin() -> None:
    points = np.repeat(np.random.default_rng(3).standard_normal((10, 6)) * 1e3 + 1e6, 8, axis=0)
    found = coverage_of(points, points, k=5)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(8 / 5)  # each point lies in the balls, of radius 0, of its 8 copies


def test_too_few_rows_are_refused_with_their_numbers() -> None:
    with pytest.raises(ValueError, match="5 reference and 9 candidate rows; both must be more than k = 5"):
        coverage_of(np.zeros((5, 2)), np.zeros((9, 2)), k=5)
