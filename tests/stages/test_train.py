"""Training: resumed equals uninterrupted bit for bit, losses are the densities they claim to be, and it learns."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import ConvVAECodec, Preprocess
from schemas.errors import JobError, TrainingError
from schemas.steps import TrainStep
from stages.codecs.conv_vae import ConvVAE
from stages.codecs.factory import describe, open_codec
from stages.codecs.weights import Weights
from stages.objective import objective
from stages.schedule import Shuffle, learning_rate, noise
from stages.train import Trainer, TrainPoint

SIZE = Preprocess(size=(16, 16))
STEP = TrainStep(name="t", channels=(8, 16), latent_dim=4, steps=7, batch_size=5, checkpoint_every=3)


def blobs(count: int, *, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with three known factors in [0, 1]: where a soft disc is (x, y), and how bright the ground."""
    factors = np.random.default_rng(0).random((count, 3))
    rows, columns = np.mgrid[:size, :size] / size
    x, y, ground = (factors[:, i, None, None] for i in range(3))
    disc = np.exp(-(((columns - 0.25 - 0.5 * x) / 0.15) ** 2 + ((rows - 0.25 - 0.5 * y) / 0.15) ** 2))
    grey = 0.1 + 0.4 * ground + 0 * disc
    picture = np.stack([np.clip(grey + 0.5 * disc, 0, 1), grey, 1 - grey], axis=-1)
    return np.rint(picture * 255).astype(np.uint8), factors


IMAGES, FACTORS = blobs(23)


def trained(
    step: TrainStep, files: dict[str, bytes], *, images: np.ndarray = IMAGES, stop: int | None = None
) -> list[TrainPoint]:
    """Runs a training over `files`, a folder in memory; dies after `stop` steps."""
    points: list[TrainPoint] = []
    for point in Trainer(step, SIZE).run(images, load=files.get, save=files.__setitem__):
        points.append(point)
        if point.step == stop:
            break
    return points


def outcome(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith("checkpoint")}


@pytest.mark.parametrize("changes", [{}, {"variant": "ae"}, {"precision": "bf16"}, {"batch_size": 40}])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(changes: dict[str, Any]) -> None:
    step = STEP.model_copy(update=changes)
    whole: dict[str, bytes] = {}
    points = trained(step, whole)
    assert [p.step for p in points] == list(range(1, 8))
    broken: dict[str, bytes] = {}
    first = trained(step, broken, stop=5)
    assert list(broken) == ["checkpoint.safetensors"]
    rest = trained(step, broken)
    assert [p.step for p in rest] == [4, 5, 6, 7]  # from the checkpoint after step 3
    assert first[:3] + rest == points
    assert outcome(broken) == outcome(whole)


def test_a_training_that_died_at_its_end_only_writes() -> None:
    step = STEP.model_copy(update={"steps": 6})
    files: dict[str, bytes] = {}
    trained(step, files)
    again = {"checkpoint.safetensors": files["checkpoint.safetensors"]}
    assert trained(step, again) == []
    assert outcome(again) == outcome(files)


def test_the_config_is_written_last_and_fits_the_tensors() -> None:
    files: dict[str, bytes] = {}
    trained(STEP, files)
    assert list(outcome(files)) == ["history.json", "model.safetensors", "config.json"]
    weights = Weights.from_files(files["config.json"], files["model.safetensors"])
    spec = ConvVAECodec(weights="x", preprocess=SIZE)
    assert open_codec(spec, weights).latent == describe(spec, weights).latent == Trainer(STEP, SIZE).config.latent


def test_history_is_the_loss_curve_also_across_a_break() -> None:
    files: dict[str, bytes] = {}
    trained(STEP, files, stop=4)
    trained(STEP, files)
    history = json.loads(files["history.json"])
    assert [p["step"] for p in history] == list(range(1, 8))
    assert all(math.isclose(p["loss"], p["reconstruction"] + STEP.beta * p["kl"], rel_tol=1e-6) for p in history)


@pytest.mark.parametrize("change", [{"seed": 1}, {"beta": 2.0}, {"steps": 8}, {"learning_rate": 1e-4}])
def test_a_checkpoint_of_other_settings_is_not_gone_on_from(change: dict[str, Any]) -> None:
    files: dict[str, bytes] = {}
    trained(STEP, files, stop=4)
    other = STEP.model_copy(update=change)
    fresh: dict[str, bytes] = {}
    trained(other, fresh)
    assert trained(other, files)[0].step == 1
    assert outcome(files) == outcome(fresh)


def test_a_checkpoint_of_other_pictures_is_not_gone_on_from_and_a_name_is_no_setting() -> None:
    files: dict[str, bytes] = {}
    trained(STEP, files, stop=4)
    kept = dict(files)
    assert trained(STEP, files, images=255 - IMAGES)[0].step == 1
    renamed = STEP.model_copy(update={"name": "other", "to": "elsewhere", "checkpoint_every": 1000})
    assert trained(renamed, kept)[0].step == 4


def test_a_damaged_checkpoint_says_so() -> None:
    with pytest.raises(TrainingError, match="checkpoint is damaged"):
        trained(STEP, {"checkpoint.safetensors": b"not a checkpoint"})


def test_training_reads_a_memory_map(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, IMAGES.shape)
    mapped[:] = IMAGES
    from_map: dict[str, bytes] = {}
    from_array: dict[str, bytes] = {}
    trained(STEP, from_map, images=mapped)
    trained(STEP, from_array)
    assert outcome(from_map) == outcome(from_array)


def test_a_loss_that_is_not_finite_names_the_step_and_the_fix() -> None:
    step = STEP.model_copy(update={"learning_rate": 1e30, "steps": 50})
    with pytest.raises(TrainingError, match=r"step \d+ of 50: .*Fix: lower learning_rate \(now 1e\+30\)"):
        trained(step, {})


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (IMAGES[:0], "no images"),
        (IMAGES[:, :8], r"uint8 \[23, 8, 16, 3\], not uint8 \[n, 16, 16, 3\]"),
        (IMAGES.astype(np.float32), "float32"),
    ],
)
def test_images_that_cannot_be_trained_on_are_refused(images: np.ndarray, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        trained(STEP, {}, images=images)


def test_stages_that_do_not_divide_the_picture_are_refused_before_training() -> None:
    with pytest.raises(JobError, match=r"t.channels = \[8, 16, 32, 64, 128\].*sides divisible by 32.*Fix: use fewer"):
        Trainer(STEP.model_copy(update={"channels": (8, 16, 32, 64, 128)}), SIZE)


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(STEP, {})
    assert torch.equal(torch.get_rng_state(), before)


def test_points_travel_between_processes() -> None:
    assert pickle.loads(pickle.dumps(TrainPoint(1, 2.0, 1.0, 1.0))) == TrainPoint(1, 2.0, 1.0, 1.0)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 3))
def test_every_epoch_shows_every_picture_once(count: int, batch: int, seed: int) -> None:
    shuffle = Shuffle(count=count, batch=batch, seed=seed)
    steps = [shuffle.rows(k) for k in range(math.ceil(3 * count / batch))]
    assert all(len(rows) == batch and (np.diff(rows) >= 0).all() for rows in steps)
    times = np.bincount(np.concatenate(steps), minlength=count)
    assert times.max() - times.min() <= 1  # at any moment no picture is more than one showing ahead
    again = Shuffle(count=count, batch=batch, seed=seed)
    assert np.array_equal(again.rows(len(steps) - 1), steps[-1])  # whatever was asked before


def test_batches_and_noise_follow_from_seed_and_step() -> None:
    rows = [tuple(Shuffle(count=1000, batch=8, seed=s).rows(k)) for s in (0, 1) for k in (0, 1)]
    assert len(set(rows)) == 4
    assert torch.equal(noise((3, 4), seed=0, step=5), noise((3, 4), seed=0, step=5))
    assert not torch.equal(noise((3, 4), seed=0, step=5), noise((3, 4), seed=0, step=6))
    assert not torch.equal(noise((3, 4), seed=0, step=5), noise((3, 4), seed=1, step=5))


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_the_learning_rate_warms_up_and_falls(steps: int) -> None:
    rates = [learning_rate(k, steps=steps, peak=2.0) for k in range(steps)]
    assert min(rates) > 0 and max(rates) <= 2.0
    if steps == 1000:
        top = int(np.argmax(rates))
        assert 20 < top < 40 and rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)
        assert rates[-1] < 0.03


def test_the_objective_is_the_log_density_and_the_divergence_it_claims() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(6, 3, 4, 4, generator=g), torch.rand(6, 3, 4, 4, generator=g)
    mean, logvar = torch.randn(6, 5, generator=g), torch.randn(6, 5, generator=g)
    found = objective(x, y, mean=mean, logvar=logvar, beta=0.7)
    sigma = (x - y).square().mean().sqrt()  # the likeliest σ of the batch
    log_density = torch.distributions.Normal(y, sigma).log_prob(x).flatten(1).sum(dim=1).mean()
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    assert torch.allclose(found.reconstruction, -log_density, rtol=1e-5)
    assert torch.allclose(found.kl, kl, rtol=1e-5)
    assert torch.allclose(found.loss, -log_density + 0.7 * kl, rtol=1e-5)
    for other in (0.9, 1.1):
        assert torch.distributions.Normal(y, sigma * other).log_prob(x).flatten(1).sum(dim=1).mean() < log_density


def test_a_perfect_reconstruction_has_a_finite_loss() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.isfinite(objective(x, x, mean=torch.zeros(2, 3), logvar=None, beta=1.0).loss)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vae", "ae"])
def test_it_learns_pictures_and_their_factors(variant: str) -> None:
    images, factors = blobs(600)
    step = TrainStep(variant=variant, channels=(16, 32), latent_dim=8, steps=300, batch_size=32, learning_rate=2e-3)
    files: dict[str, bytes] = {}
    points = trained(step, files, images=images[:500])
    weights = Weights.from_files(files["config.json"], files["model.safetensors"])
    codec = ConvVAE(ConvVAECodec(weights="x", preprocess=SIZE), weights)
    unseen = torch.from_numpy(images[500:])
    encoded = codec.encode(unseen)
    error = float(((codec.decode(encoded.mean).float() - unseen.float()) / 255).square().mean())
    assert points[-1].loss < points[0].loss - 500
    assert error < 0.1 * float((unseen.float() / 255).var(dim=0).mean())
    latents = codec.encode(torch.from_numpy(images)).mean.numpy()
    design = np.c_[latents, latents**2, np.ones(len(latents))]
    fit = np.linalg.lstsq(design[:500], factors[:500], rcond=None)[0]
    unexplained = ((design[500:] @ fit - factors[500:]) ** 2).mean(axis=0) / factors[500:].var(axis=0)
    assert unexplained.max() < 0.2
    if variant == "vae":
        assert 0.5 < latents.std(axis=0).max() < 3  # scaled by the prior, not free
        assert encoded.logvar is not None and encoded.logvar.min() < -1


def test_beta_buys_fewer_nats_of_latent() -> None:
    images, _ = blobs(200)
    kl = []
    for beta in (0.1, 1.0, 10.0):
        step = TrainStep(channels=(8, 16), latent_dim=4, steps=60, batch_size=16, learning_rate=2e-3, beta=beta)
        kl.append(trained(step, {}, images=images)[-1].kl)
    assert kl == sorted(kl, reverse=True) and kl[-1] < 0.7 * kl[0]
