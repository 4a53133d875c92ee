"""Constants and terms of paths, means, edits and tokens that only show at an edge: each against its own derivation."""

import numpy as np
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import Change, EditStep, TrustRegion
from stages.code_sets.analogy import analogy
from stages.code_sets.axes import Direction
from stages.code_sets.discrete_edits import apportion, nearest_codes
from stages.code_sets.edit import Edit
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.great_circle import logarithm, units
from stages.code_sets.interpolation import MAX_BULGE, constant_norm, slerp
from stages.code_sets.means import karcher
from stages.code_sets.mixed_paths import posterior
from stages.code_sets.mixture import Mixture, truncated
from stages.code_sets.token_priors import TokenCounts, draw_sequences
from stages.code_sets.trust import Neighbourhood, Shell, Trust, ellipsoid, typicality
from stages.moments import Moments
from tests.stages.code_sets.test_calibrated import EFFECT, LINEAR, codes, latents, rows, walk

T = np.linspace(0, 1, 5)


# ----------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(("share", "status"), [(0.99, "ok"), (1.01, "antipodal")])
def test_a_slerp_may_bulge_to_twice_the_longer_end_and_no_further(share: float, status: str) -> None:
    """Ends of norms 1 and 3: the middle stands (3 − 1)/2 · tan(ω/2) off the bisector, and 2 · 3 is allowed."""
    omega = 2 * np.arctan(share * MAX_BULGE * 3)
    a, b = np.array([[1.0, 0]]), 3 * np.array([[np.cos(omega), np.sin(omega)]])
    assert slerp(a, b, T).status.tolist() == [status]
    assert MAX_BULGE == 2


def test_a_line_is_antipodal_by_its_angle_whatever_the_dimension() -> None:
    a = np.ones((2, 10_000))
    sideways = np.tile([1.0, -1.0], 5_000) * np.array(
        [[1e-6], [1e-5]]
    )  # passes the origin at half of this share of the radius
    assert constant_norm(a, -a + sideways, T).status.tolist() == ["antipodal", "ok"]


def test_a_line_is_looked_at_as_far_as_its_frames_go() -> None:
    a, b = np.array([[3.0, 0]]), np.array([[1.0, 0]])  # meets the origin at t = 1.5
    assert constant_norm(a, b, T).status.tolist() == ["ok"]
    assert constant_norm(a, b, [0, 2]).status.tolist() == ["antipodal"]
    assert constant_norm(b, a, [-1, 1]).status.tolist() == ["antipodal"]


def test_ends_count_as_changed_from_a_millionth_of_their_norm() -> None:
    a = np.array([[1.0, 0], [1.0, 0]])
    found = constant_norm(a, np.array([[0, 1 + 1e-5], [0, 1 + 1e-8]]), T)
    assert found.flags["endpoints_rescaled"].tolist() == [True, False]


def test_the_way_round_by_a_seeded_axis_goes_through_the_mean_norm() -> None:
    a, b = np.array([[1.0, 0, 0]]), np.array([[-3.0, 0, 0]])
    norms = np.linalg.norm(slerp(a, b, T, antipodal="seeded_axis", seeds=[5]).values[0], axis=1)
    np.testing.assert_allclose(norms[[0, 2, 4]], [1, 2, 3])


def test_a_tangent_to_a_near_point_has_no_part_along_it() -> None:
    rng = np.random.default_rng(0)
    at, aside = units(rng.normal(size=(2, 200, 64)))[0]
    tangent = logarithm(at, units(at + 1e-9 * aside)[0])
    along = np.abs((at * tangent).sum(1)) / np.linalg.norm(tangent, axis=1)
    assert along.max() < 1e-14


def test_a_posterior_whose_width_is_not_a_number_has_no_path() -> None:
    mean, logvar = np.zeros((2, 3)), np.zeros((2, 3))
    logvar[1, 2] = np.nan
    found = posterior(mean, mean + 1, logvar, logvar, T, noise=np.zeros((2, 3)))
    assert found.status.tolist() == ["ok", "nan_input"] and np.isfinite(found.values[0]).all()


def test_beyond_a_hemisphere_the_lowest_of_several_minima_counts_by_its_weights() -> None:
    """On the circle every angle can be tried."""
    angles = np.linspace(-np.pi, np.pi, 20_001)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        keys, weights = rng.uniform(-np.pi, np.pi, 5), rng.dirichlet(np.full(5, 0.6))
        points = np.stack([np.cos(keys), np.sin(keys)], axis=1)
        found = karcher(points[None], weights[None])
        at = np.arctan2(*found.values[0, 0, ::-1])
        cost = lambda angle, k=keys, w=weights: (w * ((angle - k + np.pi) % (2 * np.pi) - np.pi) ** 2).sum(-1)  # noqa: E731
        assert cost(at) <= cost(angles[:, None]).min() + 1e-6, seed


# ----------------------------------------------------------------------------------------------- edits


def test_an_analogy_goes_from_a_to_b_also_on_the_shell() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 4, 6))
    mean, t = rng.normal(size=6), 0.7
    root = np.sqrt(1 + 2 * t**2)
    expected = (1 - 1 / root) * mean + (c + t * (b - a)) / root
    np.testing.assert_allclose(analogy(a, b, c, np.array([t]), mean=mean)[:, 0], expected)


def test_a_row_outside_the_ellipsoid_goes_no_further_out() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 2
    trust = Trust(
        ellipsoid(Gaussian.of(Moments.of(data, full=True), at="e"), TrustRegion(limit=1.0), at="e"), clip=True
    )
    mean, inverse = data.mean(0), np.linalg.inv(np.cov(data.T))
    z = mean + 9 * (data[:20] - mean)
    held, marks = trust.hold(z, np.stack([mean + 0.5 * (z - mean), mean + 2 * (z - mean)], axis=1))

    def squared(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("ni,ij,nj->n", x - mean, inverse, x - mean))

    assert np.isfinite(held).all() and marks["clipped"].tolist() == [[False, True]] * 20
    np.testing.assert_allclose(squared(held[:, 1]), squared(z), rtol=1e-9)


def test_without_a_region_the_look_for_an_effect_ends_at_six_sigma() -> None:
    slow = Direction("slow", np.eye(4)[0], 0.25, np.zeros(4), 100.0)  # an effect is 400 sigma long
    z = latents(3)
    batch = walk(LINEAR, slow, strengths=(-1.0, 1.0))(rows(z), LINEAR)
    assert batch.column("flags").to_pylist() == [["effect_unreached"]] * 6
    np.testing.assert_allclose(codes(batch, 2)[:, :, 0] - z[:, :1], np.tile([-1.5, 1.5], (3, 1)), atol=1e-6)


@pytest.mark.parametrize("length", [0.999, 1.001])
def test_a_direction_that_is_not_quite_a_unit_is_refused(length: float) -> None:
    with pytest.raises(JobError, match="not 1"):
        walk(LINEAR, Direction("off", length * np.eye(4)[0], 1.0, np.zeros(4), EFFECT))


def two_clusters() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 2)) * 0.1 + np.repeat([[0.0, 0], [10, 0]], 150, axis=0)


def test_a_step_from_cluster_to_cluster_stops_where_it_leaves_the_first() -> None:
    data = two_clusters().astype(np.float32)
    near, far = (Neighbourhood.of(data, k=5, limit=limit, at="e") for limit in (1.0, 3.0))
    z, there = np.zeros((1, 2)), np.array([[[10.0, 0], [0.02, 0]]])
    reached = {}
    for region in (near, far):
        held, marks = Trust(region, clip=True).hold(z, there)
        assert marks["clipped"].tolist() == [[True, False]]
        kth = np.sort(np.linalg.norm(data - held[0, 0], axis=1))[4]
        assert kth == pytest.approx(region.radius, rel=1e-3)
        reached[region.radius] = held[0, 0, 0]
    assert far.radius == pytest.approx(3 * near.radius)
    assert 0 < reached[near.radius] < reached[far.radius] < 1.5


def test_a_row_far_from_all_neighbours_may_come_nearer_but_go_no_further() -> None:
    trust = Trust(Neighbourhood.of(two_clusters().astype(np.float32), k=5, limit=1.0, at="e"), clip=True)
    z = np.array([[0.0, 4.0]])
    held, marks = trust.hold(z, np.array([[[0.0, 2.0], [0.0, 8.0]]]))
    assert marks["clipped"].tolist() == [[False, True]]
    np.testing.assert_allclose(held[0], [[0, 2], [0, 4]], atol=1e-3)


def test_a_truncation_of_one_is_the_draw_to_the_last_bit() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_array_equal(truncated(draws, np.full(3, 1e8), [0.5, 1.0])[:, 1], draws)


def test_a_component_without_weight_is_never_drawn_from() -> None:
    parts = tuple(Gaussian(np.full(1, float(i)), np.zeros(1), 1.0) for i in range(3))
    places = np.array([0.0, 0.25, 0.5, 0.999])
    drawn = Mixture(np.array([0.0, 0.5, 0.5]), parts).draw(np.arange(4), places, np.zeros((4, 1)), temperature=1.0)
    assert drawn[:, 0].tolist() == [1, 1, 2, 2]


HALF = LatentSpec(shape=(2, 2), space="z", axes=("layer", "feature"), prior="standard_normal", centred_shell=True)
BOTH = Direction("both", np.array([0.6, 0, 0.8, 0]), 1.0, np.zeros(4), EFFECT)


def masked(strength: float, trust: Trust | None = None) -> Edit:
    change = Change(direction="both", strength=strength, layers=(0, 1))
    step = EditStep(name="e", changes=(change,), unit="effect", calibrate="row", parts=(1.0,))
    return Edit(step, [BOTH], HALF, trust=trust)


def test_a_masked_effect_on_the_exact_codec_is_hit_at_once() -> None:
    """A step moves the score by what the mask leaves of the direction alone, .36 of its length."""
    z = latents(5)
    found = codes(masked(0.2)(rows(z, spec=HALF), LINEAR), 1)[:, 0]
    np.testing.assert_allclose(found[:, 0] - z[:, 0], 0.2 * EFFECT / 0.36 * 0.6, atol=2e-6)


def test_a_masked_effect_that_is_out_of_reach_stops_at_the_regions_edge() -> None:
    z = latents(5)
    region = Trust(Shell(4, 1.5), clip=True)
    batch = masked(50.0, region)(rows(z, spec=HALF), LINEAR)
    assert all("clipped" in flags for flags in batch.column("flags").to_pylist())
    np.testing.assert_allclose(typicality(codes(batch, 1)[:, 0]), 1.5, atol=1e-4)


# ----------------------------------------------------------------------------------------------- tokens


def test_what_is_left_over_goes_to_the_largest_remainders() -> None:
    assert apportion(np.array([0.5, 0.29, 0.21]), 4).tolist() == [2, 1, 1]
    assert apportion(np.array([0.05, 0.45, 0.5]), 2).tolist() == [0, 1, 1]


def test_halfway_between_two_codes_the_lower_is_nearest_whatever_rounding_says() -> None:
    rng = np.random.default_rng(0)
    for low, high in rng.normal(size=(200, 2, 3)):
        assert nearest_codes(((low + high) / 2)[None], np.stack([low, high])).tolist() == [0]


def test_after_a_code_without_successor_codes_follow_as_often_as_they_occur() -> None:
    counts = TokenCounts.empty(4, bigram=True)
    counts.add(np.array([[0, 2], [0, 2], [1, 2]]))  # nothing follows 2, and 3 never occurs
    drawn = draw_sequences(counts, [f"{i}" for i in range(2000)], 3, step="s", seed=0, smoothing=0)
    assert (drawn[:, 1] == 2).all()
    np.testing.assert_allclose(np.bincount(drawn[:, 2], minlength=4) / 2000, [2 / 6, 1 / 6, 3 / 6, 0], atol=0.04)
