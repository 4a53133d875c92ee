"""A codec of a user's own that takes its time, so that a fault test has something to interrupt.

It stands where users' codecs stand: `codec: {family: custom, entry: "tests.slow_codec:SlowCodec"}`, `allow_code: true`.
"""

import time

import torch

from schemas.codec import LatentSpec
from schemas.errors import JobError
from stages.codecs.base import Encoded, WithoutPrior


class SlowCodec(WithoutPrior):
    """Mean colours of a 2 × 2 grid, after `options.seconds` a picture."""

    def __init__(self, spec, *, device: str) -> None:
        self._seconds = float(spec.options.get("seconds", 0.01))
        self._size = spec.preprocess.size
        self._device = device
        if spec.options.get("refuse"):
            raise JobError.one("codec.options", "refuse", "this codec was told to refuse.", "do not tell it")

    @property
    def latent(self) -> LatentSpec:
        return self.latent_of(None)

    @staticmethod
    def latent_of(spec) -> LatentSpec:
        return LatentSpec(shape=(12,), space="z")

    @property
    def picture(self) -> tuple[int, int]:
        return self._size

    @property
    def can(self) -> frozenset[str]:
        return frozenset({"encode"})

    def encode(self, pixels: torch.Tensor) -> Encoded:
        time.sleep(self._seconds * len(pixels))
        n, height, width, _ = pixels.shape
        cells = pixels.double().reshape(n, 2, height // 2, 2, width // 2, 3).mean(dim=(2, 4))
        return Encoded(cells.reshape(n, 12).float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise TypeError("this codec cannot decode")
