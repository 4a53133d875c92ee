"""Intervals of two sets that share no image: what they are made of, how often they hold, and why some are missing."""

import numpy as np
import pytest

from stages.moments import Moments
from stages.scores.coverage import coverage_of
from stages.scores.coverage_without import SHARES, Balls, shares_without
from stages.scores.fidelity_intervals import Rows, frechet_interval, share_intervals
from stages.scores.frechet import frechet_distance
from stages.scores.grouped import GROUPS, JACKKNIFE_FEATURES, Grouped
from stages.scores.interval import NoInterval

K = 3


def rows(rng: np.random.Generator, n: int, *, shift: float = 0.0, dim: int = 3, per_group: int = 1) -> Rows:
    """Features N(shift, I) in groups by lot; where several pictures are of one image, they share half of their variance."""
    x = rng.standard_normal((n, dim))
    if per_group > 1:
        x = np.sqrt(0.5) * (x + np.repeat(rng.standard_normal((n // per_group, dim)), per_group, axis=0))
    return Rows(x + shift, np.repeat(rng.integers(0, GROUPS, n // per_group), per_group), n, K)


def without(one: Rows, group: int) -> np.ndarray:
    return one.features[one.groups != group]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Moments.of(a, full=True), Moments.of(b, full=True))


def test_the_interval_is_of_the_distances_without_each_group() -> None:
    rng = np.random.default_rng(0)
    a, b = rows(rng, 200), rows(rng, 150, shift=0.5)
    value = distance(a.features, b.features)
    left = np.array([distance(without(a, g), without(b, g)) for g in range(GROUPS)])
    found = frechet_interval(value, a, b)
    reach = 2.0930 * np.sqrt((GROUPS - 1) * left.var())  # t of 19 degrees
    assert (found.low, found.high, found.why) == (
        pytest.approx(value - reach, rel=1e-4),
        pytest.approx(value + reach, rel=1e-4),
        None,
    )
    # Of four times as many pictures as are sampled the error is half.
    more = frechet_interval(value, Rows(a.features, a.groups, 800, K), Rows(b.features, b.groups, 600, K))
    assert more.high - value == pytest.approx(reach / 2, rel=1e-4)
    # One set sampled whole, and its error is all there.
    mixed = frechet_interval(value, Rows(a.features, a.groups, 800, K), b)
    assert mixed.high - value == pytest.approx(reach, rel=1e-4)


@pytest.mark.parametrize("crowd", [1, 60])
def test_shares_without_a_group_are_those_of_the_rows_left(crowd: int) -> None:
    """Also where one group has a corner to itself, so that all neighbours looked at first are of it."""
    rng = np.random.default_rng(1)
    a, b = rows(rng, 140), rows(rng, 120, shift=0.4)
    for one in (a, b):
        one.features[:crowd] = 5 + 1e-3 * one.features[:crowd]
        one.groups[:crowd] = 7
    balls = [Balls.of(one.features, one.groups, np.arange(GROUPS), k=K) for one in (a, b)]
    found = shares_without(balls[0], balls[1], k=K)
    for g in range(GROUPS):
        whole = coverage_of(without(a, g), without(b, g), k=K)
        assert [found[name][g] for name in SHARES] == pytest.approx([getattr(whole, name) for name in SHARES])


def test_points_on_the_rim_of_a_ball_are_in_it_without_a_group_too() -> None:
    """Points of a grid, where most distances are a radius: by the definition, in whole numbers."""
    rng = np.random.default_rng(6)
    a, b = (rng.integers(-3, 4, (n, 2)).astype(float) for n in (80, 70))
    groups = [np.arange(len(x)) % GROUPS for x in (a, b)]
    found = shares_without(*(Balls.of(x, g, np.arange(GROUPS), k=K) for x, g in zip((a, b), groups, strict=True)), k=K)
    for g in range(GROUPS):
        real, made = a[groups[0] != g], b[groups[1] != g]
        apart, reach = ((made[:, None] - real) ** 2).sum(2), []
        for points in (real, made):
            own = ((points[:, None] - points) ** 2).sum(2) + np.diag(np.full(len(points), np.inf))
            reach.append(np.sort(own, axis=1)[:, K - 1])
        inside = apart <= reach[0]
        expected = inside.any(1).mean(), (apart <= reach[1][:, None]).any(0).mean(), inside.sum(1).mean() / K, inside.any(0).mean()  # fmt: skip
        assert [found[name][g] for name in SHARES] == pytest.approx(expected)


@pytest.mark.parametrize("per_group", [1, 5])
def test_intervals_of_the_distance_hold_what_such_sets_score_on_average(per_group: int) -> None:
    rng = np.random.default_rng(2)
    values, found = [], []
    for _ in range(200):
        a, b = rows(rng, 300), rows(rng, 300, shift=0.4, per_group=per_group)
        values.append(distance(a.features, b.features))
        found.append(frechet_interval(values[-1], a, b))
    held = np.mean([one.low <= np.mean(values) <= one.high for one in found])
    assert 0.91 <= held <= 0.985, held


def test_intervals_of_shares_hold_what_such_sets_score_on_average() -> None:
    rng = np.random.default_rng(3)
    values, found = [], []
    for _ in range(120):
        a, b = rows(rng, 200, dim=2), rows(rng, 200, dim=2, shift=0.8)
        near = coverage_of(a.features, b.features, k=K)
        values.append({name: getattr(near, name) for name in SHARES})
        found.append(share_intervals(values[-1], a, b))
    for name in SHARES:
        drawn = np.array([one[name] for one in values])
        mean, width = drawn.mean(), np.mean([one[name].high - one[name].low for one in found])
        held = np.mean([one[name].low <= mean <= one[name].high for one in found])
        assert held >= 0.9, (name, held)
        assert 0.8 <= width / (2 * 2.093 * drawn.std()) <= 1.9, name  # wider than need be: see docs/measures.md


def test_a_share_of_everything_is_not_certain() -> None:
    rng = np.random.default_rng(4)
    a, b = rows(rng, 100), rows(rng, 100, shift=50)
    found = share_intervals(dict.fromkeys(SHARES, 0.0), a, b)
    assert found.pop("density").why is NoInterval.NO_SPREAD
    shared = share_intervals(dict.fromkeys(SHARES, 0.0), a, b, alone=False)  # 100 pictures may be 2 people's
    assert {one.why for one in shared.values()} == {NoInterval.NO_SPREAD}
    assert len(found) == 3
    assert all(one.low == 0 and one.high == pytest.approx(1 - 0.025**0.01) for one in found.values())


def test_a_missing_interval_says_why() -> None:
    rng = np.random.default_rng(5)
    a, few, wide = rows(rng, 60), rows(rng, 5), rows(rng, 20, dim=JACKKNIFE_FEATURES + 1)
    flat = Rows(a.features, np.arange(60) % 5, 60, K)
    assert frechet_interval(1.0, wide, wide).why is NoInterval.TOO_WIDE
    assert frechet_interval(1.0, a, few).why is NoInterval.FEWER_THAN_FEATURES
    assert frechet_interval(1.0, a, flat).why is NoInterval.TOO_FEW_GROUPS
    crowded = Rows(few.features, np.zeros(5, int), 5, K)
    assert {one.why for one in share_intervals({}, a, crowded).values()} == {NoInterval.TOO_FEW}
    found = share_intervals({}, a, flat)["recall"]
    assert (found.low, found.why, found.said) == (
        None,
        NoInterval.TOO_FEW_GROUPS,
        "fewer than 10 groups of images: no interval",
    )
    assert Grouped(few.features, few.groups).largest >= 1
