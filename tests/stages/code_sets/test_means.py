"""Means of several latents: LOL's moments by simulation, the Karcher mean against a brute-force optimum."""

import numpy as np
import pytest

from stages.code_sets.great_circle import angles, units
from stages.code_sets.interpolation import slerp_radius
from stages.code_sets.means import in_open_hemisphere, karcher, lerp_mean, lol

EQUAL = [[1 / 3, 1 / 3, 1 / 3]]


def cap(seed: int, n: int, k: int, d: int = 3, *, spread: float = 0.5) -> np.ndarray:
    """n rows of k unit points scattered about a direction of the row's own."""
    rng = np.random.default_rng(seed)
    return units(rng.standard_normal((n, 1, d)) + spread * rng.standard_normal((n, k, d)))[0]


class TestLol:
    def test_keeps_the_distribution_it_draws_from(self) -> None:
        """40,000 rows, correlated Σ, μ ≠ 0: mean within 5 standard errors, every entry of the covariance within 3 %."""
        rng = np.random.default_rng(0)
        mu, root = rng.standard_normal(4) * 5, np.tril(rng.standard_normal((4, 4))) + 2 * np.eye(4)
        draws = mu + rng.standard_normal((40_000, 3, 4)) @ root.T
        weights = [[0.2, 0.3, 0.5], [1, 1, 1], [1, 4, 0]]
        sigma = root @ root.T
        for frame in np.moveaxis(lol(draws, weights, mean=mu).values, 1, 0):
            np.testing.assert_allclose(frame.mean(axis=0), mu, atol=5 * np.sqrt(sigma.max() / 40_000))
            np.testing.assert_allclose(np.cov(frame.T), sigma, atol=0.03 * sigma.max())
        # What the test would say of the plain mean:
        assert np.cov(lerp_mean(draws, [[1, 1, 1]]).values[:, 0].T).max() < 0.4 * sigma.max()

    def test_keeps_the_shell_where_lerp_leaves_it(self) -> None:
        draws = np.random.default_rng(1).standard_normal((200, 5, 512))
        found = np.linalg.norm(lol(draws, np.ones((1, 5))).values[:, 0], axis=1)
        np.testing.assert_allclose(found.mean(), np.sqrt(512), rtol=0.005)
        assert not lol(draws, np.ones((1, 5))).flags["not_independent"].any()

    def test_latents_are_independent_up_to_six_standard_deviations_of_a_cosine(self) -> None:
        a, b = np.eye(2, 400)  # cosines of independent draws have deviation 1/√400 = .05
        for cosine, told in ((0.28, False), (0.32, True), (-0.32, True)):
            pair = np.stack([a, cosine * a + np.sqrt(1 - cosine**2) * b])[None]
            assert lol(pair, np.ones((1, 2))).flags["not_independent"].tolist() == [told]

    def test_weight_on_one_latent_is_that_latent_and_the_scale_of_weights_is_nothing(self) -> None:
        keys = cap(2, 4, 3, 16)
        path = lol(keys, [[0, 1, 0], [0, 5, 0]], mean=np.full(16, 3.0))
        np.testing.assert_allclose(path.values, np.repeat(keys[:, [1]], 2, axis=1), rtol=1e-14)

    def test_the_formula(self) -> None:
        keys, mu, w = cap(3, 2, 3, 8), np.arange(8.0), np.array([0.2, 0.3, 0.5])
        alpha, beta, y = w.sum(), (w**2).sum(), np.einsum("k,nkd->nd", w, keys)
        expected = (1 - alpha / np.sqrt(beta)) * mu + y / np.sqrt(beta)
        np.testing.assert_allclose(lol(keys, w, mean=mu).values[:, 0], expected, rtol=1e-13)


class TestKarcher:
    def test_is_the_brute_force_optimum(self) -> None:
        """On S² against a grid of 0.02 rad refined to 1e-4 around its best point."""
        points, w = cap(4, 6, 4), np.array([0.1, 0.2, 0.3, 0.4])
        path = karcher(points, w)
        assert (path.status == "ok").all() and not path.flags["not_unique"].any()
        for row in range(6):
            best = units(points[row].mean(axis=0))[0]
            for size in (0.5, 0.05, 0.005, 0.0005):
                offsets = np.stack(np.meshgrid(*[np.linspace(-size, size, 21)] * 3), axis=-1).reshape(-1, 3)
                grid = units(best + offsets)[0]
                cost = (w * angles(grid[:, None], points[row]) ** 2).sum(axis=1)
                best = grid[cost.argmin()]
            np.testing.assert_allclose(path.values[row, 0], best, atol=1e-4)
            found = (w * angles(path.values[row, 0], points[row]) ** 2).sum()
            assert found <= cost.min() + 1e-12

    def test_of_two_is_slerp_with_a_radius(self) -> None:
        rng, t = np.random.default_rng(5), np.linspace(0, 1, 7)
        keys = rng.standard_normal((5, 2, 64)) * [[[1.0], [3.0]]]
        for radius in ("linear", "geometric"):
            expected = slerp_radius(keys[:, 0], keys[:, 1], t, radius=radius).values
            np.testing.assert_allclose(
                karcher(keys, np.stack([1 - t, t], 1), radius=radius).values, expected, atol=1e-11
            )

    def test_does_not_depend_on_the_order_of_images(self) -> None:
        points = cap(6, 5, 4, 10)
        w, order = np.array([0.4, 0.3, 0.2, 0.1]), [2, 0, 3, 1]
        np.testing.assert_allclose(karcher(points, w).values, karcher(points[:, order], w[order]).values, atol=1e-11)

    def test_says_when_the_mean_is_not_unique(self) -> None:
        """Three points round the equator: both poles are as good. One row of an ordinary set beside it is left alone."""
        turn = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
        ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
        path = karcher(np.stack([ring, cap(7, 1, 3)[0]]), EQUAL)
        assert path.flags["not_unique"].tolist() == [True, False]
        assert path.status.tolist() == ["ok", "ok"]
        np.testing.assert_allclose(np.abs(path.values[0, 0]), [0, 0, 1], atol=1e-6)  # a pole: the lowest there is

    def test_a_wide_set_within_a_hemisphere_is_not_flagged(self) -> None:
        """The mean of the first two is opposite to nothing, but one point is more than a right angle from the mean."""
        turn = np.array([0.0, 0.05, 0.1, 3.0])
        arc = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)[None]
        path = karcher(arc, np.full((1, 4), 0.25))
        assert angles(path.values[0, 0], arc[0, 3]) > np.pi / 2
        assert not path.flags["not_unique"].any()
        np.testing.assert_allclose(np.arctan2(*path.values[0, 0, 1::-1]), turn.mean(), atol=1e-9)

    def test_an_image_without_weight_changes_nothing(self) -> None:
        points = cap(8, 3, 3)
        points[:, 2] = -points[:, 0]
        path = karcher(points, [[0.5, 0.5, 0]])
        np.testing.assert_allclose(path.values, karcher(points[:, :2], [[0.5, 0.5]]).values, atol=1e-12)
        assert not path.flags["not_unique"].any()

    def test_radii_are_the_weighted_mean_linear_or_geometric(self) -> None:
        keys = cap(9, 2, 3, 6) * np.array([1.0, 2.0, 4.0])[:, None]
        for radius, expected in (("linear", 7 / 3), ("geometric", 2.0)):
            found = np.linalg.norm(karcher(keys, EQUAL, radius=radius).values, axis=2)
            np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_a_latent_without_direction_is_typed(self) -> None:
        keys = cap(10, 2, 3)
        keys[1, 2] = 0
        path = karcher(keys, EQUAL)
        assert path.status.tolist() == ["ok", "zero_norm"]
        assert np.isnan(path.values[1]).all()


@pytest.mark.parametrize(
    ("points", "inside"),
    [
        (np.eye(3), True),
        (np.vstack([np.eye(3), -np.ones((1, 3)) / np.sqrt(3)]), False),
        (np.array([[1.0, 0, 0], [-1, 0, 0]]), False),
        (np.array([[1.0, 0, 0], [-np.cos(0.01), np.sin(0.01), 0]]), True),
    ],
)
def test_hemispheres(points: np.ndarray, inside: bool) -> None:
    assert in_open_hemisphere(points) is inside


@pytest.mark.parametrize("weights", [[[1, -1, 1]], [[0, 0, 0]], [[1, 1]], [[1, np.nan, 1]]])
def test_weights_that_mean_nothing_are_errors(weights: list[list[float]]) -> None:
    for method in (lerp_mean, lol, karcher):
        with pytest.raises(ValueError, match="weights"):
            method(cap(11, 2, 3), weights)
