"""A codec that shows tanh(z): pictures saturate, so an effect costs more the further a latent is out, and some cost no length can pay.

Picture column i is 128 + 100·tanh(zᵢ), four pixels high or more so that it is read as a mean; encoding gives tanh(zᵢ) back. Everything is
known in closed form: the score of a picture along latent 0 changes by c at α = atanh(tanh(z₀) + c) − z₀.
`codec: {family: custom, entry: "tests.saturating_codec:SaturatingCodec"}`.
"""

import numpy as np
import torch

from schemas.codec import CustomCodec, LatentSpec
from stages.codecs.base import Ability, Encoded, WithoutPrior

GAIN = 100.0


class SaturatingCodec(WithoutPrior):
    """Options: `dim`; `blank`: a latent whose last number is above it is shown as a picture that encodes to NaN."""

    can: frozenset[Ability] = frozenset({"encode", "decode"})

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture, self.latent = spec.preprocess.size, self.latent_of(spec)
        self._blank = float(spec.options.get("blank", np.inf))

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return LatentSpec(shape=(int(spec.options.get("dim", 4)),), space="z")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        height, width = self.picture
        # Fractions of a grey level become a share of the column's pixels, so a column's mean keeps them.
        dither = torch.arange(height * 3).double() / (height * 3)
        levels = torch.floor(128 + GAIN * torch.tanh(latents.double())[:, None, :] + dither[:, None])
        full = torch.zeros((len(latents), height * 3, width), dtype=torch.uint8)
        full[:, :, : levels.shape[2]] = levels.to(torch.uint8)
        full[latents[:, -1] > self._blank] = 0
        return full.reshape(len(latents), height, 3, width).permute(0, 1, 3, 2).contiguous()

    def encode(self, pixels: torch.Tensor) -> Encoded:
        shown = (pixels.double().mean(dim=(1, 3)) - 128)[:, : self.latent.dim] / GAIN
        shown[pixels.flatten(1).amax(dim=1) == 0] = torch.nan
        return Encoded(shown.float())
