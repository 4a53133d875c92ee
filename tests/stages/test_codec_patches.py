"""The patches codec: every code against all distances in whole numbers, round trips to the bit, and what it refuses."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from schemas.codec import LatentSpec, PatchesCodec, Preprocess
from schemas.errors import JobError
from stages.codecs.factory import codec_fingerprint, codec_identity, describe, open_codec
from stages.codecs.patches import Patches, spread_colours
from stages.codecs.weights import Weights
from tests.codec_cases import pictures

SIZE = Preprocess(size=(16, 24))
FLAT = PatchesCodec(codes=40, patch=4, preprocess=SIZE)
OWN = PatchesCodec(codes=5, patch=8, weights="./book", preprocess=SIZE)


def book(count: int = 5, side: int = 8, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def weights_of(entries: np.ndarray) -> Weights:
    return Weights({}, save({"codebook": torch.from_numpy(entries)}))


def images(count: int, *, seed: int = 0) -> torch.Tensor:
    """(count, 16, 24, 3): smooth ones, in which many patches come near one another."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    noise = np.random.default_rng(seed + 1).integers(-20, 20, (count, 16, 24, 3))
    return torch.from_numpy(np.clip(coarse.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8))


def cut(pixels: np.ndarray, side: int) -> np.ndarray:
    """(n, h/side, w/side, side·side·3) int64, cut by slicing."""
    n, height, width, _ = pixels.shape
    rows = [
        [pixels[:, y : y + side, x : x + side].reshape(n, -1) for x in range(0, width, side)]
        for y in range(0, height, side)
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1).astype(np.int64)


CASES = {"flat": (FLAT, None), "own": (OWN, weights_of(book()))}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Patches, np.ndarray]:
    """The codec and its entries as whole patches (K, p·p·3)."""
    spec, weights = CASES[request.param]
    entries = spread_colours(40, seed=0)[:, None].repeat(16, 1) if weights is None else book()
    return Patches(spec, weights), entries.reshape(len(entries), -1).astype(np.int64)


def test_codes_are_the_nearest_of_all_entries_in_whole_numbers(case: tuple[Patches, np.ndarray]) -> None:
    codec, entries = case
    pixels = images(30)
    distances = ((cut(pixels.numpy(), codec._side)[..., None, :] - entries) ** 2).sum(-1)
    codes = codec.encode(pixels).codes
    assert codes is not None and codes.shape == (30, *codec.latent.token_shape)
    np.testing.assert_array_equal(codes.numpy(), distances.argmin(-1), err_msg="the lower of two equally near")


def test_of_two_entries_equally_near_the_lower_wins() -> None:
    entries = np.zeros((3, 2, 2, 3), np.uint8)
    entries[0], entries[1], entries[2, 0, 0, 0] = 20, 10, 20
    spec = PatchesCodec(codes=3, patch=2, weights="./b", preprocess=Preprocess(size=(2, 4)))
    codec = Patches(spec, weights_of(entries))
    halfway = torch.full((1, 2, 4, 3), 15, dtype=torch.uint8)
    halfway[0, :, 2:] = 1
    codes = codec.encode(halfway).codes
    assert codes is not None and codes.tolist() == [[[0, 2]]], (
        "15 is as far from 20 as from 10; 1 is nearer to nearly 0"
    )
    assert codec.decode(torch.full((1, 12, 1, 2), 15 / 255)).unique().tolist() == [20]


def test_the_latent_is_the_embedding_of_its_codes_to_the_bit(case: tuple[Patches, np.ndarray]) -> None:
    codec, entries = case
    encoded = codec.encode(images(8))
    assert encoded.codes is not None and encoded.mean.dtype == torch.float32
    expected = codec.codebook[encoded.codes.numpy()].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(encoded.mean.numpy(), expected)
    width = codec.codebook.shape[1]
    np.testing.assert_array_equal(codec.codebook, (entries[:, :width] / 255).astype(np.float32))


def test_decoding_gives_the_entries_and_encoding_them_the_codes(case: tuple[Patches, np.ndarray]) -> None:
    codec, entries = case
    codes = np.random.default_rng(1).integers(0, len(entries), (9, *codec.latent.token_shape))
    latents = torch.from_numpy(codec.codebook[codes].transpose(0, 3, 1, 2).copy())
    drawn = codec.decode(latents)
    np.testing.assert_array_equal(cut(drawn.numpy(), codec._side), entries[codes])
    again = codec.encode(drawn)
    assert again.codes is not None and torch.equal(again.mean, latents)
    np.testing.assert_array_equal(again.codes.numpy(), codes)
    assert torch.equal(codec.decode(latents.half()), drawn), "half precision is near enough"
    assert torch.equal(codec.decode_float(latents), drawn.double() / 255)


def test_any_latent_decodes_to_the_nearest_entries(case: tuple[Patches, np.ndarray]) -> None:
    codec, entries = case
    latents = torch.rand(20, *codec.latent.shape, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    vectors = latents.double().numpy().transpose(0, 2, 3, 1)[..., None, :]
    wanted = ((vectors - codec.codebook.astype(np.float64)) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(cut(codec.decode(latents).numpy(), codec._side), entries[wanted])
    latents[0, 0, 0, 0], latents[1] = torch.nan, torch.inf
    assert codec.decode(latents)[2:].equal(codec.decode(latents[2:]))


def test_no_answer_depends_on_the_batch(case: tuple[Patches, np.ndarray]) -> None:
    codec, _ = case
    pixels = images(70, seed=5)
    whole = codec.encode(pixels)
    for size in (1, 3, 64):
        parts = [codec.encode(part) for part in pixels.split(size)]
        assert torch.equal(torch.cat([p.mean for p in parts]), whole.mean)
        decoded = torch.cat([codec.decode(part) for part in (whole.mean + 0.01).split(size)])
        assert torch.equal(decoded, codec.decode(whole.mean + 0.01))
    assert codec.encode(pixels[:0]).mean.shape == (0, *codec.latent.shape)


def test_seeded_colours_are_different_and_everywhere() -> None:
    for seed in range(3):
        colours = spread_colours(512, seed=seed)
        assert colours.shape == (512, 3) and len(np.unique(colours, axis=0)) == 512
        octants = np.bincount((colours >> 7) @ [4, 2, 1], minlength=8)
        assert octants.min() >= 56 and octants.max() <= 72, "64 in each, give or take"
        np.testing.assert_array_equal(spread_colours(64, seed=seed), colours[:64])
    assert not np.array_equal(spread_colours(64, seed=0), spread_colours(64, seed=1))
    assert len(np.unique(spread_colours(2**16, seed=0), axis=0)) == 2**16


def test_colours_and_identity_are_pinned() -> None:
    """Another machine, another NumPy: the same codebook. A change here orphans every table that was written with one."""
    assert spread_colours(3, seed=0).tolist() == [[34, 240, 98], [244, 155, 239], [198, 71, 124]]
    assert codec_fingerprint(FLAT)[:16] == "34f55e19ba5e5c52"


def test_what_it_says_of_itself() -> None:
    known = describe(FLAT)
    assert known.latent == LatentSpec(shape=(3, 4, 6), space="model", codebook=40)
    assert (known.latent.token_shape, known.latent.embedding_axis) == ((4, 6), 0)
    own = describe(OWN, weights_of(book()))
    assert own.latent.shape == (192, 2, 3) and "seed" not in own.config
    assert codec_identity(FLAT) != codec_identity(FLAT.model_copy(update={"seed": 1}))
    assert codec_identity(OWN, weights_of(book())) != codec_identity(OWN, weights_of(book(seed=1)))
    codec = open_codec(FLAT)
    assert codec.can == {"encode", "decode", "codes"} and codec.log_prior(codec.encode(pictures(0)).mean) is None
    assert codec.sample_prior(np.zeros(1, np.uint64)) is None


def test_a_token_axis_may_stand_anywhere() -> None:
    tokens = LatentSpec(shape=(7, 2), axes=("token", "feature"), space="model", codebook=4)
    assert (tokens.token_shape, tokens.embedding_axis) == ((7,), 1)
    assert LatentSpec(shape=(3, 4, 6), space="model").token_shape == ()
    for shape, axes in (((8,), ()), ((4, 2), ()), ((4, 2), ("layer", "token"))):
        with pytest.raises(ValueError, match="codebook"):
            LatentSpec.model_validate({"shape": shape, "axes": axes, "space": "model", "codebook": 4})


@pytest.mark.parametrize(
    ("spec", "weights", "words"),
    [
        (FLAT.model_copy(update={"patch": 5}), None, ["codec.patch = 5", "does not divide", "divisor"]),
        (FLAT.model_copy(update={"precision": "bf16"}), None, ["codec.precision", "exact"]),
        (OWN, None, ["codec.weights", "no weights there"]),
        (OWN, weights_of(book(4)), ["codebook", "[4, 8, 8, 3]", "codec.codes"]),
        (OWN, weights_of(book()[[0, 1, 2, 1, 3]]), ["5 entries, of which 4 are different"]),
        (OWN, weights_of(book().astype(np.float32)), ["float32", "uint8"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(spec: PatchesCodec, weights: Weights | None, words: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        open_codec(spec, weights)
    for word in words:
        assert word in str(caught.value)
