"""Geodesics: on the sphere codec they are the great circle, on the linear codec the straight line; and they say how it went."""

import numpy as np
import pytest
import torch

from schemas.codec import ConvVAECodec, LinearCodec, Preprocess, SphereCodec
from stages.code_sets.geodesic import Geodesic, at_constant_speed, geodesic
from stages.codecs.conv_vae import ConvVAE
from stages.codecs.linear import Linear
from stages.codecs.sphere import Sphere
from tests.codec_cases import weights_of

SMALL = Preprocess(size=(8, 8))


def ends(seed: int, d: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).standard_normal((2, d)) * scale
    return a, b


def found_on(codec, a: np.ndarray, b: np.ndarray, frames: int = 9, **options: float) -> Geodesic:
    found = geodesic(a, b, frames, pictures=codec.decode_float, **options)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def one_thread():
    """Pictures this small are faster on one thread, by far on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("d", [2, 5, 16])
@pytest.mark.parametrize("seed", range(4))
def test_on_the_sphere_it_is_the_great_circle(d: int, seed: int) -> None:
    """Every frame within 1e-4 of the closed form, measured in pixels on the sphere's radius; the length to 1 %."""
    sphere = Sphere(SphereCodec(dim=d, seed=1, preprocess=SMALL))
    a, b = ends(seed, d, scale=1.0 if d < 10 else 0.5)
    found = found_on(sphere, a, b)
    assert found.converged
    ta, tb = (torch.from_numpy(x)[None] for x in (a, b))
    closed = torch.cat([sphere.geodesic(ta, tb, t=float(t)) for t in np.linspace(0, 1, 9)])
    apart = sphere.geodesic_distance(torch.from_numpy(found.latents), closed) / sphere.radius
    assert float(apart.max()) <= 1e-4
    arc = float(sphere.geodesic_distance(ta, tb))
    assert arc * 0.99 < found.length <= arc + 1e-9  # chords are a little shorter than the arc
    assert found.energy < found.straight_energy


@pytest.mark.parametrize("frames", [2, 3, 8, 20])
def test_any_number_of_frames_goes_at_constant_speed(frames: int) -> None:
    sphere = Sphere(SphereCodec(dim=4, preprocess=SMALL))
    a, b = ends(7, 4)
    found = found_on(sphere, a, b, frames)
    np.testing.assert_array_equal(found.latents[[0, -1]], [a, b])
    steps = np.linalg.norm(
        np.diff(sphere.decode_float(torch.from_numpy(found.latents)).flatten(1).numpy(), axis=0), axis=1
    )
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)


def test_on_a_linear_codec_it_is_the_straight_line_at_once() -> None:
    linear = Linear(LinearCodec(dim=6, preprocess=SMALL))
    a, b = ends(8, 6)
    found = found_on(linear, a, b)
    assert found.converged and found.iterations <= 1
    np.testing.assert_allclose(found.latents, a + np.linspace(0, 1, 9)[:, None] * (b - a), atol=1e-9)
    np.testing.assert_allclose(found.energy, np.sum((b - a) ** 2), rtol=1e-6)
    np.testing.assert_allclose(found.length, np.linalg.norm(b - a), rtol=1e-6)


def test_a_float32_network_converges_too() -> None:
    vae = ConvVAE(ConvVAECodec(weights="x", preprocess=Preprocess(size=(16, 16))), weights_of(seed=3))
    a, b = ends(9, 6, scale=4.0)
    found = found_on(vae, a, b, 5)
    assert found.converged
    assert found.energy < found.straight_energy * 0.999


def test_too_few_iterations_are_said_not_hidden() -> None:
    sphere = Sphere(SphereCodec(dim=4, preprocess=SMALL))
    found = found_on(sphere, *ends(10, 4), iterations=1)
    assert not found.converged and found.iterations == 1
    facts = found.facts()
    assert facts["converged"] is False and facts["gradient"] > 1e-3
    assert set(facts) == {"energy", "straight_energy", "length", "gradient", "iterations", "converged"}


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_whether_it_converged_does_not_depend_on_the_latents_unit(unit: float) -> None:
    sphere = Sphere(SphereCodec(dim=4, preprocess=SMALL))
    a, b = ends(10, 4)

    def found(iterations: int) -> Geodesic:
        made = geodesic(a * unit, b * unit, 9, pictures=lambda z: sphere.decode_float(z / unit), iterations=iterations)
        assert made is not None
        return made

    assert not found(1).converged and found(1).gradient > 1e-3
    assert found(200).converged and found(200).gradient <= 1e-3


def test_a_latent_with_itself_has_nothing_to_shorten() -> None:
    sphere = Sphere(SphereCodec(dim=4, preprocess=SMALL))
    a, _ = ends(11, 4)
    found = found_on(sphere, a, a)
    assert (found.energy, found.iterations, found.converged) == (0.0, 0, True)
    np.testing.assert_array_equal(found.latents, np.repeat(a[None], 9, axis=0))


def test_the_way_back_is_the_same_way() -> None:
    sphere = Sphere(SphereCodec(dim=3, preprocess=SMALL))
    a, b = ends(12, 3)
    there, back = found_on(sphere, a, b, tolerance=1e-7), found_on(sphere, b, a, tolerance=1e-7)
    np.testing.assert_allclose(there.latents, back.latents[::-1], atol=1e-5)


def test_a_decoder_that_breaks_on_the_way_gives_no_path() -> None:
    def broken(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z.abs() < 0.1, torch.nan, z)

    assert geodesic(-np.ones(2), np.ones(2), 5, pictures=broken) is None


def test_features_bend_the_path() -> None:
    """φ adds a hill between the ends, a little to one side: the path goes round on the other."""

    def hill(z: torch.Tensor) -> torch.Tensor:
        height = 2 * torch.exp(-4 * (z[:, :1] ** 2 + (z[:, 1:] - 0.1) ** 2))
        return torch.cat([z, height], dim=1)

    found = geodesic(np.array([-1.0, 0]), np.array([1.0, 0]), 9, pictures=hill)
    assert found is not None and found.converged
    assert found.latents[4, 1] < -0.3


def test_resampling_is_even_along_the_length() -> None:
    """A quarter circle with uneven nodes: frames at equal angles to 1e-4."""
    turn = np.pi / 2 * np.linspace(0, 1, 33) ** 1.5
    nodes = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    found = at_constant_speed(nodes, np.diff(turn), 7)
    np.testing.assert_allclose(np.arctan2(found[:, 1], found[:, 0]), np.linspace(0, np.pi / 2, 7), atol=1e-4)
