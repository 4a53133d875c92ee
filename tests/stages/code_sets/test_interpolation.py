"""Paths between latents: every edge of latent-science §2, and the identities that hold for all inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.code_sets.interpolation import angle, constant_norm, lerp, slerp, slerp_radius
from stages.code_sets.path import PathStatus

METHODS = {"lerp": lerp, "slerp": slerp, "slerp_radius": slerp_radius, "constant_norm": constant_norm}

T = np.linspace(0, 1, 9)
D = 512


def shell(seed: int, n: int = 4, d: int = D, radius: float | None = None) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x if radius is None else x / np.linalg.norm(x, axis=1, keepdims=True) * radius


def norms(values: np.ndarray) -> np.ndarray:
    return np.linalg.norm(values.reshape(*values.shape[:2], -1), axis=2)


vectors = hnp.arrays(np.float64, (3, 6), elements=st.floats(-100, 100, allow_subnormal=False))
times = hnp.arrays(np.float64, 4, elements=st.floats(0, 1))


@settings(deadline=None, max_examples=60)
@given(vectors, vectors, times)
def test_lerp_is_the_formula_and_never_flags(a, b, t):
    path = lerp(a, b, t)
    assert (path.status == "ok").all()
    np.testing.assert_array_equal(path.values, (1 - t)[None, :, None] * a[:, None] + t[None, :, None] * b[:, None])


@settings(deadline=None, max_examples=100)
@given(vectors, vectors, times)
def test_slerp_never_returns_a_wrong_number(a, b, t):
    """Finite and no longer than the stated bulge, or flagged and all NaN; nothing in between."""
    path = slerp(a, b, t)
    good = path.status == "ok"
    longest = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    assert (norms(path.values)[good] <= longest[good, None] * 2.5 + 1e-9).all()
    assert np.isnan(path.values[~good]).all()


@settings(deadline=None, max_examples=60)
@given(vectors, vectors, times)
def test_slerp_is_symmetric(a, b, t):
    there, back = slerp(a, b, t), slerp(b, a, 1 - t)
    assert (there.status == back.status).all()
    np.testing.assert_allclose(there.values, back.values, rtol=1e-6, atol=1e-6)


def test_slerp_equals_the_textbook_formula_on_ordinary_pairs():
    a, b = shell(1), shell(2)
    omega = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))[:, None, None]
    t = T[None, :, None]
    expected = (np.sin((1 - t) * omega) * a[:, None] + np.sin(t * omega) * b[:, None]) / np.sin(omega)
    np.testing.assert_allclose(slerp(a, b, T).values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["lerp", "slerp", "slerp_radius"])
def test_both_ends_are_the_latents_exactly(name):
    a, b = shell(3), shell(4) * 3
    values = METHODS[name](a, b, [0.0, 1.0]).values
    np.testing.assert_array_equal(values[:, 0], a)
    np.testing.assert_array_equal(values[:, 1], b)


def test_slerp_of_a_latent_with_itself_stays():
    a = shell(5)
    path = slerp(a, a, T)
    assert (path.status == "ok").all()
    np.testing.assert_allclose(path.values, np.repeat(a[:, None], 9, axis=1), rtol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 0.5, 1e-3])
def test_opposite_ends_are_flagged_and_hold_no_numbers(scale):
    a = shell(6)
    path = slerp(a, -scale * a, T)
    assert (path.status == PathStatus.ANTIPODAL).all()
    assert np.isnan(path.values).all()


def near_antipodal(a: np.ndarray, angle_left: float) -> np.ndarray:
    """b of the norm of a, at π − angle_left from it."""
    other = np.random.default_rng(7).standard_normal(a.shape)
    norm = np.linalg.norm(a, axis=1, keepdims=True)
    other -= (other * a).sum(1, keepdims=True) / norm**2 * a
    other *= norm / np.linalg.norm(other, axis=1, keepdims=True)
    return -np.cos(angle_left) * a + np.sin(angle_left) * other


def test_near_antipodal_keeps_the_norm_and_the_speed():
    a = shell(8, radius=23.0)
    path = slerp(a, near_antipodal(a, 1e-4), T)
    assert (path.status == "ok").all()
    np.testing.assert_allclose(norms(path.values), 23.0, rtol=1e-8)
    steps = angle(path.values[:, :-1].reshape(-1, D), path.values[:, 1:].reshape(-1, D))
    np.testing.assert_allclose(steps, (np.pi - 1e-4) / 8, rtol=1e-6)


def test_near_antipodal_of_unequal_norm_is_flagged_not_flung_away():
    """The formula alone gives a middle of norm 2.5e4 here."""
    a = shell(9, radius=23.0)
    assert (slerp(a, 0.8 * near_antipodal(a, 1e-4), T).status == PathStatus.ANTIPODAL).all()


def test_one_float_from_antipodal_is_flagged():
    a = shell(10, radius=23.0)
    assert (slerp(a, near_antipodal(a, 1e-8), T).status == PathStatus.ANTIPODAL).all()


@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_a_zero_end_is_typed(which):
    a, b = shell(11), shell(12)
    a, b = (a * 0 if which in ("a", "both") else a), (b * 0 if which in ("b", "both") else b)
    path = slerp(a, b, T)
    assert (path.status == PathStatus.ZERO_NORM).all()
    assert np.isnan(path.values).all()
    assert (lerp(a, b, T).status == "ok").all()
    assert (constant_norm(a, b, T).status == PathStatus.ZERO_NORM).all()


def test_near_parallel_goes_over_into_lerp_without_loss():
    a = shell(13, radius=1.0)
    b = a + 1e-8 * shell(14, radius=1.0)
    path = slerp(a, b, T)
    assert (path.status == "ok").all()
    np.testing.assert_allclose(path.values, lerp(a, b, T).values, rtol=0, atol=1e-15)
    assert (angle(a, b) > 5e-9).all(), "arccos would say 0 here"


def test_the_norm_is_carried_between_unequal_ends():
    a, b = shell(15, radius=10.0), shell(16, radius=30.0)
    found = norms(slerp(a, b, T).values)
    np.testing.assert_allclose(found[:, [0, -1]], [[10, 30]] * 4)
    assert (found[:, 1:-1] > 10).all()
    assert (found[:, 1:-1] < 30).all()


def test_angular_speed_is_constant():
    a, b = shell(17, radius=5.0), shell(18, radius=5.0)
    values = slerp(a, b, np.linspace(0, 1, 33)).values
    steps = angle(values[:, :-1].reshape(-1, D), values[:, 1:].reshape(-1, D)).reshape(4, -1)
    np.testing.assert_allclose(steps, np.repeat(angle(a, b)[:, None] / 32, 32, axis=1), rtol=1e-9)


@pytest.mark.parametrize("name", list(METHODS))
def test_paths_turn_with_the_space(name):
    rotation, _ = np.linalg.qr(np.random.default_rng(19).standard_normal((32, 32)))
    a, b = shell(20, d=32), shell(21, d=32)
    turned = METHODS[name](a @ rotation.T, b @ rotation.T, T).values
    np.testing.assert_allclose(turned, METHODS[name](a, b, T).values @ rotation.T, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
@pytest.mark.parametrize("name", list(METHODS))
def test_any_dtype_is_worked_in_float64(name, dtype):
    a, b = (shell(22) * 20).astype(dtype), (shell(23) * 20).astype(dtype)
    path = METHODS[name](a, b, T)
    assert path.values.dtype == np.float64
    np.testing.assert_array_equal(path.values, METHODS[name](a.astype(float), b.astype(float), T).values)


def test_float16_norms_that_overflow_float16_are_fine():
    a, b = np.full((1, 8), 60000, np.float16), np.array([[60000, -60000] * 4], np.float16)
    path = slerp(a, b, T)
    assert (path.status == "ok").all()
    np.testing.assert_allclose(norms(path.values), np.linalg.norm(a.astype(float)))


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e150, 1e300])
def test_huge_and_tiny_norms_neither_overflow_nor_vanish(scale):
    a, b = shell(24, d=16), shell(25, d=16)
    for method in METHODS.values():
        np.testing.assert_allclose(method(a * scale, b * scale, T).values / scale, method(a, b, T).values, rtol=1e-9)


def test_spatial_latents_whole_equal_flat_ones():
    a, b = shell(26, d=4 * 3 * 2), shell(27, d=4 * 3 * 2)
    whole = slerp(a.reshape(4, 4, 3, 2), b.reshape(4, 4, 3, 2), T)
    assert whole.values.shape == (4, 9, 4, 3, 2)
    np.testing.assert_array_equal(whole.values.reshape(4, 9, -1), slerp(a, b, T).values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(METHODS))
def test_a_non_finite_end_is_typed_and_touches_no_other_row(name, bad):
    a, b = shell(32), shell(33)
    clean = METHODS[name](a, b, T).values
    b[2, 5] = bad
    path = METHODS[name](a, b, T)
    assert path.status.tolist() == ["ok", "ok", "nan_input", "ok"]
    np.testing.assert_array_equal(path.values[[0, 1, 3]], clean[[0, 1, 3]])


class TestSeededAxis:
    def test_goes_round_at_constant_norm_and_speed_to_the_very_end(self):
        a = shell(34, radius=23.0)
        path = slerp(a, -a, np.linspace(0, 1, 17), antipodal="seeded_axis", seeds=np.arange(4, dtype=np.uint64))
        assert (path.status == "ok").all()
        np.testing.assert_array_equal(path.values[:, -1], -a)
        np.testing.assert_allclose(norms(path.values), 23.0)
        steps = angle(path.values[:, :-1].reshape(-1, D), path.values[:, 1:].reshape(-1, D))
        np.testing.assert_allclose(steps, np.pi / 16, rtol=1e-9)

    def test_the_way_back_is_the_same_way(self):
        a, seeds = shell(35), np.arange(4, dtype=np.uint64)
        there = slerp(a, -a, T, antipodal="seeded_axis", seeds=seeds).values
        back = slerp(-a, a, 1 - T, antipodal="seeded_axis", seeds=seeds).values
        np.testing.assert_allclose(there, back, atol=1e-9)

    def test_the_axis_is_the_rows_own_whatever_the_batch(self):
        a, seeds = shell(36), np.arange(4, dtype=np.uint64)
        whole = slerp(a, -a, T, antipodal="seeded_axis", seeds=seeds).values
        alone = slerp(a[2:3], -a[2:3], T, antipodal="seeded_axis", seeds=seeds[2:3]).values
        np.testing.assert_array_equal(whole[2:3], alone)
        assert not np.allclose(whole[2], slerp(a, -a, T, antipodal="seeded_axis", seeds=seeds + 9).values[2])

    def test_ordinary_rows_are_left_alone(self):
        a, b = shell(37), shell(38)
        seeds = np.arange(4, dtype=np.uint64)
        turned = slerp(a, b, T, antipodal="seeded_axis", seeds=seeds).values
        np.testing.assert_array_equal(turned, slerp(a, b, T).values)

    def test_one_dimension_has_no_way_round(self):
        path = slerp([[1.0]], [[-1.0]], T, antipodal="seeded_axis", seeds=np.zeros(1, np.uint64))
        assert path.status.tolist() == ["antipodal"]

    def test_seeds_are_needed(self):
        with pytest.raises(ValueError, match="seeds"):
            slerp([[1.0, 0]], [[-1.0, 0]], T, antipodal="seeded_axis")


class TestConstantNorm:
    def test_stays_on_the_mean_sphere_and_says_when_ends_change(self):
        a, b = shell(39, radius=10.0), shell(40, radius=30.0)
        path = constant_norm(a, b, T)
        np.testing.assert_allclose(norms(path.values), 20.0)
        assert path.flags["endpoints_rescaled"].all()
        assert not constant_norm(a, a, T).flags["endpoints_rescaled"].any()

    def test_is_the_formula(self):
        a, b = shell(41), shell(42)
        line = lerp(a, b, T).values
        radius = (np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1)) / 2
        np.testing.assert_allclose(constant_norm(a, b, T).values, line * radius[:, None, None] / norms(line)[..., None])

    @pytest.mark.parametrize("frames", [2, 8, 9])
    def test_a_line_through_the_origin_is_flagged_whether_or_not_a_frame_meets_it(self, frames):
        a = shell(43)
        assert (constant_norm(a, -2 * a, np.linspace(0, 1, frames)).status == PathStatus.ANTIPODAL).all()


def test_empty_batches_and_single_times_keep_their_shapes():
    assert slerp(np.empty((0, 5)), np.empty((0, 5)), T).values.shape == (0, 9, 5)
    assert slerp(shell(44), shell(45), 0.5).values.shape == (4, 1, D)


@pytest.mark.parametrize(
    ("a", "b", "t", "said"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), T, "alike"),
        (np.ones(3), np.ones(3), T, "rows"),
        (np.ones((2, 3)), np.ones((2, 3)), [np.nan], "finite"),
    ],
)
def test_wrong_shapes_and_times_are_errors(a, b, t, said):
    with pytest.raises(ValueError, match=said):
        slerp(a, b, t)
