"""The sphere codec: round trips, and distances and paths against the geometry of the sphere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.codec import Preprocess, SphereCodec
from stages.codecs.sphere import Sphere, angle, to_plane, to_sphere
from tests.codec_cases import pictures

COORDINATES = hnp.arrays(np.float64, (4, 3), elements=st.floats(-20, 20))


@pytest.fixture(scope="module")
def sphere() -> Sphere:
    return Sphere(SphereCodec(dim=3, preprocess=Preprocess(size=(64, 64))))


@pytest.fixture(scope="module")
def small() -> Sphere:
    return Sphere(SphereCodec(dim=3, preprocess=Preprocess(size=(8, 8))))


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(COORDINATES)
def test_plane_to_sphere_and_back(z: np.ndarray) -> None:
    points = to_sphere(torch.from_numpy(z))
    assert torch.allclose(points.norm(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-12)
    assert np.abs(to_plane(points).numpy() - z).max() <= 1e-9 * (1 + np.abs(z).max() ** 3)


def test_pictures_round_trip_to_the_rounding_of_pixels(sphere: Sphere) -> None:
    z = latents(200) / 2
    # Rounding moves each of the d+1 coordinates on the sphere by about 1/(255·√12·r); the chart stretches by (1+‖z‖²)/2.
    noise = 1 / (255 * math.sqrt(12) * sphere.radius)
    error = (sphere.encode(sphere.decode(z)).mean.double() - z).norm(dim=1) / ((1 + z.square().sum(dim=1)) / 2)
    assert noise < 1e-4
    assert error.square().mean().sqrt() < 1.2 * noise * math.sqrt(3)
    assert error.max() < 6 * noise


def test_decoded_pictures_lie_on_the_sphere(sphere: Sphere) -> None:
    x = sphere.decode_float(latents(50)).flatten(1)
    assert torch.allclose((x - 0.5).norm(dim=1), torch.tensor(sphere.radius, dtype=torch.float64), atol=1e-6)


@given(COORDINATES)
def test_no_picture_is_clipped(small: Sphere, z: np.ndarray) -> None:
    x = small.decode_float(torch.from_numpy(z))
    assert x.min() >= -1e-7 and x.max() <= 1 + 1e-7


def test_geodesic_distance_is_the_length_of_the_geodesic(small: Sphere) -> None:
    a, b = latents(10, 1), latents(10, 2)
    frames = torch.stack([small.geodesic(a, b, t=t) for t in np.linspace(0, 1, 101)])
    x = torch.stack([small.decode_float(frame).flatten(1) for frame in frames])
    steps = (x[1:] - x[:-1]).norm(dim=2)
    assert torch.allclose(frames[0], a) and torch.allclose(frames[-1], b)
    assert torch.allclose(steps.sum(dim=0), small.geodesic_distance(a, b), rtol=1e-4)
    assert (steps.max(dim=0).values / steps.min(dim=0).values - 1).max() < 1e-6  # constant speed


def test_geodesic_distance_has_no_shorter_path_and_known_values(sphere: Sphere) -> None:
    a, b = latents(20, 3), latents(20, 4)
    chord = (sphere.decode_float(a) - sphere.decode_float(b)).flatten(1).norm(dim=1)
    assert (sphere.geodesic_distance(a, b) >= chord - 1e-6).all()
    south, equator = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    assert sphere.geodesic_distance(south, equator).item() == pytest.approx(sphere.radius * math.pi / 2)
    assert sphere.geodesic_distance(south, south).item() == 0


def test_opposite_ends_have_no_one_path(sphere: Sphere) -> None:
    a = torch.tensor([[1.0, 0.0, 0.0]])
    assert angle(to_sphere(a), to_sphere(-a)).item() == pytest.approx(math.pi)
    assert torch.isnan(sphere.geodesic(a, -a, t=0.5)).all()
    assert torch.allclose(sphere.geodesic(a, a, t=0.5), a.double())


def test_the_pole_has_no_finite_latent(sphere: Sphere) -> None:
    assert not torch.isfinite(to_plane(torch.tensor([[0.0, 0.0, 0.0, 1.0]]))).all()


def test_decoding_carries_gradients_when_asked(sphere: Sphere) -> None:
    z = latents(1).requires_grad_()
    sphere.decode_float(z).sum().backward()
    assert z.grad is not None and torch.isfinite(z.grad).all()


def test_batches_and_seeds(sphere: Sphere) -> None:
    images = pictures(9, 64)
    whole = sphere.encode(images).mean
    assert torch.equal(torch.cat([sphere.encode(image[None]).mean for image in images]), whole)
    other = Sphere(SphereCodec(dim=3, seed=1, preprocess=Preprocess(size=(64, 64))))
    assert not torch.allclose(other.encode(images).mean, whole)
    assert "sample" not in sphere.can and sphere.sample_prior(np.array([1], np.uint64)) is None
    assert sphere.log_prior(whole) is None
