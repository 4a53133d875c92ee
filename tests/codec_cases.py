"""Codecs for tests: conv_vae weights that nobody trained, random pictures, and a codec that fails where a test says so.

StubbornCodec stands where users' codecs stand: `codec: {family: custom, entry: "tests.codec_cases:StubbornCodec"}`.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.codec import CustomCodec, LatentSpec, LinearCodec, Preprocess
from schemas.steps import TrainStep
from stages.checkpoint import weights_bytes
from stages.codecs.base import Ability, Encoded, WithoutPrior
from stages.codecs.conv_config import config_of
from stages.codecs.conv_network import ConvNetwork
from stages.codecs.linear import Linear
from stages.codecs.weights import Weights

RAISES, NAN, HUGE = 1, 2, 3
"""What the first number of a picture (or, rounded, of a latent) makes StubbornCodec do."""


def weights_of(*, size: int | tuple[int, int] = 16, seed: int = 0, **settings: Any) -> Weights:
    """Random weights of a small conv_vae; `settings` are those of the train step."""
    step = TrainStep(**{"channels": (8, 16), "latent_dim": 6} | settings)
    config = config_of(step, Preprocess.model_validate({"size": size}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Weights(config.model_dump(mode="json"), weights_bytes(ConvNetwork(config)))


def network(folder: Path) -> dict[str, Any]:
    """A small conv_vae that nobody trained, its weights below `folder`, as a job names it."""
    weights = weights_of()
    (folder / "codec").mkdir()
    (folder / "codec" / "config.json").write_text(json.dumps(weights.config))
    (folder / "codec" / "model.safetensors").write_bytes(weights.tensors)
    return {"family": "conv_vae", "weights": str(folder / "codec"), "preprocess": {"size": 16}}


def pictures(count: int, size: int = 16, *, seed: int = 0) -> torch.Tensor:
    """(count, size, size, 3) uint8 noise whose first number is none of the special ones."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    noise[:, 0, 0, 0] = 100
    return torch.from_numpy(noise)


class StubbornCodec(WithoutPrior):
    """The first two numbers of a picture, both ways. `options.fits`: rows that fit its pretended device."""

    can: frozenset[Ability] = frozenset({"encode", "decode"})

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture = spec.preprocess.size
        self.latent = self.latent_of(spec)
        self._fits = int(spec.options.get("fits", 10**9))
        self.calls: list[int] = []

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return LatentSpec(shape=(2,), space=str(spec.options.get("space", "z")))

    def encode(self, pixels: torch.Tensor) -> Encoded:
        first = pixels.flatten(1)[:, :2].to(torch.float32)
        self._misbehave(first[:, 0])
        first[first[:, 0] == NAN] = torch.nan
        first[first[:, 0] == HUGE] = 1e5
        return Encoded(first)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self._misbehave(latents[:, 0])
        full = torch.zeros((len(latents), *self.picture, 3), dtype=torch.uint8)
        full[:, 0, 0, :2] = latents.to(torch.uint8)
        return full

    def _misbehave(self, first: torch.Tensor) -> None:
        self.calls.append(len(first))
        if len(first) > self._fits:
            raise torch.OutOfMemoryError(f"{len(first)} rows do not fit")
        if bool((first == RAISES).any()):
            raise ValueError("this picture is not to my taste")


class ShellCodec(Linear):
    """The linear codec of six numbers that says its latents lie near a centred shell, as a generator's z do."""

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        linear = LinearCodec(dim=6, preprocess=spec.preprocess, seed=spec.options.get("seed", 0))
        super().__init__(linear, None, device=device)
        self.latent = self.latent_of(spec)

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return LatentSpec(shape=(6,), space="z", centred_shell=True)


class NoiseCodec:
    """Three numbers drawn by a hash of the picture: latents that say nothing of what they are latents of."""

    can: frozenset[Ability] = frozenset({"encode"})
    latent = LatentSpec(shape=(3,), space="z")

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture = spec.preprocess.size

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return NoiseCodec.latent

    def encode(self, pixels: torch.Tensor) -> Encoded:
        seeds = [zlib.crc32(one.numpy().tobytes()) for one in pixels]
        return Encoded(torch.tensor(np.array([np.random.default_rng(s).standard_normal(3) for s in seeds])).float())


class DigitCodec:
    """The first two numbers of a picture, as codes of a codebook of 8; a larger number is no code. `options.silent`: it gives none."""

    can: frozenset[Ability] = frozenset({"encode", "codes"})
    latent = LatentSpec(shape=(2, 1), axes=("token", "feature"), space="model", codebook=8)
    codebook = np.arange(8, dtype=np.float32)[:, None]

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture = spec.preprocess.size
        self._silent = bool(spec.options.get("silent"))

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return DigitCodec.latent

    def encode(self, pixels: torch.Tensor) -> Encoded:
        first = pixels.flatten(1)[:, :2]
        return Encoded(first.float()[..., None], codes=None if self._silent else first)
