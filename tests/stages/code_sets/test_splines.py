"""Splines pass through their keys, smoothly as promised, and one key stays where it is."""

import numpy as np
import pytest

from stages.code_sets.great_circle import angles, units
from stages.code_sets.interpolation import slerp_radius
from stages.code_sets.splines import catmull_rom, squad

KNOTS = ["uniform", "centripetal"]
RADII = ["linear", "geometric"]


def keys(seed: int, k: int = 5, d: int = 16, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k, d))


def every():
    return [
        *(lambda x, t, kind=kind: catmull_rom(x, t, knots=kind) for kind in KNOTS),
        *(lambda x, t, kind=kind: squad(x, t, radius=kind) for kind in RADII),
    ]


SPLINES = pytest.mark.parametrize("spline", every(), ids=[*KNOTS, *(f"squad {r}" for r in RADII)])


@SPLINES
@pytest.mark.parametrize("k", [2, 3, 4, 5, 7, 11])
def test_passes_through_its_keys(spline, k):
    x = keys(0, k)
    np.testing.assert_array_equal(spline(x, np.linspace(0, 1, k)).values, x)


@SPLINES
def test_one_key_is_a_path_that_stays(spline):
    x = keys(1, 1)
    path = spline(x, np.linspace(0, 1, 4))
    np.testing.assert_array_equal(path.values, np.repeat(x, 4, axis=1))
    assert (path.status == "ok").all()


@SPLINES
def test_backwards_is_the_same_path(spline):
    x, t = keys(2), np.linspace(0, 1, 13)
    np.testing.assert_allclose(spline(x[:, ::-1], t).values, spline(x, t).values[:, ::-1], atol=1e-12)


@SPLINES
def test_equal_keys_are_no_trouble(spline):
    x, t = keys(3), np.linspace(0, 1, 17)
    x[:, 2] = x[:, 1]
    path = spline(x, t)
    assert (path.status == "ok").all() and np.isfinite(path.values).all()
    np.testing.assert_array_equal(path.values[:, ::4], x)
    still = spline(np.repeat(x[:, :1], 4, axis=1), t).values
    np.testing.assert_allclose(still, np.repeat(x[:, :1], 17, axis=1), atol=1e-12)


@pytest.mark.parametrize("knots", KNOTS)
def test_catmull_rom_waits_between_equal_keys(knots):
    x = keys(3)
    x[:, 2] = x[:, 1]
    values = catmull_rom(x, np.linspace(0, 1, 17), knots=knots).values
    np.testing.assert_allclose(values[:, 4:9], np.repeat(x[:, [1]], 5, axis=1), atol=1e-14)


@SPLINES
def test_turns_with_the_space(spline):
    rotation, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((16, 16)))
    x, t = keys(5), np.linspace(0, 1, 9)
    np.testing.assert_allclose(spline(x @ rotation.T, t).values, spline(x, t).values @ rotation.T, atol=1e-11)


@SPLINES
def test_bad_keys_are_typed_and_others_left_alone(spline):
    x, t = keys(6), np.linspace(0, 1, 9)
    clean = spline(x, t).values
    x[1, 2, 3] = np.nan
    path = spline(x, t)
    assert path.status.tolist() == ["ok", "nan_input", "ok"]
    np.testing.assert_array_equal(path.values[[0, 2]], clean[[0, 2]])
    assert np.isnan(path.values[1]).all()


@SPLINES
@pytest.mark.parametrize("t", [-0.1, 1.1])
def test_there_is_nothing_beyond_the_ends(spline, t):
    with pytest.raises(ValueError, match="from 0 to 1"):
        spline(keys(7), [t])


def velocities(spline, x, key):
    """One-sided velocities at a key, by t."""
    at, e = key / (x.shape[1] - 1), 1e-6
    before, here, after = np.moveaxis(spline(x, [at - e, at, at + e]).values, 1, 0)
    return (here - before) / e, (after - here) / e


@pytest.mark.parametrize("spline", [every()[0], *every()[2:]], ids=["uniform", *RADII])
def test_velocity_is_continuous_at_keys(spline):
    for key in (1, 2, 3):
        before, after = velocities(spline, keys(8), key)
        np.testing.assert_allclose(before, after, atol=1e-3)


def test_centripetal_bends_smoothly_with_a_speed_that_jumps():
    x = keys(9)
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    before, after = velocities(every()[1], x, 1)
    np.testing.assert_allclose(angles(units(before)[0], units(after)[0]), 0, atol=1e-4)
    assert (np.linalg.norm(after, axis=1) > 2 * np.linalg.norm(before, axis=1)).all()


def test_uniform_is_the_textbook_formula():
    p0, p1, p2, p3 = np.moveaxis(keys(10, 4), 1, 0)
    h = 0.3
    expected = 0.5 * (
        2 * p1 + (p2 - p0) * h + (2 * p0 - 5 * p1 + 4 * p2 - p3) * h**2 + (3 * p1 - p0 - 3 * p2 + p3) * h**3
    )
    found = catmull_rom(np.stack([p0, p1, p2, p3], axis=1), [(1 + h) / 3], knots="uniform").values[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_centripetal_is_barry_and_goldmans_pyramid():
    p = keys(11, 4)
    knot = np.concatenate(
        [np.zeros((3, 1)), np.cumsum(np.linalg.norm(np.diff(p, axis=1), axis=2) ** 0.5, axis=1)], axis=1
    )
    h = 0.7
    t = knot[:, 1] + h * (knot[:, 2] - knot[:, 1])

    def between(a, b, i, j):
        w = ((t - knot[:, i]) / (knot[:, j] - knot[:, i]))[:, None]
        return (1 - w) * a + w * b

    a = [between(p[:, i], p[:, i + 1], i, i + 1) for i in range(3)]
    b = [between(a[i], a[i + 1], i, i + 2) for i in range(2)]
    np.testing.assert_allclose(catmull_rom(p, [(1 + h) / 3]).values[:, 0], between(*b, 1, 2), atol=1e-12)


def test_centripetal_makes_no_loop_where_uniform_does():
    """Two near keys between far ones: uniform overshoots and turns back, centripetal does not (Yuksel et al. 2011)."""
    x = np.array([[[0.0, 0], [10, 0], [10.2, 1], [0, 1.5]]])
    t = np.linspace(1 / 3, 2 / 3, 101)
    turn = {k: np.diff(catmull_rom(x, t, knots=k).values[0], axis=0)[:, 1] for k in KNOTS}
    length = {k: np.linalg.norm(np.diff(catmull_rom(x, t, knots=k).values[0], axis=0), axis=1).sum() for k in KNOTS}
    assert length["centripetal"] < 2 * np.hypot(0.2, 1) < length["uniform"]
    assert (turn["centripetal"] > 0).all()


class TestSquad:
    def test_two_keys_are_slerp_with_a_radius(self):
        x, t = keys(12, 2) * [[[1.0], [4.0]]], np.linspace(0, 1, 9)
        for radius in RADII:
            expected = slerp_radius(x[:, 0], x[:, 1], t, radius=radius).values
            np.testing.assert_allclose(squad(x, t, radius=radius).values, expected, atol=1e-12)

    @pytest.mark.parametrize("radius", RADII)
    def test_norms_stay_between_the_keys(self, radius):
        x = units(keys(13, 6))[0] * np.array([1.0, 9, 9, 2, 30, 0.5])[:, None]
        found = np.linalg.norm(squad(x, np.linspace(0, 1, 51), radius=radius).values, axis=2)
        for i in range(5):
            low, high = sorted([[1.0, 9, 9, 2, 30, 0.5][j] for j in (i, i + 1)])
            piece = found[:, 10 * i : 10 * i + 11]
            assert (piece >= low - 1e-9).all() and (piece <= high + 1e-9).all()

    def test_keys_along_a_great_circle_stay_on_it(self):
        turn = np.array([0.0, 0.5, 1.0, 1.5])
        arc = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)[None]
        found = squad(arc, np.linspace(0, 1, 16)).values[0]
        np.testing.assert_allclose(found[:, 2], 0, atol=1e-12)
        np.testing.assert_allclose(np.arctan2(found[:, 1], found[:, 0]), np.linspace(0, 1.5, 16), atol=1e-9)

    def test_opposite_neighbours_and_keys_without_direction_are_typed(self):
        x = keys(14)
        x[0, 3] = -x[0, 2]
        x[1, 0] = 0
        path = squad(x, np.linspace(0, 1, 9))
        assert path.status.tolist() == ["antipodal", "zero_norm", "ok"]
        assert np.isnan(path.values[:2]).all()
