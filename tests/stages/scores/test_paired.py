"""Distances of pictures from those they were made of: nothing is nothing, known answers, intervals that hold."""

import numpy as np
import pytest

from stages.moments import Moments
from stages.scores.frechet import frechet_distance
from stages.scores.grouped import GROUPS, JACKKNIFE_FEATURES
from stages.scores.kernel_distance import kernel
from stages.scores.paired import Unedited

SHIFT, STRETCH, DIM = 0.3, 1.2, 4
TRUTH = DIM * (SHIFT**2 + (STRETCH - 1) ** 2)  # of N(0, I) and its image under x → 1.2 x + .3


def images(n: int, seed: int, *, per_group: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 4), and groups: of as many images each, which share half of their variance where there are several."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, DIM))
    if per_group > 1:
        x = np.sqrt(0.5) * (x + np.repeat(rng.standard_normal((n // per_group, DIM)), per_group, axis=0))
    return x, np.repeat(rng.integers(0, GROUPS, n // per_group), per_group)


def test_an_edit_of_nothing_is_at_zero_at_any_n() -> None:
    for n in (30, 300):
        x, groups = images(n, 0)
        for distance in (Unedited(x, groups).frechet(x), Unedited(x, groups).kernel(x)):
            assert distance.value == pytest.approx(0, abs=1e-6)
            assert distance.n == n


def test_values_are_those_of_the_plain_definitions() -> None:
    x, groups = images(300, 1)
    y = STRETCH * x + SHIFT
    held = Unedited(x, groups)
    moments = [Moments.of(rows, full=True) for rows in (x, y)]
    assert held.frechet(y).value == pytest.approx(frechet_distance(*moments), rel=1e-9)
    pairs = [
        kernel(x[i : i + 1], x[j : j + 1])
        + kernel(y[i : i + 1], y[j : j + 1])
        - kernel(x[i : i + 1], y[j : j + 1])
        - kernel(x[j : j + 1], y[i : i + 1])
        for i in range(40)
        for j in range(40)
        if i != j
    ]
    assert Unedited(x[:40], groups[:40]).kernel(y[:40]).value == pytest.approx(np.mean(pairs), rel=1e-9)


@pytest.mark.parametrize("kind", ["frechet", "kernel"])
def test_the_jackknife_is_of_the_estimates_without_each_group(kind: str) -> None:
    x, groups = images(120, 2)
    y = STRETCH * x + SHIFT
    found = getattr(Unedited(x, groups), kind)(y)
    parts = [(x[groups != g], groups[groups != g], y[groups != g]) for g in np.unique(groups)]
    without = np.array([getattr(Unedited(rows, dealt), kind)(edited).value for rows, dealt, edited in parts])
    error = np.sqrt((len(without) - 1) * without.var())
    assert found.high - found.value == pytest.approx(2.093 * error, rel=2e-3)  # t of 19 degrees


@pytest.mark.parametrize("per_group", [1, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(per_group: int) -> None:
    """200 simulations of 600 images: 95 % intervals of the Fréchet distance, images alone and in groups."""
    inside = 0
    for seed in range(200):
        x, groups = images(600, seed, per_group=per_group)
        found = Unedited(x, groups).frechet(STRETCH * x + SHIFT)
        assert found.low is not None and found.high is not None
        inside += found.low <= TRUTH <= found.high
    assert 182 <= inside <= 198, inside


def test_too_few_images_have_no_value_and_few_groups_no_interval() -> None:
    x, groups = images(5, 0)
    assert Unedited(x, groups).frechet(x).value is None
    x, _ = images(100, 0)
    few = Unedited(x, np.arange(100) % 5)
    for distance in (few.frechet(2 * x), few.kernel(2 * x)):
        assert distance.value is not None
        assert (distance.low, distance.high) == (None, None)
    assert Unedited(x[:1], groups[:1]).kernel(x[:1]).value is None


def test_wide_features_have_a_value_without_an_interval() -> None:
    rng = np.random.default_rng(0)
    width = JACKKNIFE_FEATURES + 1
    x = rng.standard_normal((width + 10, width))
    found = Unedited(x, np.arange(len(x)) % GROUPS).frechet(x + 0.1)
    assert found.value == pytest.approx(0.01 * width, rel=1e-3)
    assert found.low is None
