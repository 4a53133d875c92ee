"""A codec with a known fault: latent 0 also moves what latent 1 shows, by κ. And the scorer that reads both, exactly.

Picture patch i is 128 + 20·xᵢ with x₀ = z₀ and x₁ = z₁ + κz₀ (the others as they are), four pixels high so that it is read as a
mean; where latent `deaf` is positive, latent 0 shows nothing; a `blind` encoder takes x for z. `codec: {family: custom, entry: "tests.leaky_codec:LeakyCodec"}`.
"""

from typing import Any

import torch

from schemas.codec import CustomCodec, LatentSpec
from stages.codecs.base import Ability, Encoded, WithoutPrior

GAIN = 20.0


class LeakyCodec(WithoutPrior):
    can: frozenset[Ability] = frozenset({"encode", "decode"})

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture, self.latent = spec.preprocess.size, self.latent_of(spec)
        self._kappa = float(spec.options.get("kappa", 0.5))
        self._blind = bool(spec.options.get("blind"))
        self._deaf = spec.options.get("deaf")

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return LatentSpec(shape=(int(spec.options.get("dim", 4)),), space="z")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if bool((latents[:, -1] > 1e6).any()):
            raise ValueError("this latent is out of bounds")
        shown = latents.double().clone()
        if self._deaf is not None:
            shown[:, 0] = torch.where(latents[:, self._deaf] > 0, 0.0, shown[:, 0])
        shown[:, 1] += self._kappa * latents[:, 0].double()
        height, width = self.picture
        # Fractions of a grey level become a share of the patch's pixels, so a patch's mean keeps them.
        dither = torch.arange(height * 3).double() / (height * 3)
        levels = torch.floor(128 + GAIN * shown[:, None, :] + dither[:, None]).clamp(0, 255).to(torch.uint8)
        full = torch.zeros((len(latents), height * 3, width), dtype=torch.uint8)
        full[:, :, : shown.shape[1]] = levels
        return full.reshape(len(latents), height, 3, width).permute(0, 1, 3, 2).contiguous()

    def encode(self, pixels: torch.Tensor) -> Encoded:
        shown = patches(pixels)[:, : self.latent.dim]
        if not self._blind:
            shown[:, 1] -= self._kappa * shown[:, 0]
        return Encoded(shown.float())


class Patches:
    """Scores `names`: what the patches show, in their order. A picture whose last score is above `dislikes` gets NaN.

    With `leak`, a judge with a fault of its own: it takes patch 0 for so much of patch 1; `back`: and the other way round.
    """

    def __init__(
        self, *, device: str, names: list[str], dislikes: float | None = None, leak: float = 0.0, back: float = 0.0
    ) -> None:
        self._count, self._dislikes, self._leak, self._back = len(names), dislikes, leak, back

    @staticmethod
    def attributes_of(options: dict[str, Any]) -> tuple[str, ...]:
        return tuple(options["names"])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        scores = patches(images)[:, : self._count]
        if self._leak or self._back:
            shown = scores.clone()
            scores[:, 1] += self._leak * shown[:, 0]
            scores[:, 0] += self._back * shown[:, 1]
        if self._dislikes is not None:
            scores[scores[:, -1] > self._dislikes] = torch.nan
        return scores


def patches(images: torch.Tensor) -> torch.Tensor:
    """(n, width): what every column shows, undone. The mean of floor(x + k/m) over k < m is ⌊mx⌋/m."""
    return (images.double().mean(dim=(1, 3)) - 128) / GAIN
