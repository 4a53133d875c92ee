"""The linear codec against exact arithmetic: every other stage's truth stands on it."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save

from schemas.codec import LinearCodec, Preprocess
from schemas.errors import JobError
from stages.codecs.basis import BITS, FixedPointBasis, orthonormal_rows
from stages.codecs.factory import codec_fingerprint, open_codec
from stages.codecs.linear import Linear
from stages.codecs.pictures import to_uint8
from stages.codecs.weights import Weights
from tests.codec_cases import pictures

SPEC = LinearCodec(dim=8, seed=3, preprocess=Preprocess(size=(16, 16)))


@pytest.fixture(scope="module")
def codec() -> Linear:
    return Linear(SPEC)


def test_rows_are_orthonormal_multiples_of_a_power_of_two() -> None:
    rows = orthonormal_rows(40, 16 * 16 * 3, seed=5)
    assert np.abs(rows @ rows.T - np.eye(40)).max() < 1e-7
    assert (rows * 2.0**BITS == np.rint(rows * 2.0**BITS)).all()


def test_as_many_rows_as_pixels_are_still_orthonormal() -> None:
    rows = orthonormal_rows(48, 48, seed=0)
    assert np.abs(rows @ rows.T - np.eye(48)).max() < 1e-6


def test_the_seeded_basis_is_the_same_on_every_machine() -> None:
    # Written down once; a change here changes every latent of every linear codec, and so needs a new `revision`.
    rows = orthonormal_rows(4, 12, seed=0)
    assert hashlib.sha256(rows.astype("<f8").tobytes()).hexdigest()[:16] == "0de606437569c8f1"
    assert not np.array_equal(rows, orthonormal_rows(4, 12, seed=1))


def test_encode_equals_the_formula_in_exact_arithmetic(codec: Linear) -> None:
    images = pictures(3)
    z = codec.encode(images).mean
    assert z.dtype == torch.float32
    for image, row in zip(images.flatten(1).tolist(), z.tolist(), strict=True):
        for a, value in zip(codec.basis.tolist(), row, strict=True):
            exact = sum(Fraction(w) * (Fraction(x, 255) - Fraction(1, 2)) for w, x in zip(a, image, strict=True))
            assert abs(value - float(exact)) <= 2.0**-24 * abs(float(exact)) * 1.01


def test_decode_rounds_the_formula_to_the_nearest_pixel(codec: Linear) -> None:
    z = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) * 3
    exact = (codec.mean + z.double() @ codec.basis) * 255
    assert (codec.decode(z).flatten(1).double() - exact.clamp(0, 255)).abs().max() <= 0.5 + 1e-9


def test_float_pictures_are_the_formula_and_their_gradient_is_the_basis(codec: Linear) -> None:
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    assert torch.equal(to_uint8(codec.decode_float(z)), codec.decode(z))
    jacobian = torch.autograd.functional.jacobian(lambda row: codec.decode_float(row[None]).flatten(), z[0])
    assert torch.equal(jacobian, codec.basis.T)


def test_pictures_of_the_subspace_survive_the_round_trip(codec: Linear) -> None:
    z = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    # Rounding to pixels adds noise of at most half a level in each of 768 numbers.
    assert (codec.encode(codec.decode(z)).mean - z).abs().max() < 0.5 / 255 * 768**0.5


@pytest.mark.parametrize(("threads", "sizes"), [(1, range(1, 301)), (2, (1, 2, 3, 5, 31, 64, 255, 300))])
def test_no_batch_size_or_thread_count_changes_one_bit(threads: int, sizes: Sequence[int]) -> None:
    codec = Linear(SPEC.model_copy(update={"preprocess": Preprocess(size=(8, 8))}))
    images = pictures(300, 8)
    encoded = torch.cat([codec.encode(image[None]).mean for image in images])
    decoded = torch.cat([codec.decode(row[None]) for row in encoded])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for size in sizes:
            rows = slice(300 - size, 300)
            assert torch.equal(codec.encode(images[rows]).mean, encoded[rows]), size
            assert torch.equal(codec.decode(encoded[rows]), decoded[rows]), size
    finally:
        torch.set_num_threads(before)


def test_memory_layout_changes_nothing(codec: Linear) -> None:
    images = pictures(7)
    strided = torch.stack([images, images], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(codec.encode(strided).mean, codec.encode(images).mean)


@given(
    z=hnp.arrays(np.float32, (6, 8), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    cut=st.integers(0, 6),
)
def test_any_latents_at_all_decode_row_by_row(codec: Linear, z: np.ndarray, cut: int) -> None:
    latents = torch.from_numpy(z)
    whole = codec.decode(latents)
    assert torch.equal(torch.cat([codec.decode(latents[:cut]), codec.decode(latents[cut:])]), whole)


def test_a_row_that_is_not_finite_decodes_to_the_mean_and_spoils_no_neighbour(codec: Linear) -> None:
    z = torch.zeros(3, 8)
    z[1, 4] = torch.nan
    assert torch.equal(codec.decode(z)[1], codec.decode(z)[0])


@given(hnp.arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6, allow_nan=False)))
def test_expanding_then_projecting_in_floats_gives_the_coefficients_back(z: np.ndarray) -> None:
    rows = orthonormal_rows(5, 192, seed=1)
    basis = FixedPointBasis(rows, np.full(192, 0.5), device="cpu")
    back = (basis.expand(torch.from_numpy(z)).numpy() - 0.5) @ rows.T
    assert np.abs(back - z).max() <= 1e-6 * (1 + np.abs(z).max())


def _user_weights(rows: np.ndarray, mean: np.ndarray) -> Weights:
    return Weights({}, save({"basis": torch.from_numpy(rows.copy()), "mean": torch.from_numpy(mean.copy())}))


def test_weights_of_the_users_own_are_used_as_given() -> None:
    rows = np.linalg.qr(np.random.default_rng(0).standard_normal((768, 8)))[0].T.astype(np.float32)
    mean = np.random.default_rng(1).random(768).astype(np.float32)
    spec = SPEC.model_copy(update={"weights": "somewhere"})
    images = pictures(4)
    expected = (images.flatten(1).double().numpy() / 255 - mean) @ rows.T.astype(np.float64)
    weights = _user_weights(rows, mean)
    found = open_codec(spec, weights).encode(images).mean.numpy()
    assert np.abs(found - expected).max() < 2e-6
    reseeded = spec.model_copy(update={"seed": 9})
    assert codec_fingerprint(spec, weights) == codec_fingerprint(reseeded, weights)  # the seed draws nothing here
    assert codec_fingerprint(spec, weights) != codec_fingerprint(SPEC)
    with pytest.raises(JobError, match="no weights there"):
        open_codec(spec)


@pytest.mark.parametrize(
    ("rows", "mean", "words"),
    [
        (np.ones((8, 768)), np.zeros(768), "not orthonormal"),
        (np.full((8, 768), np.nan), np.zeros(768), "not orthonormal"),
        (np.eye(8, 768), np.full(768, np.inf), "not finite"),
        (np.eye(7, 768), np.zeros(768), r"\[8, 768\]"),
        (np.eye(8, 768), np.zeros(767), r"\[768\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(rows: np.ndarray, mean: np.ndarray, words: str) -> None:
    with pytest.raises(JobError, match=words):
        open_codec(SPEC.model_copy(update={"weights": "somewhere"}), _user_weights(rows, mean))


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}, {"compile": True}, {"dim": 769}])
def test_options_that_would_be_ignored_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(JobError, match=f"codec.{next(iter(change))}"):
        open_codec(SPEC.model_copy(update=change))


def test_it_has_no_prior(codec: Linear) -> None:
    assert "sample" not in codec.can
    assert codec.sample_prior(np.array([1], np.uint64)) is None
    assert codec.log_prior(torch.zeros(1, 8)) is None
