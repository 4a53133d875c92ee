"""conv_vae: batch invariance with its measured budget, precisions and layouts against float32, the prior."""

import math

import numpy as np
import pytest
import torch

from schemas.codec import ConvVAECodec, Preprocess
from stages.codecs.conv_vae import ConvVAE
from tests.codec_cases import pictures, weights_of

BUDGET = 1e-5
SPEC = ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(16, 16)))


def opened(**changes: object) -> ConvVAE:
    return ConvVAE(SPEC.model_copy(update=changes), weights_of())


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_rows_latent_moves_less_than_the_budget_with_its_batch(channels_last: bool) -> None:
    codec = ConvVAE(
        ConvVAECodec(weights="somewhere", channels_last=channels_last),
        weights_of(size=64, channels=(16, 32, 64, 128), latent_dim=128),
    )
    images = pictures(70, 64)
    whole = codec.encode(images).mean
    assert whole.std() > 0.05  # the budget is absolute; latents of a trained vae are of order 1
    moved = 0.0
    for size in (1, 2, 3, 7, 33, 64):
        parts = torch.cat([codec.encode(part).mean for part in torch.split(images, size)])
        moved = max(moved, float((parts - whole).abs().max()))
    assert moved <= BUDGET
    back = codec.decode(whole)
    alone = torch.cat([codec.decode(row[None]) for row in whole[:16]])
    # A last bit may cross the rounding to a pixel level, never more.
    assert (back[:16].int() - alone.int()).abs().max() <= 1


def test_layouts_agree_to_rounding_and_precisions_to_theirs() -> None:
    images = pictures(16)
    exact = opened().encode(images)
    scale = float(exact.mean.abs().max())
    for changes, tolerance in (
        ({"channels_last": not SPEC.channels_last}, 1e-5),
        ({"precision": "bf16"}, 0.03),
        ({"precision": "fp16"}, 0.004),
    ):
        other = opened(**changes).encode(images)
        assert other.mean.dtype == torch.float32
        difference = float((other.mean - exact.mean).abs().max())
        assert difference <= tolerance * scale, changes
        assert difference > 0 or "channels_last" in changes
        decoded = opened(**changes).decode(exact.mean).int() - opened().decode(exact.mean).int()
        assert decoded.abs().max() <= 3


def test_folding_the_pixel_scale_changes_nothing_but_rounding() -> None:
    codec, images = opened(), pictures(8)
    network = codec._network
    with torch.no_grad():
        x = images.permute(0, 3, 1, 2).float() / 255
        network.encoder[0].weight.mul_(255)
        mean, logvar = network.posterior(x)
        network.encoder[0].weight.div_(255)
    found = codec.encode(images)
    assert torch.allclose(found.mean, mean, atol=1e-5)
    assert torch.allclose(found.logvar, logvar, atol=1e-5)


def test_the_input_is_read_and_never_written() -> None:
    images = pictures(4)
    before = images.clone()
    opened().encode(images)
    assert torch.equal(images, before)


def test_decoding_clips_nothing_and_stays_a_picture_for_any_latent() -> None:
    z = torch.tensor([[0.0] * 6, [1e6] * 6, [-1e30] * 6, [math.nan] * 6])
    pixels = opened().decode(z)
    assert pixels.shape == (4, 16, 16, 3) and pixels.is_contiguous()
    assert torch.equal(pixels[:1], opened().decode(z[:1]))


def test_float_pictures_carry_gradients_and_round_to_the_decoded_ones() -> None:
    codec = opened()
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pictures_ = codec.decode_float(z)
    pictures_.mean().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    assert ((pictures_.detach() * 255).round().to(torch.uint8) == codec.decode(z)).all()


def test_prior_draws_follow_from_the_rows_seed_alone() -> None:
    codec = opened()
    seeds = np.array([7, 2**64 - 1, 7, 0], np.uint64)
    draws = codec.sample_prior(seeds)
    assert draws is not None and draws.shape == (4, 6) and draws.dtype == torch.float32
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])
    alone = codec.sample_prior(seeds[1:2])
    assert alone is not None and torch.equal(alone[0], draws[1])
    many = codec.sample_prior(np.arange(4000, dtype=np.uint64))
    assert many is not None
    assert many.mean(dim=0).abs().max() < 0.08 and (many.std(dim=0) - 1).abs().max() < 0.06
    assert codec.sample_prior(np.array([], np.uint64)).shape == (0, 6)


def test_log_prior_is_the_normal_density() -> None:
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    found = opened().log_prior(z)
    assert found is not None and torch.allclose(found, expected)


def test_an_ae_has_no_prior_and_no_logvar() -> None:
    codec = ConvVAE(SPEC, weights_of(variant="ae"))
    assert codec.can == {"encode", "decode", "gradient", "layers"} and codec.latent.prior == "none"
    assert codec.encode(pictures(2)).logvar is None
    assert codec.sample_prior(np.array([1], np.uint64)) is None and codec.log_prior(torch.zeros(1, 6)) is None


def test_logvar_is_clamped() -> None:
    weights = weights_of()
    codec = ConvVAE(SPEC, weights)
    with torch.no_grad():
        codec._network.head.weight.mul_(1e6)
    logvar = codec.encode(pictures(4)).logvar
    assert logvar is not None and logvar.min() == -30 and logvar.max() == 20


def test_pictures_need_not_be_square() -> None:
    codec = ConvVAE(ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(8, 16))), weights_of(size=(8, 16)))
    images = pictures(3)[:, :8]
    assert codec.decode(codec.encode(images).mean).shape == (3, 8, 16, 3)
    # The two sides are not mixed up: a change in the last column moves the latent as one in the last row would not.
    tall = weights_of(size=(16, 8))
    with pytest.raises(RuntimeError):
        ConvVAE(ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(16, 8))), tall).encode(images[:, :4])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # the compiler's own
def test_a_compiled_codec_agrees_with_the_plain_one() -> None:
    images, weights = pictures(5, 4), weights_of(size=4, channels=(4,), latent_dim=2)
    spec = ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(4, 4)))
    plain, compiled = ConvVAE(spec, weights), ConvVAE(spec.model_copy(update={"compile": True}), weights)
    z = plain.encode(images).mean
    assert torch.allclose(compiled.encode(images).mean, z, atol=1e-5)
    assert (compiled.decode(z).int() - plain.decode(z).int()).abs().max() <= 1
