"""The edge list of latent-science §2, for every method that joins two latents: none gives NaN, a bulge or a silent lerp."""

from collections.abc import Callable

import numpy as np
import pytest

from stages.code_sets.interpolation import angle, constant_norm, lerp, slerp, slerp_radius
from stages.code_sets.means import karcher, lol
from stages.code_sets.mixed_paths import two_part
from stages.code_sets.path import Path
from stages.code_sets.splines import catmull_rom, squad

T = np.linspace(0, 1, 9)
D, RADIUS = 512, 23.0
W = np.stack([1 - T, T], axis=1)

Method = Callable[[np.ndarray, np.ndarray], Path]


def through(method: Callable[..., Path], **options: str) -> Method:
    return lambda a, b: method(np.stack([a, b], axis=1), T, **options)


def weighted(method: Callable[..., Path], **options: str) -> Method:
    return lambda a, b: method(np.stack([a, b], axis=1), W, **options)


LINES: dict[str, Method] = {
    "lerp": lambda a, b: lerp(a, b, T),
    "catmull_rom": through(catmull_rom),
    "catmull_rom uniform": through(catmull_rom, knots="uniform"),
}
"""Straight between two latents: defined for every finite pair."""
CIRCLES: dict[str, Method] = {
    "slerp_radius": lambda a, b: slerp_radius(a, b, T),
    "slerp_radius geometric": lambda a, b: slerp_radius(a, b, T, radius="geometric"),
    "squad": through(squad),
    "squad geometric": through(squad, radius="geometric"),
    "karcher": weighted(karcher),
    "karcher geometric": weighted(karcher, radius="geometric"),
}
"""A great circle of directions times a radius of its own."""
TURNING: dict[str, Method] = {"slerp": lambda a, b: slerp(a, b, T), **CIRCLES}
CENTRED: dict[str, Method] = {**TURNING, "constant_norm": lambda a, b: constant_norm(a, b, T)}
LOL: dict[str, Method] = {"lol": weighted(lol)}
ALL: dict[str, Method] = {**LINES, **CENTRED, **LOL}


def each(methods: dict[str, Method]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", methods.values(), ids=methods.keys())


def shell(seed: int, *, d: int = D, radius: float = RADIUS) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((4, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * radius


def near_antipodal(a: np.ndarray, left: float) -> np.ndarray:
    """Of a's norm, at π − left from it."""
    other = np.random.default_rng(7).standard_normal(a.shape)
    other -= (other * a).sum(1, keepdims=True) / (a * a).sum(1, keepdims=True) * a
    other *= np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
    return -np.cos(left) * a + np.sin(left) * other


def norms(path: Path) -> np.ndarray:
    return np.linalg.norm(path.values, axis=2)


def steps(path: Path) -> np.ndarray:
    n, frames, d = path.values.shape
    found = angle(path.values[:, :-1].reshape(-1, d), path.values[:, 1:].reshape(-1, d))
    return found.reshape(n, frames - 1)


@each(ALL)
def test_same_latent_twice(method: Method) -> None:
    a = shell(0)
    path = method(a, a)
    assert (path.status == "ok").all()
    if method is LOL["lol"]:  # two equal latents are no independent draws: off the shell, and said so
        np.testing.assert_allclose(norms(path)[:, 4], RADIUS * np.sqrt(2))
        assert path.flags["not_independent"].all()
    else:
        np.testing.assert_allclose(path.values, np.repeat(a[:, None], 9, axis=1), rtol=1e-12, atol=1e-12)
        assert not any(rows.any() for rows in path.flags.values())


@each(CENTRED)
@pytest.mark.parametrize("scale", [1.0, 0.5, 1e-3])
def test_opposite_latents_are_typed_and_hold_no_numbers(method: Method, scale: float) -> None:
    path = method(shell(1), -scale * shell(1))
    assert (path.status == "antipodal").all()
    assert np.isnan(path.values).all()


@each({**LINES, **LOL})
def test_opposite_latents_meet_in_the_middle_of_a_line(method: Method) -> None:
    path = method(shell(1), -shell(1))
    assert (path.status == "ok").all()
    np.testing.assert_allclose(path.values[:, 4], 0, atol=1e-12)
    if method is LOL["lol"]:
        assert path.flags["not_independent"].all()


@each(TURNING)
def test_near_antipodal_keeps_norm_and_speed(method: Method) -> None:
    a = shell(2)
    path = method(a, near_antipodal(a, 1e-4))
    assert (path.status == "ok").all()
    np.testing.assert_allclose(norms(path), RADIUS, rtol=1e-8)
    np.testing.assert_allclose(steps(path), (np.pi - 1e-4) / 8, rtol=1e-6)


@each(CIRCLES)
def test_near_antipodal_of_unequal_norms_stays_between_them(method: Method) -> None:
    """Where the norm-carrying formula gives 2.5e4, and is therefore refused."""
    a = shell(3)
    b = 0.5 * near_antipodal(a, 1e-4)
    path = method(a, b)
    assert (path.status == "ok").all()
    assert (norms(path) <= RADIUS + 1e-9).all() and (norms(path) >= RADIUS / 2 - 1e-9).all()
    np.testing.assert_allclose(steps(path), (np.pi - 1e-4) / 8, rtol=1e-6)
    assert (slerp(a, b, T).status == "antipodal").all()


@each(CENTRED)
@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_a_zero_end_is_typed(method: Method, which: str) -> None:
    a, b = (shell(seed) * (0 if which in (name, "both") else 1) for seed, name in ((4, "a"), (5, "b")))
    path = method(a, b)
    assert (path.status == "zero_norm").all()
    assert np.isnan(path.values).all()


@each({**LINES, **LOL})
def test_a_zero_end_is_a_place_like_any_other(method: Method) -> None:
    path = method(shell(4), shell(4) * 0)
    assert (path.status == "ok").all() and np.isfinite(path.values).all()


@each({**LINES, **TURNING})
def test_near_parallel_is_lerp_without_loss(method: Method) -> None:
    a = shell(6, radius=1.0)
    b = a + 1e-8 * shell(7, radius=1.0)
    path = method(a, b)
    assert (path.status == "ok").all()
    np.testing.assert_allclose(path.values, lerp(a, b, T).values, rtol=0, atol=5e-15)


def test_near_parallel_at_constant_norm_moves_the_ends_to_it_and_no_more() -> None:
    a = shell(6, radius=1.0)
    b = a + 1e-8 * shell(7, radius=1.0)
    path = constant_norm(a, b, T)
    np.testing.assert_allclose(path.values, lerp(a, b, T).values, rtol=0, atol=1e-8)
    np.testing.assert_allclose(angle(path.values[:, 0], a), 0, atol=1e-15)


@pytest.mark.parametrize("radius", ["linear", "geometric"])
def test_unequal_norms_go_by_the_radius(radius: str) -> None:
    a, b = shell(8, radius=10.0), shell(9, radius=40.0)
    expected = 10 + 30 * T if radius == "linear" else 10 * 4**T
    for name in ("slerp_radius", "squad", "karcher"):
        method = CIRCLES[name if radius == "linear" else f"{name} geometric"]
        path = method(a, b)
        np.testing.assert_allclose(norms(path), np.tile(expected, (4, 1)), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(steps(path), np.tile(angle(a, b)[:, None] / 8, 8), rtol=1e-9, err_msg=name)


@each(ALL)
def test_the_way_back_is_the_same_way(method: Method) -> None:
    a, b = shell(10, radius=10.0), shell(11, radius=30.0)
    np.testing.assert_allclose(method(a, b).values, method(b, a).values[:, ::-1], rtol=1e-9, atol=1e-9)


@each(ALL)
def test_paths_turn_with_the_space(method: Method) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(12).standard_normal((32, 32)))
    a, b = shell(13, d=32, radius=3.0), shell(14, d=32, radius=5.0)
    np.testing.assert_allclose(
        method(a @ rotation.T, b @ rotation.T).values, method(a, b).values @ rotation.T, atol=1e-11
    )


@each(TURNING)
def test_angular_speed_is_constant(method: Method) -> None:
    a, b = shell(15), shell(16)
    np.testing.assert_allclose(steps(method(a, b)), np.tile(angle(a, b)[:, None] / 8, 8), rtol=1e-9)


@each(ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_any_dtype_is_worked_in_float64(method: Method, dtype: type) -> None:
    a, b = (shell(17) * 5).astype(dtype), (shell(18) * 5).astype(dtype)
    path = method(a, b)
    assert path.values.dtype == np.float64
    np.testing.assert_array_equal(path.values, method(a.astype(float), b.astype(float)).values)


@each(ALL)
def test_spatial_latents_are_flattened_a_row(method: Method) -> None:
    a, b = shell(19, d=24), shell(20, d=24)
    shaped = method(a.reshape(4, 4, 3, 2), b.reshape(4, 4, 3, 2))
    assert shaped.values.shape == (4, 9, 4, 3, 2)
    np.testing.assert_array_equal(shaped.values.reshape(4, 9, 24), method(a, b).values)


@each(ALL)
def test_ends_are_the_latents_exactly(method: Method) -> None:
    a, b = shell(21, radius=10.0), shell(22, radius=10.0)
    path = method(a, b)
    exact = method not in (CIRCLES["karcher"], CIRCLES["karcher geometric"], CENTRED["constant_norm"])
    for found, end in ((path.values[:, 0], a), (path.values[:, -1], b)):
        np.testing.assert_allclose(found, end, rtol=0 if exact else 1e-12)


@each(ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_end_is_typed_and_touches_no_other_row(method: Method, bad: float) -> None:
    a, b = shell(23), shell(24)
    clean = method(a, b).values
    b[2, 5] = bad
    path = method(a, b)
    assert path.status.tolist() == ["ok", "ok", "nan_input", "ok"]
    np.testing.assert_array_equal(path.values[[0, 1, 3]], clean[[0, 1, 3]])


@each(ALL)
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_huge_and_tiny_norms_neither_overflow_nor_vanish(method: Method, scale: float) -> None:
    a, b = shell(25, d=16), shell(26, d=16)
    np.testing.assert_allclose(method(a * scale, b * scale).values / scale, method(a, b).values, rtol=1e-7)


@each(ALL)
def test_no_rows_keep_their_shape(method: Method) -> None:
    assert method(np.empty((0, 5)), np.empty((0, 5))).values.shape == (0, 9, 5)


class TestTwoParts:
    """DiffAE: each part has the edges of its own method."""

    def test_is_lerp_before_the_split_and_slerp_after(self) -> None:
        a, b = shell(27), shell(28)
        path = two_part(a, b, T, split=100)
        np.testing.assert_array_equal(path.values[:, :, :100], lerp(a[:, :100], b[:, :100], T).values)
        np.testing.assert_array_equal(path.values[:, :, 100:], slerp(a[:, 100:], b[:, 100:], T).values)

    def test_is_as_bad_as_its_worse_part(self) -> None:
        a, b = shell(29), shell(30)
        b[0, 100:] = -a[0, 100:]
        b[1, :100] = -a[1, :100]
        a[2, 100:] = 0
        a[3, 0] = np.nan
        path = two_part(a, b, T, split=100)
        assert path.status.tolist() == ["antipodal", "ok", "zero_norm", "nan_input"]
        assert np.isnan(path.values[[0, 2, 3]]).all() and np.isfinite(path.values[1]).all()

    @pytest.mark.parametrize("split", [0, D])
    def test_needs_both_parts(self, split: int) -> None:
        with pytest.raises(ValueError, match="split"):
            two_part(shell(31), shell(32), T, split=split)
